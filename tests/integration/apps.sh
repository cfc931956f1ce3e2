#!/bin/bash
# Programs that people run, on the mount: git, SQLite with several writers, a compiler with make.
# test: timeout=240
. "$(dirname "$0")/../lib/cluster.sh"
up --mount "$mnt"

step "git: clone, fsck, commit, checkout, gc"
git clone -q --no-hardlinks "$GRANARY_ROOT" "$TEST_DIR/source" 2> /dev/null || {
	mkdir "$TEST_DIR/source" # an export without its history
	(cd "$GRANARY_ROOT" && tar -cf - --exclude=build --exclude=.git .) | tar -C "$TEST_DIR/source" -xf -
	git -C "$TEST_DIR/source" init -q
	git -C "$TEST_DIR/source" add -A
	git -C "$TEST_DIR/source" -c user.name=t -c user.email=t@t commit -qm all
}
git clone -q --no-hardlinks "$TEST_DIR/source" "$mnt/clone"
git -C "$mnt/clone" fsck --full --strict > "$TEST_DIR/fsck" 2>&1 || fail "fsck: $(cat "$TEST_DIR/fsck")"
equal "$(git -C "$mnt/clone" status --porcelain)" ""
for i in 1 2 3 4 5; do
	echo $i > "$mnt/clone/file-$i"
	git -C "$mnt/clone" add "file-$i"
	git -C "$mnt/clone" -c user.name=t -c user.email=t@t commit -qm "commit $i"
done
git -C "$mnt/clone" gc -q
git -C "$mnt/clone" checkout -q HEAD~3
[ ! -e "$mnt/clone/file-4" ] || fail "checkout left file-4"
git -C "$mnt/clone" fsck --full --strict > "$TEST_DIR/fsck" 2>&1 || fail "fsck after gc: $(cat "$TEST_DIR/fsck")"

step "sqlite: four writers at once, then check"
database=$mnt/test.db
sqlite3 "$database" "create table t(writer int, number int, data blob)"
cat > "$TEST_DIR/insert.sh" <<'X'
for n in $(seq 50); do
	echo ".timeout 60000"
	echo "insert into t values($1, $n, randomblob(500));"
done | sqlite3 -bail "$2"
X
for writer in 1 2 3 4; do bash "$TEST_DIR/insert.sh" $writer "$database" & writers[writer]=$!; done
for writer in 1 2 3 4; do wait ${writers[writer]} || fail "sqlite writer $writer failed"; done
equal "$(sqlite3 "$database" "select count(*), count(distinct writer * 1000 + number) from t")" "200|200"
equal "$(sqlite3 "$database" "pragma integrity_check")" ok
sqlite3 "$database" "begin; delete from t where writer = 1; rollback"
equal "$(sqlite3 "$database" "select count(*) from t")" 200
sqlite3 "$database" "vacuum"
equal "$(sqlite3 "$database" "pragma integrity_check")" ok

step "make: a library and a program of fifty files, in parallel; nothing to do afterwards"
mkdir "$mnt/build"
for i in $(seq 50); do echo "int f$i(int x) { return x + $i; }" > "$mnt/build/f$i.c"; done
{
	for i in $(seq 50); do echo "int f$i(int x);"; done
	echo "#include <stdio.h>"
	echo "int main(void) { int x = 0;"
	for i in $(seq 50); do echo "x = f$i(x);"; done
	echo 'printf("%d\n", x); return 0; }'
} > "$mnt/build/main.c"
cat > "$mnt/build/Makefile" <<'X'
objects := $(patsubst %.c,%.o,$(wildcard f*.c))
program: main.o libf.a
	gcc -o $@ main.o libf.a
libf.a: $(objects)
	rm -f $@ && ar rcs $@ $(objects)
%.o: %.c
	gcc -c -o $@ $<
X
make -s -j4 -C "$mnt/build" program
equal "$("$mnt/build/program")" 1275
make -q -C "$mnt/build" program || fail "make wants to build again: times are wrong"

step "a pipeline of shell tools"
seq 200000 | sort -R --random-source=<(yes) > "$mnt/shuffled"
sort -n -T "$mnt" "$mnt/shuffled" | tee "$mnt/sorted" | tail -1 | grep -qx 200000 || fail "sort"
cmp <(seq 200000) "$mnt/sorted" || fail "sorted differs"
sed -i 's/^1$/one/' "$mnt/sorted"
equal "$(head -1 "$mnt/sorted")" one
equal "$(wc -l < "$mnt/sorted")" 200000
echo done
