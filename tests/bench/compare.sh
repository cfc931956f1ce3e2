#!/bin/bash
# compare.sh KIT RESULTS [--rounds N] [--full] [--rival NAME] [--work DIR]: the workloads of a benchmark kit on Granary and on a
# rival in turn, then a table of ratios (ratio.py). KIT is a directory with fsbench.sh (see README.md) and peers/NAME.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
kit=$(cd "$1" && pwd)
mkdir -p "$2"
results=$(cd "$2" && pwd)
shift 2
rounds=3 mode=--quick rival=moosefs work=
while [ $# -gt 0 ]; do
	case $1 in
	--rounds) rounds=$2; shift ;;
	--full) mode= ;;
	--rival) rival=$2; shift ;;
	--work) work=$2; shift ;;
	*) usage ;;
	esac
	shift
done
[ -x "$kit/fsbench.sh" ] || { echo "compare.sh: no fsbench.sh in $kit" >&2; exit 1; }
[ -x "$kit/peers/$rival.sh" ] || { echo "compare.sh: no peers/$rival.sh in $kit" >&2; exit 1; }
[ -n "$work" ] || { work=$(mktemp -d /dev/shm/granary-compare-XXXXXX); own_work=1; }
clusters=$(mktemp -d "${TMPDIR:-/var/tmp}/granary-compare-XXXXXX")

control() { # SYSTEM COMMAND
	if [ "$1" = granary ]; then "$here/ours.sh" "$2" "$clusters/$1"; else "$kit/peers/$1.sh" "$2" "$clusters/$1"; fi
}
finish() {
	status=$?
	trap - EXIT
	set +e
	control granary down
	control "$rival" down
	rm -rf "$clusters"
	[ -z "${own_work:-}" ] || rm -rf "$work"
	exit $status
}
trap finish EXIT
trap 'exit 143' TERM INT

[ -z "${BENCH_NICE:-}" ] || echo "$BENCH_NICE" > /proc/self/autogroup
for system in granary "$rival"; do
	echo "$system: up"
	control "$system" up > "$results/$system-up.log" 2>&1 || { tail "$results/$system-up.log"; exit 1; }
done
for round in $(seq "$rounds"); do
	for system in granary "$rival"; do
		remount="$kit/peers/$system.sh remount $clusters/$system"
		[ "$system" != granary ] || remount="$here/ours.sh remount $clusters/$system"
		echo "round $round of $rounds: $system (load $(cut -d' ' -f1 /proc/loadavg))"
		"$kit/fsbench.sh" "$clusters/$system/mnt" $mode --name "$system" --workdir "$work" --pids "$clusters/$system/pids" \
			--remount "$remount" --out "$results/$system-$round.json" > "$results/$system-$round.log" 2>&1 || {
			tail "$results/$system-$round.log"
			exit 1
		}
		grep -E "WRONG DATA|mdbench had errors" "$results/$system-$round.log" || true
	done
done
control granary rss > "$results/granary-rss"
control "$rival" rss > "$results/$rival-rss"
"$here/ratio.py" "$results" granary "$rival"
