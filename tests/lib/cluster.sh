# For integration tests in bash: source it. A cluster under $TEST_DIR/cluster that is taken down at the end, however that comes;
# assertions that say what they expected; waiting for conditions with a deadline.
# By hand: tests/integration/cli.sh uses build/dev/bin and a folder of its own under /tmp.
set -eu
GRANARY_ROOT=${GRANARY_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
GRANARY_BIN=${GRANARY_BIN:-$GRANARY_ROOT/build/dev/bin}
TEST_DIR=${TEST_DIR:-$(mktemp -d /tmp/granary-test-XXXXXX)}
PATH=$GRANARY_BIN:$PATH
cluster=$TEST_DIR/cluster
mnt=$cluster/mnt
unset GRANARY_CLUSTER
export GRANARY_CONFIG=$cluster/client.conf

fail() {
	local frame=1
	while [[ ${BASH_SOURCE[frame]} == */cluster.sh ]]; do frame=$((frame + 1)); done
	echo "FAILED at ${BASH_SOURCE[frame]##*/}:${BASH_LINENO[frame - 1]}: $*"
	exit 1
}
skip() {
	echo "$*"
	exit 77
}
step() { echo "== $* (at $SECONDS s)"; }
up() { granary dev up "$cluster" "$@"; }
# A second list of commands for a test's own clean-up.
at_end=:
finish() {
	status=$?
	set +e
	trap - EXIT TERM INT
	$at_end
	if [ $status != 0 ] && [ $status != 77 ] && [ -d "$cluster" ]; then
		granary dev status "$cluster"
		tail -n ${LOG_LINES:-30} "$cluster"/log/*.log
	fi
	[ ! -d "$cluster" ] || granary dev down "$cluster"
	exit $status
}
trap finish EXIT
trap 'exit 143' TERM INT

# expect STATUS COMMAND...: the exit status is this one. Standard output goes to $TEST_DIR/out, error to $TEST_DIR/err.
expect() {
	local wanted=$1 got=0
	shift
	"$@" > "$TEST_DIR/out" 2> "$TEST_DIR/err" || got=$?
	[ $got = "$wanted" ] || {
		cat "$TEST_DIR/out" "$TEST_DIR/err" | head -c 2000 | cat -v
		fail "\`$*\` exited with $got, not $wanted"
	}
}
# The last expect printed exactly this on standard output / a line with this on standard error.
printed() { [ "$(cat "$TEST_DIR/out")" = "$1" ] || fail "printed '$(cat "$TEST_DIR/out")', not '$1'"; }
complained() { grep -q -- "$1" "$TEST_DIR/err" || fail "said '$(cat "$TEST_DIR/err")', not '$1'"; }
equal() { [ "$1" = "$2" ] || fail "'$1' is not '$2'"; }
same_tree() { diff -r --no-dereference "$1" "$2" > "$TEST_DIR/diff" || { head "$TEST_DIR/diff"; fail "$1 and $2 differ"; }; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
	local what=$2 end=$((SECONDS + $1))
	shift 2
	until "$@" > /dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "waited in vain: $what"
		sleep 0.05
	done
}
# json EXPRESSION: evaluates Python on `x`, the JSON on standard input.
json() { python3 -c 'import json,sys; x = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }
# A file of so many random bytes, the same for the same seed.
random_file() { python3 -c 'import random,sys; sys.stdout.buffer.write(random.Random(sys.argv[2]).randbytes(int(sys.argv[1])))' "$2" "${3:-1}" > "$1"; }
