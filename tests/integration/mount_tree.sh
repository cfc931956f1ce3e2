#!/bin/bash
# A real tree of a few thousand files through the mount: cp, tar, rsync, a restart, another mount.
# test: timeout=240
. "$(dirname "$0")/../lib/cluster.sh"
tree=$TEST_DIR/tree
mkdir -p "$tree"

step "a tree"
# real files of this machine, with long names, links and modes of their own
(cd /usr/include && find . -type f -size -200k | sort | head -n 2000 | tar -cf - -T -) | tar -C "$tree" -xf -
ln -s ../linux "$tree/a-link"
ln -s /nowhere/at/all "$tree/dangling"
mkdir -p "$tree/empty" "$tree/modes"
for mode in 000 400 755 4755 1777; do echo $mode > "$tree/modes/f$mode" && chmod $mode "$tree/modes/f$mode"; done
ln "$tree/modes/f755" "$tree/modes/hardlink"
random_file "$tree/eight-mebibytes" $((8 << 20))
echo utf > "$tree/naïve ☃ name"
chown 1000:1000 "$tree/modes/f400"
setfattr -n user.colour -v blue "$tree/modes/f755" || true
count=$(find "$tree" | wc -l)
echo "$count names"

up --mount "$mnt"
step "cp -a in"
cp -a "$tree" "$mnt/cp"
same_tree "$tree" "$mnt/cp"
equal "$(find "$mnt/cp" | wc -l)" "$count"
step "rsync compares contents, times, modes, owners, links"
changed=$(rsync -aHcn --itemize-changes "$tree/" "$mnt/cp/")
[ -z "$changed" ] || fail "rsync sees differences: $(head -5 <<< "$changed")"

step "tar in and out"
mkdir "$mnt/tar"
tar -C "$tree" -cf - . | tar -C "$mnt/tar" -xpf -
tar -C "$mnt/tar" -cf "$TEST_DIR/out.tar" .
mkdir "$TEST_DIR/untarred"
tar -C "$TEST_DIR/untarred" -xpf "$TEST_DIR/out.tar"
changed=$(rsync -aHcn --itemize-changes "$tree/" "$TEST_DIR/untarred/")
[ -z "$changed" ] || fail "tar: rsync sees differences: $(head -5 <<< "$changed")"

step "another mount sees the same"
mkdir "$TEST_DIR/mnt2"
granary-mount --cluster "$(sed -n 's/^cluster = //p' "$GRANARY_CONFIG")" "$TEST_DIR/mnt2" > "$TEST_DIR/mnt2.log" 2>&1 &
second=$!
unmount_second() { mountpoint -q "$TEST_DIR/mnt2" && umount "$TEST_DIR/mnt2"; kill $second; wait $second; } 2> /dev/null
at_end=unmount_second
wait_for 10 "the second mount" mountpoint -q "$TEST_DIR/mnt2"
same_tree "$tree" "$TEST_DIR/mnt2/cp"

step "the command line sees the same"
granary get -r /cp "$TEST_DIR/got"
diff -r --no-dereference "$tree" "$TEST_DIR/got" > "$TEST_DIR/diff" || fail "granary get -r: $(head -5 "$TEST_DIR/diff")"

step "down and up"
unmount_second || true
at_end=:
granary dev down "$cluster"
mountpoint -q "$mnt" && fail "still mounted after down"
up
changed=$(rsync -aHcn --itemize-changes "$tree/" "$mnt/cp/")
[ -z "$changed" ] || fail "after a restart rsync sees differences: $(head -5 <<< "$changed")"

step "rm -r"
rm -r "$mnt/tar" "$mnt/cp"
granary admin trash empty > /dev/null
equal "$(ls -A "$mnt")" ""
wait_for 30 "what was deleted is gone from the chunkservers" \
	sh -c 'granary admin status --json | python3 -c "import json,sys; x = json.load(sys.stdin); sys.exit(x[\"inodes\"] > 1 or x[\"garbage\"] > 0)"'
echo done
