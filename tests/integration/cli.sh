#!/bin/bash
# Every command of granary: what it does, what it prints, how it exits.
# test: timeout=180
. "$(dirname "$0")/../lib/cluster.sh"
cd "$TEST_DIR"

step "without a cluster"
expect 0 granary --help
expect 0 granary --version
expect 2 granary
expect 2 granary nonsense
complained "granary: nonsense: no such command"
expect 2 granary admin nonsense
expect 2 granary put
for command in put get cat ls stat rm mv cp mkdir rmdir ln readlink chmod chown touch truncate du df tree find explain bench \
	"xattr get" "xattr set" "xattr list" "xattr rm" "admin status" "admin servers" "admin what-if" "admin raft" "dev up" "dev down" "dev status" \
	"dev kill" "dev stop" "dev cont" "dev restart" "dev logs"; do
	expect 0 granary $command --help
	grep -q "^usage: granary $command " out || fail "$command --help prints no usage"
	expect 2 granary $command --no-such-option
done
for program in granary-master granary-chunkserver "granary-mount $TEST_DIR"; do
	expect 2 $program --log-level loud
	complained "invalid value 'loud' for log-level: it is one of debug|info|warn|error"
	expect 2 $program --log-format xml
	complained "invalid value 'xml' for log-format: it is one of text|json"
done
expect 2 granary-chunkserver --data "$TEST_DIR/none" --location z/r --rack r
complained "not together with --zone or --rack"
expect 2 granary-chunkserver --data "$TEST_DIR/none" --zone z/r
expect 2 granary-chunkserver --data "$TEST_DIR/none" --location z//r
complained "z//r is no location"
expect 4 env -u GRANARY_CONFIG HOME=/nonexistent granary ls /
expect 4 granary --cluster 127.0.0.1:1 --timeout 300ms ls /
expect 4 granary --cluster 127.0.0.1:1 --timeout 300ms admin status
expect 2 granary bench nonsense
expect 2 granary bench encode --profile 1+1
expect 2 granary bench encode --profile 4+2x
expect 2 granary bench encode --compression zip
expect 0 granary bench encode --profile 2+1 --compression fast --json
[ "$(json '(x["profile"], x["compression"], x["mib_s"] > 0, 40 < x["stored_share_pct"] < 70)' < out)" = "('2+1', 'fast', True, True)" ] ||
	fail "bench encode: $(cat out)"

step "manual pages"
"$GRANARY_ROOT/tools/man/make" "$GRANARY_BIN" "$TEST_DIR/man"
for page in man1/granary.1 man8/granary-master.8 man8/granary-chunkserver.8 man8/granary-mount.8; do
	for section in NAME SYNOPSIS "EXIT STATUS"; do
		grep -q "^.SH $section" "man/$page" || fail "$page has no section $section"
	done
	grep -q '^\.TP' "man/$page" || fail "$page explains no option"
done

step "dev up"
up
expect 0 granary dev status "$cluster"
equal "$(grep -c running out)" 7
before=$(cat "$cluster"/pids/*.pid)
up
equal "$(cat "$cluster"/pids/*.pid)" "$before"
expect 1 granary dev kill "$cluster" chunkserver 9
expect 1 granary dev down "$TEST_DIR/nowhere"

step "a command ends its session when it ends"
sessions() { granary admin status --json | json 'x["sessions"]'; }
for i in 1 2 3; do
	expect 0 granary admin status
	expect 0 granary ls /
done
equal "$(sessions)" 0

step "put, get, cat"
random_file small 1000
random_file large 3000000
: > empty
for name in small large empty; do
	expect 0 granary put $name /$name
	expect 0 granary get /$name got
	cmp $name got || fail "$name came back different"
	granary cat /$name | cmp - $name || fail "cat $name"
	granary get /$name - | cmp - $name || fail "get $name -"
done
granary put - /piped < large
granary cat /piped | cmp - large || fail "put -"
expect 0 granary get --range 10-19 /large part
cmp part <(tail -c +11 large | head -c 10) || fail "range 10-19"
expect 0 granary get --range 2999990- /large part
cmp part <(tail -c 10 large) || fail "range to the end"
expect 0 granary get --range 2999990-4000000 /large part
cmp part <(tail -c 10 large) || fail "range over the end"
expect 2 granary get --range 9-3 /large part
expect 3 granary get /absent got2
complained "granary: get /absent: "
[ ! -e got2 ] || fail "a failed get left a file"
[ -z "$(ls -A | grep granary-get)" ] || fail "a temporary file was left"
expect 2 granary put small relative
complained 'begins with "/"'
expect 1 granary put absent-locally /x
expect 3 granary stat /x
expect 3 granary put small /absent/x
expect 0 granary put large /small
granary cat /small | cmp - large || fail "put over a blob"
expect 0 granary put small /small
granary cat /small | cmp - small || fail "put over a file"

mkdir there
expect 0 granary get /small there
cmp small there/small || fail "get into a directory"
echo old > there/old
chmod 444 there/old
expect 0 granary get /large there/old
cmp large there/old || fail "get over a file"
mkfifo pipe
cat pipe > piped & reader=$!
expect 0 granary get /large pipe
wait $reader
cmp large piped || fail "get into a pipe"
[ -p pipe ] || fail "get has replaced a pipe"
expect 2 granary admin backup pipe
ln -s /proc/self/fd/1 stdout
{ echo before; granary get /small stdout; } > output || fail "get to standard output by its name"
{ echo before; cat small; } | cmp - output || fail "get to standard output by its name"
[ -L stdout ] || fail "get has replaced the name of standard output"
expect 1 granary get /large there/absent/x
expect 1 granary get / there/x

step "an interrupted get leaves nothing behind"
truncate -s 300M zeros
granary put zeros /zeros
granary get /zeros there/interrupted 2> err & download=$!
descriptors() { ls -l /proc/$download/fd | grep -c "$TEST_DIR/there/"; }
wait_for 10 "the download to begin" descriptors
kill $download
wait $download 2> /dev/null && fail "the download went on" || true
equal "$(ls -A there)" $'old\nsmall'
expect 0 granary rm /zeros

step "put by id, conditions"
id=$(granary put --id small)
[[ $id =~ ^[0-9a-f]{16}$ ]] || fail "no id: $id"
granary get $id - | cmp - small || fail "get by id"
id_large=$(granary put --id - < large)
granary cat $id_large | cmp - large || fail "cat by id"
expect 0 granary stat --json $id
equal "$(json 'x["size"]' < out)" 1000
expect 0 granary rm $id
expect 3 granary get $id -
expect 3 granary get 0123456789abcdef -
expect 1 granary put --if-absent small /small
complained "exists"
expect 0 granary put --if-absent small /fresh
tag=$(granary stat --json /fresh | json 'x["tag"]')
expect 0 granary put --if-match "$tag" large /fresh
expect 1 granary put --if-match "$tag" small /fresh
granary cat /fresh | cmp - large || fail "if-match replaced it"

step "directories"
expect 0 granary mkdir /d
expect 1 granary mkdir /d
expect 0 granary mkdir -p /d/e/f /d/e/f
expect 3 granary mkdir /no/such
expect 0 granary put small /d
expect 0 granary stat /d/small
expect 0 granary ls /d
printed $'e\nsmall'
expect 0 granary ls --json /d
equal "$(json '[(e["path"], e["type"], e["nlink"]) for e in x]' < out)" "[('/d/e', 'directory', 3), ('/d/small', 'file', 1)]"
expect 0 granary ls -lh /d
grep -q -- '-rw-r--r-- .* 1000 .* small$' out || fail "ls -l: $(cat out)"
expect 0 granary ls -R /d
printed $'/d:\ne\nsmall\n\n/d/e:\nf\n\n/d/e/f:'
expect 1 granary rmdir /d
expect 1 granary rm /d
expect 3 granary rm /absent
expect 0 granary rm -f /absent
expect 0 granary rmdir /d/e/f
expect 0 granary rm -r /d
expect 3 granary ls /d

step "trees"
mkdir -p tree/sub/deep tree/none
for i in $(seq 40); do random_file tree/sub/f$i $((i * 3000)) $i; done
random_file tree/sub/deep/big 1500000
ln -s sub/f1 tree/link
chmod 640 tree/sub/f7
expect 0 granary put -r tree /tree
expect 0 granary put -r tree /tree
expect 0 granary stat /tree/tree/sub/f1
expect 0 granary rm -r /tree/tree
expect 0 granary get -r /tree back
same_tree tree back
equal "$(stat -c %a back/sub/f7)" 640
expect 0 granary cp -r /tree /copy
expect 0 granary get -r /copy back2
same_tree tree back2
expect 0 granary du -s /tree
equal "$(cut -f1 out)" $((3000 * 820 + 1500000 + 6))
expect 0 granary find /tree -name 'f1?' -type f -size +40k
equal "$(wc -l < out)" 6
expect 0 granary find /tree -type d
printed $'/tree\n/tree/none\n/tree/sub\n/tree/sub/deep'
expect 0 granary find /tree -type f -mtime -1h -name big
printed /tree/sub/deep/big
expect 2 granary find /tree -size x
expect 0 granary tree /tree
tail -1 out | grep -q "3 directories, 42 files" || fail "tree: $(tail -1 out)"

step "names"
expect 0 granary mv /copy/sub/f1 /moved
granary cat /moved | cmp - tree/sub/f1 || fail "mv"
expect 3 granary cat /copy/sub/f1
expect 1 granary mv -n /moved /small
expect 0 granary mv --exchange /moved /fresh
granary cat /fresh | cmp - tree/sub/f1 || fail "mv --exchange"
expect 0 granary mv /moved /fresh /copy
expect 0 granary stat /copy/fresh
expect 1 granary mv /copy /copy/sub
expect 0 granary cp /small /copied
granary cat /copied | cmp - small || fail "cp"
expect 0 granary cp /large /small /copy
granary cat /copy/large | cmp - large || fail "cp into a directory"
expect 0 granary ln /small /hard
equal "$(granary stat --json /hard | json 'x["nlink"]')" 2
expect 0 granary rm /small
granary cat /hard | cmp - small || fail "the other name"
expect 0 granary ln -s /hard /soft
expect 0 granary readlink /soft
printed /hard
granary cat /soft | cmp - small || fail "cat through a link"
expect 1 granary ln -s x /soft

step "attributes"
expect 0 granary chmod 600 /hard
expect 0 granary chmod g+r,o=x /hard
equal "$(granary stat --json /hard | json 'x["mode"]')" 0641
expect 0 granary chown 12:34 /hard
equal "$(granary stat --json /hard | json '(x["uid"], x["gid"])')" "(12, 34)"
expect 0 granary touch /hard /touched
equal "$(granary stat --json /touched | json 'x["size"]')" 0
expect 0 granary truncate -s 500 /hard
granary cat /hard | cmp - <(head -c 500 small) || fail "truncate"
expect 0 granary truncate -s 1M /hard
equal "$(granary stat --json /hard | json 'x["size"]')" 1048576
granary cat /hard | cmp - <(head -c 500 small; head -c $((1048576 - 500)) /dev/zero) || fail "truncate to more"
expect 0 granary xattr set /hard user.colour "light blue"
expect 0 granary xattr get /hard user.colour
printed "light blue"
expect 0 granary xattr list /hard
printed user.colour
expect 0 granary find / -xattr "user.colour=light blue"
printed /hard
expect 0 granary xattr rm /hard user.colour
expect 1 granary xattr get /hard user.colour
complained "no such attribute"

step "administration"
expect 0 granary df --json
[ "$(json 'x["bytes_total"] > x["bytes_free"] > 0' < out)" = True ] || fail "df: $(cat out)"
expect 0 granary df -h
expect 0 granary admin status
grep -q "all data is safe" out || fail "status: $(cat out)"
expect 0 granary admin status --json
equal "$(json '(x["safe"], len(x["members"]), sum(s["up"] for s in x["servers"]))' < out)" "(True, 3, 4)"
expect 0 granary admin servers --json
equal "$(json 'len({s["host"] for s in x["servers"]})' < out)" 4
expect 0 granary admin servers
expect 0 granary admin raft status
grep -q leader out || fail "raft status: $(cat out)"
expect 2 granary admin raft nonsense

step "bench, no faster than asked for"
expect 0 granary bench put --size 100 --count 21 --rate 50 --json
[ "$(json '(x["name"], x["count"], 0.4 <= x["seconds"] < 5)' < out)" = "('put', 21, True)" ] || fail "bench: $(cat out)"

step "dev: kill, stop, cont, restart, logs, down"
expect 0 granary dev kill "$cluster" chunkserver 4
expect 1 granary dev status "$cluster"
grep -q "chunkserver-4 *down" out || fail "status after kill: $(cat out)"
expect 1 granary dev kill "$cluster" chunkserver 4
expect 0 granary dev stop "$cluster" chunkserver 3
expect 1 granary dev status "$cluster"
grep -q "chunkserver-3 *frozen" out || fail "status after stop: $(cat out)"
expect 0 granary dev cont "$cluster" chunkserver 3
up --racks 2 # who is started now is in one: it registers with it
in_rack() { granary admin servers --json | json 'sorted(s["location"] for s in x["servers"])' | grep -qF "$1"; }
wait_for 10 "the new place of a chunkserver" in_rack "['', '', '', '2']"
expect 0 granary admin servers
grep -q "up .* 2\$" out || fail "servers: $(cat out)"
expect 0 granary dev status "$cluster"
expect 0 granary dev restart "$cluster" master 1
expect 0 granary dev status "$cluster"
expect 0 granary dev logs "$cluster" master-1
[ -s out ] || fail "an empty log"
expect 1 granary dev logs "$cluster" nobody
expect 0 granary dev down "$cluster"
expect 1 granary dev status "$cluster"
expect 4 granary --timeout 500ms ls /
up
wait_for 10 "the racks of all" in_rack "['1', '1', '2', '2']"
granary cat /large | cmp - large || fail "after down and up"
echo done
