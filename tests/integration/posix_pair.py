#!/usr/bin/env python3
"""posix_pair.py [-k WORD] DIR DIR2: what two mounts of one file system promise each other.

DIR2 is the same folder seen through the other mount. As posix.py otherwise.
"""
# test: timeout=300
import errno
import fcntl
import os
import random
import sqlite3
import stat
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from posix_kit import (  # noqa: E402
    KIB, MIB, child, drop_caches, equal, get, joined, lock_range, locks_between, main, pattern, put, raises,
    test_pair, until)


# ---------------------------------------------------------------- two mounts


@test_pair
def pair_names_at_once(a, b):
    for i in range(30):
        assert not os.path.exists(f"{b}/{i}")  # the other mount now knows that it is not there
        put(f"{a}/{i}", b"%d" % i)
        equal(get(f"{b}/{i}"), b"%d" % i)
        os.rename(f"{b}/{i}", f"{b}/{i}-moved")
        assert not os.path.exists(f"{a}/{i}"), "an old name"
        equal(get(f"{a}/{i}-moved"), b"%d" % i)
        os.unlink(f"{a}/{i}-moved")
        raises(errno.ENOENT, os.stat, f"{b}/{i}-moved")
        os.mkdir(f"{b}/{i}")
        equal(os.listdir(f"{a}/{i}"), [])
        os.rmdir(f"{a}/{i}")
        raises(errno.ENOENT, os.listdir, f"{b}/{i}")


@test_pair
def pair_close_to_open(a, b):
    for size in (10, 5000, 5000, 300 * KIB, 100, 2 * MIB, 0, 7):
        content = pattern(size, random.randrange(1 << 30))
        put(f"{a}/f", content)
        equal(os.stat(f"{b}/f").st_size, size, "size seen by the other mount")
        assert get(f"{b}/f") == content, f"{size} bytes read by the other mount"
        with open(f"{b}/f", "ab") as file:
            file.write(b"tail")
        equal(os.stat(f"{a}/f").st_size, size + 4)
        assert get(f"{a}/f") == content + b"tail"
    # Same size, other content.
    for i in range(10):
        put(f"{a}/f", b"%05d" % i)
        equal(get(f"{b}/f"), b"%05d" % i)


@test_pair
def pair_attributes_at_once(a, b):
    put(f"{a}/f", b"x")
    for mode in (0o600, 0o644, 0o755):
        os.chmod(f"{a}/f", mode)
        equal(stat.S_IMODE(os.stat(f"{b}/f").st_mode), mode)
    os.utime(f"{a}/f", ns=(5, 6_000_000_007))
    equal(os.stat(f"{b}/f").st_mtime_ns, 6_000_000_007)
    os.link(f"{b}/f", f"{b}/g")
    equal(os.stat(f"{a}/f").st_nlink, 2)
    equal(os.stat(f"{a}/f").st_ino, os.stat(f"{b}/g").st_ino)
    os.setxattr(f"{a}/f", "user.x", b"1")
    equal(os.getxattr(f"{b}/f", "user.x"), b"1")
    os.truncate(f"{b}/f", 1000)
    equal(os.stat(f"{a}/f").st_size, 1000)
    equal(os.stat(f"{a}/g").st_size, 1000)
    os.truncate(f"{a}/f", 3)
    equal(os.stat(f"{b}/f").st_size, 3)


@test_pair
def pair_open_file_grows(a, b):
    put(f"{a}/log", b"one\n")
    reader = os.open(f"{b}/log", os.O_RDONLY)
    equal(os.read(reader, 100), b"one\n")
    for i in range(5):
        line = b"line %d " % i + b"x" * 3000 + b"\n"
        with open(f"{a}/log", "ab") as file:
            file.write(line)
        got = b""
        end = time.monotonic() + 5
        while len(got) < len(line) and time.monotonic() < end:
            got += os.read(reader, 10_000)
        equal(got, line)
        equal(os.fstat(reader).st_size, os.stat(f"{a}/log").st_size)
    os.close(reader)


@test_pair
def pair_open_writer_is_seen(a, b):
    """A file that stays open for writing: what its pages gave out is seen by others after a while."""
    writer = os.open(f"{a}/log", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(writer, b"line\n")
    os.sync()  # the kernel gives out what it has; it does not ask the file system for more
    until(lambda: get(f"{b}/log") == b"line\n", 20)
    os.close(writer)


@test_pair
def pair_open_while_replaced_and_unlinked(a, b):
    for size in (1000, 2 * MIB):
        content = pattern(size)
        put(f"{a}/f", content)
        reader = os.open(f"{b}/f", os.O_RDONLY)
        put(f"{a}/new", b"new")
        os.rename(f"{a}/new", f"{a}/f")
        equal(get(f"{b}/f"), b"new")
        assert os.pread(reader, size, 0) == content, "a replaced file that is open"
        os.close(reader)
        reader = os.open(f"{b}/f", os.O_RDONLY)
        os.unlink(f"{a}/f")
        raises(errno.ENOENT, os.stat, f"{b}/f")
        drop_caches()
        equal(os.pread(reader, 10, 0), b"new")
        os.close(reader)


@test_pair
def pair_locks(a, b):
    locks_between(f"{a}/l", f"{b}/l")
    locks_between(f"{b}/m", f"{a}/m")


def count_up(path, times):
    """Reads and writes a number under a lock: lost updates show. The file grows and shrinks with it."""
    file = os.open(path, os.O_RDWR)
    for _ in range(times):
        lock_range(file, fcntl.F_WRLCK, 0, 1, wait=True)
        number = int(os.pread(file, 20, 0))
        os.pwrite(file, b"%020d" % (number + 1), 0)
        os.pwrite(file, b"%020d" % (number + 1), 5000 * (number + 1))
        lock_range(file, fcntl.F_UNLCK, 0, 1)
    os.close(file)


@test_pair
def pair_counter_under_lock(a, b):
    put(f"{a}/n", b"%020d" % 0)
    pids = [child(count_up, f"{path}/n", 25) for path in (a, b, a, b)]
    for pid in pids:
        joined(pid)
    equal(int(get(f"{a}/n")[:20]), 100)
    for i in range(1, 101):
        equal(int(get(f"{b}/n")[5000 * i:5000 * i + 20]), i)


@test_pair
def pair_appends_under_flock(a, b):
    put(f"{a}/log", b"")

    def writer(path, me):
        for i in range(25):
            with open(f"{path}/log", "ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(b"%d:%04d\n" % (me, i))
    for pid in [child(writer, path, i) for i, path in enumerate((a, b, a, b))]:
        joined(pid)
    lines = get(f"{a}/log").splitlines()
    equal(len(lines), 100)
    equal(sorted(lines), sorted(b"%d:%04d" % (me, i) for me in range(4) for i in range(25)))


@test_pair
def pair_sqlite(a, b):
    base = sqlite3.connect(f"{a}/db")
    base.execute("create table t(who, i, x)")
    base.commit()
    base.close()

    def writer(path, who):
        mine = sqlite3.connect(f"{path}/db", timeout=50)
        for i in range(15):
            with mine:
                mine.execute("insert into t values(?, ?, ?)", (who, i, pattern(2000)))
        mine.close()
    for pid in [child(writer, path, i) for i, path in enumerate((a, b))]:
        joined(pid)
    for path in (a, b):
        base = sqlite3.connect(f"{path}/db")
        equal(base.execute("pragma integrity_check").fetchone(), ("ok",))
        equal(base.execute("select count(*) from t").fetchone(), (30,))
        base.close()


@test_pair
def pair_one_winner(a, b):
    for turn in range(10):
        def attempt(path, me, turn=turn):
            try:
                os.close(os.open(f"{path}/{turn}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            put(f"{path}/{turn}.won.{me}", b"")
        for pid in [child(attempt, path, i) for i, path in enumerate((a, b))]:
            joined(pid)
        equal(len([n for n in os.listdir(a) if n.startswith(f"{turn}.won")]), 1, "winners")


@test_pair
def pair_busy_in_one_directory(a, b):
    """Both mounts change names in one directory that both have cached: recalls must not wait for each other."""
    def worker(path, me):
        for i in range(40):
            put(f"{path}/{me}-{i}", b"x")
            os.listdir(path)
            os.rename(f"{path}/{me}-{i}", f"{path}/{me}-{i}-b")
            os.stat(f"{path}/{me}-{i}-b")
            os.unlink(f"{path}/{me}-{i}-b")
    start = time.monotonic()
    for pid in [child(worker, path, i) for i, path in enumerate((a, b, a, b))]:
        joined(pid)
    equal(os.listdir(a), [])
    took = time.monotonic() - start
    assert took < 30, f"{took:.1f} s for 480 changes: recalls wait for leases to run out"


def tumble(root, seed, steps):
    """Random changes of few names, which others change too: only the errors that this must give, and none takes long."""
    dice = random.Random(seed)
    folders = ["", "x/", "y/", "x/z/"]
    fine = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EPERM)

    def name():
        return f"{root}/{dice.choice(folders)}{dice.choice('abcdez')}"
    actions = [
        lambda: put(name(), b"%d" % seed * dice.randrange(2000)), lambda: os.unlink(name()), lambda: get(name()),
        lambda: os.rename(name(), name()), lambda: os.link(name(), name()), lambda: os.mkdir(name()),
        lambda: os.rmdir(name()), lambda: os.listdir(f"{root}/{dice.choice(folders)}"), lambda: os.stat(name()),
        lambda: os.truncate(name(), dice.randrange(5000)), lambda: os.chmod(name(), 0o755),
        lambda: [os.stat(f"{root}/x/{n}") for n in os.listdir(f"{root}/x")],
    ]
    for step in range(steps):
        start = time.monotonic()
        action = dice.randrange(len(actions))
        try:
            actions[action]()
        except OSError as error:
            assert error.errno in fine, f"step {step}, action {action}: {error}"
        took = time.monotonic() - start
        assert took < 5, f"step {step}, action {action} took {took:.1f} s"


@test_pair
def pair_tumble(a, b):
    for folder in ("x", "y", "x/z"):
        os.mkdir(f"{a}/{folder}")
    for pid in [child(tumble, path, seed, 250) for seed, path in enumerate((a, b, a, b))]:
        joined(pid)

    def seen(root):
        found = {}
        for path, folders, files in os.walk(root):
            for name in folders + files:
                full = os.path.join(path, name)
                info = os.lstat(full)
                found[os.path.relpath(full, root)] = (info.st_mode, info.st_ino, info.st_nlink if name in files else 0,
                                                      info.st_size if name in files else 0, info.st_mtime_ns,
                                                      get(full) if name in files else b"")
        return found
    first, second = seen(a), seen(b)
    for name in sorted(first.keys() | second.keys()):
        equal(first.get(name), second.get(name), f"{name} as the two mounts show it")


@test_pair
def pair_directory_listing_follows(a, b):
    for i in range(50):
        put(f"{a}/{i}", b"x" * i)
        equal(len(os.listdir(b)), i + 1)
    with os.scandir(b) as entries:
        for entry in entries:
            equal(entry.stat().st_size, int(entry.name))
    for i in range(50):
        os.unlink(f"{b}/{i}")
        equal(len(os.listdir(a)), 49 - i)


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(__file__), __doc__))
