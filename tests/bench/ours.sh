#!/bin/bash
# ours.sh up|down|remount|kill-one|freeze-one|rss DIR: Granary on this machine for a benchmark kit: 3 masters, 3 chunkservers,
# mounted at DIR/mnt; DIR/pids has a line "server|client NAME PID" for each process. Uses $GRANARY_BIN (build/release/bin).
# BENCH_NICE=-15 sets them above others' work on the machine (their scheduling groups, as kits do for rivals).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=${GRANARY_BIN:-$here/../../build/release/bin}
[ $# = 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$2"
dir=$(cd "$2" && pwd)
dev() { "$bin/granary" dev "$1" "$dir/cluster" "${@:2}"; }
list() {
	for file in "$dir"/cluster/pids/*.pid; do
		name=$(basename "$file" .pid)
		role=server
		[ "$name" != mount ] || role=client
		echo "$role $name $(cat "$file")"
		[ -z "${BENCH_NICE:-}" ] || echo "$BENCH_NICE" > "/proc/$(cat "$file")/autogroup" || true
	done > "$dir/pids"
}
case $1 in
up)
	dev up --masters 3 --chunkservers 3 --mount "$dir/mnt"
	list
	;;
remount)
	dev restart mount
	list
	;;
kill-one) dev kill chunkserver 2 ;;
freeze-one) dev stop chunkserver 3 ;;
rss)
	while read -r role name pid; do
		[ ! -r "/proc/$pid/status" ] || echo "$role $name $(awk '/^VmRSS/{print $2}' "/proc/$pid/status")"
	done < "$dir/pids"
	;;
down)
	dev down
	: > "$dir/pids"
	;;
*) exit 2 ;;
esac
