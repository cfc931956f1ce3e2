#!/bin/bash
# Disks that run full: a write says no space, reads and deletes go on, and with space the service comes back by itself.
# test: timeout=240
. "$(dirname "$0")/../lib/cluster.sh"

step "three chunkservers, each on a small ext4 of its own"
unmount_disks() { for i in 1 2 3; do mountpoint -q "$cluster/data/chunkserver-$i" && umount -l "$cluster/data/chunkserver-$i"; done; }
at_end=unmount_at_end
unmount_at_end() { granary dev down "$cluster"; unmount_disks; } > /dev/null 2>&1
for i in 1 2 3; do
	mkdir -p "$cluster/data/chunkserver-$i"
	truncate -s 256M "$TEST_DIR/disk-$i"
	mkfs.ext4 -q -m 0 "$TEST_DIR/disk-$i"
	mount -o loop "$TEST_DIR/disk-$i" "$cluster/data/chunkserver-$i" 2> "$TEST_DIR/why" || skip "no loop mounts here: $(cat "$TEST_DIR/why")"
done
up --chunkservers 3 --mount "$mnt"

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
for i in 4 5 6 7 8; do expect 0 granary rm /piece-$i; done
wait_for 60 "space after deletes" granary --timeout 5s put "$TEST_DIR/piece" /again
granary cat /again | cmp - "$TEST_DIR/piece" || fail "what was put afterwards"
granary cat /still-works/piece-3 | cmp - "$TEST_DIR/piece" || fail "piece 3"
echo done
