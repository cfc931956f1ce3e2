#!/bin/bash
# Disks that run full: a write says no space, reads and deletes go on, and with space the service comes back by itself.
# test: timeout=240
. "$(dirname "$0")/../lib/cluster.sh"

step "three chunkservers and a master, each on a small ext4 of its own"
unmount_disks() { for name in $names; do mountpoint -q "$cluster/data/$name" && umount -l "$cluster/data/$name"; done; }
names="chunkserver-1 chunkserver-2 chunkserver-3 master-1"
at_end=unmount_at_end
unmount_at_end() { granary dev down "$cluster"; unmount_disks; } > /dev/null 2>&1
for name in $names; do
	mkdir -p "$cluster/data/$name"
	truncate -s 256M "$TEST_DIR/disk-$name"
	mkfs.ext4 -q -m 0 "$TEST_DIR/disk-$name"
	mount -o loop "$TEST_DIR/disk-$name" "$cluster/data/$name" 2> "$TEST_DIR/why" || skip "no loop mounts here: $(cat "$TEST_DIR/why")"
done
up --masters 1 --chunkservers 3 --mount "$mnt"

step "disks that run full under a mount: small files that close did not refuse stay, and are stored when there is room"
cat > "$TEST_DIR/closed.py" << 'END'
import errno, os, sys
root, check = sys.argv[1], len(sys.argv) > 2
content = lambda n: b"%d " % n * 700
if check:
    wrong = [n for n in range(int(sys.argv[2])) if open(f"{root}/{n}", "rb").read() != content(n)]
    sys.exit(f"closed, and not there: {wrong}" if wrong else 0)
os.mkdir(root)
for n in range(1000000):
    try:
        with open(f"{root}/{n}", "wb", buffering=0) as file:
            file.write(content(n))
    except OSError as error:
        print(n)
        sys.exit(0 if error.errno == errno.ENOSPC else f"{error}")
END
fill_disks() {
	for i in 1 2 3; do # reserved for metadata: 64 MiB
		disk=$cluster/data/chunkserver-$i
		fallocate -l $(($(df --output=avail -B1 "$disk" | tail -1) - (50 << 20))) "$disk/filler"
	done
}
python3 "$TEST_DIR/closed.py" "$mnt/closed" > "$TEST_DIR/closed" &
writer=$!
wait_for 20 "files" test -e "$mnt/closed/100"
fill_disks
wait $writer || fail "what ended the writer was not a lack of space"
closed=$(cat "$TEST_DIR/closed")
grep -q file_not_stored_yet "$cluster/log/mount.log" || fail "none of $closed files had to wait for room"
python3 "$TEST_DIR/closed.py" "$mnt/closed" "$closed" || fail "what was closed cannot be read"
expect 0 granary ls /closed # the delegation is called back
rm "$cluster"/data/chunkserver-?/filler
closed_elsewhere() { rm -rf "$TEST_DIR/got" && granary get -r /closed "$TEST_DIR/got" && python3 "$TEST_DIR/closed.py" "$TEST_DIR/got" "$closed"; }
wait_for 60 "the files that had to wait for room" closed_elsewhere 2> "$TEST_DIR/err"
python3 "$TEST_DIR/closed.py" "$mnt/closed" "$closed" || fail "what was closed is gone"
echo "   $closed files"

step "a mount that ends before there is room says what is lost"
mkdir "$TEST_DIR/ending"
granary-mount --timeout 1s --foreground "$TEST_DIR/ending" 2> "$TEST_DIR/ending.log" &
mount=$!
wait_for 10 "the mount" mountpoint -q "$TEST_DIR/ending"
python3 "$TEST_DIR/closed.py" "$TEST_DIR/ending/lost" > "$TEST_DIR/closed" &
writer=$!
wait_for 20 "files" test -e "$TEST_DIR/ending/lost/100"
fill_disks
wait $writer || fail "what ended the writer was not a lack of space"
kill $mount
status=0
wait $mount || status=$?
equal $status 1
grep -q file_lost "$TEST_DIR/ending.log" || fail "it says $(tail -3 "$TEST_DIR/ending.log")"
rm "$cluster"/data/chunkserver-?/filler
wait_for 20 "room" granary --timeout 5s put "$TEST_DIR/closed" /room

step "fill it"
random_file "$TEST_DIR/piece" $((8 << 20))
stored=0
for i in $(seq 100); do
	granary --timeout 20s put "$TEST_DIR/piece" /piece-$i 2> "$TEST_DIR/err" || break
	stored=$i
done
[ $stored -ge 10 ] || fail "only $stored pieces of 8 MiB fit on a disk of 256 MiB: $(cat "$TEST_DIR/err")"
[ $stored -lt 32 ] || fail "$stored pieces of 8 MiB on a disk of 256 MiB"
grep -qi "no space" "$TEST_DIR/err" || fail "a full cluster says: $(cat "$TEST_DIR/err")"
echo "   $stored pieces"

step "the mount says ENOSPC, too"
if dd if="$TEST_DIR/piece" of="$mnt/more" bs=1M conv=fsync 2> "$TEST_DIR/err"; then fail "a write to a full cluster went well"; fi
grep -q "No space left" "$TEST_DIR/err" || fail "dd on a full cluster says: $(cat "$TEST_DIR/err")"
rm -f "$mnt/more"

step "nothing half-written, reads go on, so do names"
expect 3 granary stat /piece-$((stored + 1))
for i in 1 $stored; do granary cat /piece-$i | cmp - "$TEST_DIR/piece" || fail "piece $i"; done
cmp "$mnt/piece-2" "$TEST_DIR/piece" || fail "piece 2 through the mount"
expect 0 granary mkdir /still-works
expect 0 granary mv /piece-3 /still-works/
expect 1 granary dev status "$TEST_DIR"
expect 0 granary dev status "$cluster"

step "deletes go on and give the space back; then writes go on"
for i in $(seq 4 $stored); do expect 0 granary rm /piece-$i; done # a server takes new chunks with room for a whole one
wait_for 60 "space after deletes" granary --timeout 5s put "$TEST_DIR/piece" /again
granary cat /again | cmp - "$TEST_DIR/piece" || fail "what was put afterwards"
granary cat /still-works/piece-3 | cmp - "$TEST_DIR/piece" || fail "piece 3"

step "the master's disk runs full: what adds says no space, the rest goes on"
master="$cluster/data/master-1"
refused() { ! granary --timeout 5s mkdir /late-$RANDOM 2> "$TEST_DIR/err"; }
# Files, directories and renames until the first refusal: all that went well before is there afterwards.
python3 - "$mnt/promised" > "$TEST_DIR/promised" << 'END' &
import errno, os, sys
root, n = sys.argv[1], 0
try:
    while True:
        path = f"{root}/{n}" if n else root
        os.mkdir(path)
        print(n, flush=True)
        n += 1
        with open(f"{path}/new", "wb", buffering=0) as file:
            file.write(b"%d" % n)
        os.rename(f"{path}/new", f"{path}/file")
        print(f"{n - 1}/file {n}", flush=True)
except OSError as error:
    sys.exit(0 if error.errno == errno.ENOSPC else f"{error}")
END
writer=$!
wait_for 20 "names before the disk runs full" test -s "$TEST_DIR/promised"
fallocate -l $(($(df --output=avail -B1 "$master" | tail -1) - (40 << 20))) "$master/filler"
wait_for 20 "refusal of new names" refused
wait $writer || fail "what ended the writer was not a refusal"
echo "   $(grep -c file "$TEST_DIR/promised") files before that"
grep -qi "no space" "$TEST_DIR/err" || fail "a full master says: $(cat "$TEST_DIR/err")"
if mkdir "$mnt/late" 2> "$TEST_DIR/err"; then fail "mkdir with a full master went well"; fi
grep -q "No space left" "$TEST_DIR/err" || fail "mkdir with a full master says: $(cat "$TEST_DIR/err")"
expect 1 granary put "$TEST_DIR/piece" /late-piece
granary cat /still-works/piece-3 | cmp - "$TEST_DIR/piece" || fail "piece 3"
cmp "$mnt/piece-2" "$TEST_DIR/piece" || fail "piece 2 through the mount"
expect 0 granary rm /piece-1
rm "$mnt/piece-2" || fail "rm through the mount"
expect 0 granary admin status
rm "$master/filler"
wait_for 20 "new names once there is room" granary --timeout 5s mkdir /in-time
mkdir "$mnt/in-time-too" || fail "mkdir through the mount"
expect 3 granary stat /late-piece
while read -r path content; do
	if [ -z "$content" ]; then
		[ "$path" = 0 ] || granary stat "/promised/$path" > /dev/null || fail "directory $path is gone"
	else
		equal "$(granary cat "/promised/${path#0/}")" "$content"
	fi
done < <(tail -n 60 "$TEST_DIR/promised")
echo done
