#!/usr/bin/env python3
"""posix.py [-k WORD] DIR: what POSIX promises of a file system about data, asked of any directory.

Without arguments a cluster is brought up in $TEST_DIR and mounted. Each test has a folder of its own. Exits 1 when a test
failed. Python's standard library only; as root it tests permissions, devices and owners, too.
See also posix_names.py, posix_pair.py.
"""
# test: timeout=300
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import signal
import sqlite3
import stat
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from posix_kit import (  # noqa: E402
    KIB, MIB, Skip, Told, child, drop_caches, equal, get, joined, libc, locks_between, main, pattern, put,
    raises, test)


# ---------------------------------------------------------------- files


@test
def create_modes(d):
    old = os.umask(0o027)
    try:
        os.close(os.open(f"{d}/a", os.O_CREAT | os.O_WRONLY, 0o777))
        os.mkdir(f"{d}/b", 0o777)
    finally:
        os.umask(old)
    equal(os.stat(f"{d}/a").st_mode, stat.S_IFREG | 0o750)
    equal(os.stat(f"{d}/b").st_mode, stat.S_IFDIR | 0o750)
    equal(os.stat(f"{d}/a").st_size, 0)
    equal(os.stat(f"{d}/a").st_uid, os.geteuid())


@test
def create_exclusive(d):
    os.close(os.open(f"{d}/a", os.O_CREAT | os.O_EXCL, 0o600))
    raises(errno.EEXIST, os.open, f"{d}/a", os.O_CREAT | os.O_EXCL, 0o600)
    os.symlink("nowhere", f"{d}/link")
    raises(errno.EEXIST, os.open, f"{d}/link", os.O_CREAT | os.O_EXCL, 0o600)
    os.close(os.open(f"{d}/a", os.O_CREAT | os.O_RDWR, 0o600))
    raises(errno.ENOENT, os.open, f"{d}/missing", os.O_RDWR)
    raises(errno.ENOENT, os.open, f"{d}/missing/a", os.O_CREAT | os.O_RDWR, 0o600)
    raises(errno.ENOTDIR, os.open, f"{d}/a/b", os.O_CREAT | os.O_RDWR, 0o600)
    raises(errno.EISDIR, os.open, d, os.O_WRONLY)
    raises(errno.ENOTDIR, os.open, f"{d}/a", os.O_DIRECTORY)


@test
def create_race_one_winner(d):
    for turn in range(5):
        pids = []
        for i in range(6):
            def attempt(name=f"{d}/{turn}", me=i):
                try:
                    descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                except FileExistsError:
                    return
                os.write(descriptor, b"%d" % me)
                put(f"{name}.won.{me}", b"")
            pids.append(child(attempt))
        for pid in pids:
            joined(pid)
        equal(len([n for n in os.listdir(d) if n.startswith(f"{turn}.won")]), 1, "winners")


@test
def sizes_around_borders(d):
    for size in (0, 1, 4095, 4096, 4097, 65536, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, MIB + 17, 5 * MIB):
        content = pattern(size, size)
        put(f"{d}/{size}", content)
        equal(os.stat(f"{d}/{size}").st_size, size)
        assert get(f"{d}/{size}") == content, f"content of {size} bytes"
    drop_caches()
    for size in (1, 4097, 256 * KIB, 256 * KIB + 1, 5 * MIB):
        assert get(f"{d}/{size}") == pattern(size, size), f"content of {size} bytes from the servers"
        assert os.stat(f"{d}/{size}").st_blocks > 0


@test
def grows_from_small_to_large(d):
    content = bytearray()
    for step in range(40):
        piece = pattern(20_000, step)
        with open(f"{d}/a", "ab") as file:
            file.write(piece)
        content += piece
        equal(os.stat(f"{d}/a").st_size, len(content))
    drop_caches()
    assert get(f"{d}/a") == content
    with open(f"{d}/a", "r+b") as file:
        file.seek(300_001)
        file.write(b"middle")
    content[300_001:300_007] = b"middle"
    drop_caches()
    assert get(f"{d}/a") == content


@test
def append(d):
    descriptor = os.open(f"{d}/a", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.write(descriptor, b"one")
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b"two")
    os.close(descriptor)
    equal(get(f"{d}/a"), b"onetwo")


@test
def append_from_many_processes(d):
    put(f"{d}/a", b"")

    def writer(me):
        descriptor = os.open(f"{d}/a", os.O_WRONLY | os.O_APPEND)
        for i in range(200):
            os.write(descriptor, b"%d:%04d\n" % (me, i))
        os.close(descriptor)
    for pid in [child(writer, i) for i in range(4)]:
        joined(pid)
    lines = get(f"{d}/a").splitlines()
    equal(len(lines), 800)
    for me in range(4):
        mine = [line for line in lines if line.startswith(b"%d:" % me)]
        equal(mine, [b"%d:%04d" % (me, i) for i in range(200)])


@test
def open_truncates(d):
    for size in (100, 400 * KIB):
        put(f"{d}/a", pattern(size))
        os.close(os.open(f"{d}/a", os.O_WRONLY | os.O_TRUNC))
        equal(os.stat(f"{d}/a").st_size, 0)
        equal(get(f"{d}/a"), b"")
        put(f"{d}/a", b"new")
        drop_caches()
        equal(get(f"{d}/a"), b"new")


@test
def truncate_and_grow_reads_zeros(d):
    for size in (10_000, 300 * KIB, 3 * MIB):
        put(f"{d}/a", b"x" * size)
        os.truncate(f"{d}/a", size // 2 + 3)
        os.truncate(f"{d}/a", size)
        expected = b"x" * (size // 2 + 3) + bytes(size - size // 2 - 3)
        assert get(f"{d}/a") == expected
        drop_caches()
        assert get(f"{d}/a") == expected
        with open(f"{d}/a", "r+b") as file:
            file.write(b"start")
            file.truncate(7)
            file.seek(5000)
            file.write(b"end")
        drop_caches()
        equal(get(f"{d}/a"), b"startxx" + bytes(4993) + b"end")
    raises(errno.EINVAL, os.truncate, f"{d}/a", -1)
    raises(errno.EISDIR, os.truncate, d, 0)


@test
def holes(d):
    with open(f"{d}/a", "wb") as file:
        file.seek(200 * MIB + 5)
        file.write(b"end")
    equal(os.stat(f"{d}/a").st_size, 200 * MIB + 8)
    assert os.stat(f"{d}/a").st_blocks * 512 < 10 * MIB, "a hole takes space"
    drop_caches()
    descriptor = os.open(f"{d}/a", os.O_RDONLY)
    equal(os.pread(descriptor, 1000, 100 * MIB), bytes(1000))
    equal(os.pread(descriptor, 1000, 200 * MIB), bytes(5) + b"end")
    equal(os.pread(descriptor, 10, 300 * MIB), b"")
    equal(os.lseek(descriptor, 0, os.SEEK_END), 200 * MIB + 8)
    raises(errno.ENXIO, os.lseek, descriptor, 300 * MIB, os.SEEK_DATA)
    os.close(descriptor)


@test
def random_writes_against_a_shadow(d):
    """What fsx does: writes, reads, cuts, grows, maps, reopens, and compares with a copy in memory."""
    dice = random.Random(7)
    shadow = bytearray()
    file = os.open(f"{d}/a", os.O_CREAT | os.O_RDWR, 0o600)
    for step in range(400):
        what = dice.choice("wwwwrrtgmosd")
        offset = dice.randrange(0, 700_000)
        size = dice.choice((1, 100, 4096, 5000, 70_000, 300_000))
        if what == "w":
            bytes_ = dice.randbytes(size)
            equal(os.pwrite(file, bytes_, offset), size)
            if len(shadow) < offset:
                shadow.extend(bytes(offset - len(shadow)))
            shadow[offset:offset + size] = bytes_
        elif what == "r":
            assert os.pread(file, size, offset) == shadow[offset:offset + size], f"step {step}: read at {offset}"
        elif what == "t" or what == "g":
            size = dice.randrange(0, 500_000) if what == "t" else min(len(shadow) + size, 1_200_000)
            os.ftruncate(file, size)
            del shadow[size:]
            shadow.extend(bytes(size - len(shadow)))
        elif what == "m" and len(shadow) > 8192:
            at = dice.randrange(0, len(shadow) - 4096)
            with mmap.mmap(file, len(shadow)) as memory:
                assert memory[at:at + 4096] == shadow[at:at + 4096], f"step {step}: mapped at {at}"
                memory[at:at + 100] = shadow[at:at + 100] = dice.randbytes(100)
        elif what == "o":
            os.close(file)
            file = os.open(f"{d}/a", os.O_RDWR)
        elif what == "s":
            os.fsync(file)
        elif what == "d" and step % 5 == 0:
            os.fsync(file)
            drop_caches()
        equal(os.fstat(file).st_size, len(shadow), f"step {step}: size after {what}")
    os.close(file)
    drop_caches()
    assert get(f"{d}/a") == shadow


@test
def direct_io(d):
    buffer = mmap.mmap(-1, MIB)
    content = pattern(MIB)
    buffer[:] = content
    try:
        file = os.open(f"{d}/a", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise Skip("no O_DIRECT here")
        raise
    equal(os.pwrite(file, buffer, 0), MIB)
    equal(os.pwrite(file, memoryview(buffer)[:4096], 2 * MIB), 4096)
    buffer[:] = bytes(MIB)
    equal(os.preadv(file, [buffer], 0), MIB)
    assert buffer[:] == content
    os.close(file)
    assert get(f"{d}/a") == content + bytes(MIB) + content[:4096]


@test
def direct_writes_side_by_side(d):
    """Threads that write to one file at the same time, past the page cache, while others read it through the cache."""
    put(f"{d}/a", bytes(4 * MIB))

    def writer(me):
        buffer = mmap.mmap(-1, 4096)
        file = os.open(f"{d}/a", os.O_RDWR | os.O_DIRECT)
        for i in range(me, 1024, 4):
            buffer[:] = struct.pack("<I", i) * 1024
            equal(os.pwrite(file, buffer, 4096 * i), 4096)
        os.close(file)
    reader = os.open(f"{d}/a", os.O_RDONLY)
    pids = [child(writer, i) for i in range(4)]
    for offset in range(0, 4 * MIB, 64 * KIB):
        os.pread(reader, 64 * KIB, offset)
    for pid in pids:
        joined(pid)
    expected = b"".join(struct.pack("<I", i) * 1024 for i in range(1024))
    assert os.pread(reader, 4 * MIB, 0) == expected, "through the cache, after the writers have closed"
    os.close(reader)
    drop_caches()
    assert get(f"{d}/a") == expected


@test
def synced_and_sized(d):
    file = os.open(f"{d}/a", os.O_CREAT | os.O_RDWR | os.O_SYNC, 0o600)
    os.write(file, b"synced")
    equal(os.fstat(file).st_size, 6)
    os.fdatasync(file)
    os.close(file)
    directory = os.open(d, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


@test
def unlinked_but_open(d):
    for size in (1000, MIB):
        content = pattern(size)
        file = os.open(f"{d}/a", os.O_CREAT | os.O_RDWR, 0o600)
        os.write(file, content)
        os.unlink(f"{d}/a")
        raises(errno.ENOENT, os.stat, f"{d}/a")
        equal(os.fstat(file).st_nlink, 0)
        assert os.pread(file, size, 0) == content
        os.pwrite(file, b"more", size)
        os.fsync(file)
        equal(os.fstat(file).st_size, size + 4)
        put(f"{d}/a", b"another")
        equal(os.pread(file, 10, size), b"more")
        os.close(file)
        equal(get(f"{d}/a"), b"another")
        os.unlink(f"{d}/a")


@test
def preallocation(d):
    file = os.open(f"{d}/a", os.O_CREAT | os.O_RDWR, 0o600)
    os.write(file, b"x" * 10_000)
    os.posix_fallocate(file, 0, 50_000)
    equal(os.fstat(file).st_size, 50_000)
    equal(os.pread(file, 100_000, 0), b"x" * 10_000 + bytes(40_000))
    punch = 0x02 | 0x01
    if libc.fallocate(file, punch, ctypes.c_long(1000), ctypes.c_long(5000)) == 0:
        equal(os.pread(file, 10_000, 0), b"x" * 1000 + bytes(5000) + b"x" * 4000)
        equal(os.fstat(file).st_size, 50_000)
    else:
        equal(ctypes.get_errno(), errno.EOPNOTSUPP)
    os.close(file)


@test
def copy_range(d):
    content = pattern(3 * MIB)
    put(f"{d}/a", content)
    with open(f"{d}/a", "rb") as source, open(f"{d}/b", "wb") as target:
        left = len(content)
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
    assert get(f"{d}/b") == content


@test
def copy_range_of_dirty_pages(d):
    """What is only in pages counts, on both sides, and pages of the target do not stay as they were."""
    shadow = {"a": bytearray(pattern(2 * MIB)), "b": bytearray(pattern(MIB)[::-1])}
    files = {}
    for name in shadow:
        put(f"{d}/{name}", bytes(shadow[name]))
        files[name] = os.open(f"{d}/{name}", os.O_RDWR)
    for turn in range(40):
        source, target = ("a", "b") if turn % 2 else ("b", "a")
        for name, at in ((source, 5000 * turn), (target, 7000 * turn + 1)):
            piece = bytes([turn + 1]) * (10_000 if turn % 3 else 300_000)
            assert os.pwrite(files[name], piece, at) == len(piece)
            shadow[name][at : at + len(piece)] = piece
        assert os.pread(files[target], 100, 0) == bytes(shadow[target][:100])
        start, to, size = (0, 0, 512 * 1024) if turn % 4 == 0 else (3333 * turn, 6001 * turn, 400_000)
        done = 0
        while done < size:
            step = os.copy_file_range(files[source], files[target], size - done, start + done, to + done)
            assert step > 0
            done += step
        shadow[target][to : to + size] = shadow[source][start : start + size]
        assert os.pread(files[target], size + 20_000, to) == bytes(shadow[target][to : to + size + 20_000])
        assert os.fstat(files[target]).st_size == len(shadow[target])
    assert os.copy_file_range(files["a"], files["b"], 1000, len(shadow["a"]), 0) == 0
    for name in shadow:
        os.fsync(files[name])
        os.close(files[name])
        assert get(f"{d}/{name}") == bytes(shadow[name])


# ---------------------------------------------------------------- memory maps


@test
def mapped_shared_and_private(d):
    put(f"{d}/a", b"a" * 10_000)
    file = os.open(f"{d}/a", os.O_RDWR)
    shared = mmap.mmap(file, 10_000)
    private = mmap.mmap(file, 10_000, flags=mmap.MAP_PRIVATE)
    private[0:3] = b"PPP"
    shared[5000:5003] = b"SSS"
    equal(os.pread(file, 3, 5000), b"SSS")
    equal(os.pread(file, 3, 0), b"aaa")
    os.pwrite(file, b"W", 9999)
    equal(shared[9999:], b"W")
    shared.flush()
    shared[1:2] = b"Z"
    shared.close()
    private.close()
    os.close(file)
    drop_caches()
    expected = bytearray(b"a" * 10_000)
    expected[5000:5003], expected[9999], expected[1] = b"SSS", ord("W"), ord("Z")
    assert get(f"{d}/a") == expected


@test
def mapped_after_close(d):
    file = os.open(f"{d}/a", os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(file, MIB)
    memory = mmap.mmap(file, MIB)
    os.close(file)
    memory[MIB - 4:] = b"last"
    memory.close()
    drop_caches()
    equal(get(f"{d}/a")[-5:], b"\0last")


@test
def executes(d):
    put(f"{d}/script", b"#!/bin/sh\necho ran\n")
    os.chmod(f"{d}/script", 0o755)
    equal(subprocess.run([f"{d}/script"], capture_output=True).stdout, b"ran\n")
    put(f"{d}/true", get("/bin/true"))
    os.chmod(f"{d}/true", 0o700)
    equal(subprocess.run([f"{d}/true"]).returncode, 0)


@test
def locks(d):
    locks_between(f"{d}/a", f"{d}/a")


@test
def lock_wait_is_interruptible(d):
    put(f"{d}/a", b"")
    file = os.open(f"{d}/a", os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    ready = Told()

    def waiter():
        def on_alarm(*_):
            raise TimeoutError
        signal.signal(signal.SIGALRM, on_alarm)
        mine = os.open(f"{d}/a", os.O_RDWR)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        ready.tell()
        try:
            fcntl.flock(mine, fcntl.LOCK_EX)
        except TimeoutError:
            return
        raise AssertionError("got a lock that another holds")
    pid = child(waiter)
    ready.wait()
    joined(pid, 5)
    os.close(file)


# ---------------------------------------------------------------- programs


@test
def sqlite_database(d):
    base = sqlite3.connect(f"{d}/db")
    base.execute("create table t(i integer primary key, x blob)")
    for i in range(30):
        with base:
            base.execute("insert into t values(?, ?)", (i, pattern(3000, i)))
    base.close()
    base = sqlite3.connect(f"{d}/db")
    equal(base.execute("pragma integrity_check").fetchone(), ("ok",))
    equal(base.execute("select count(*), sum(length(x)) from t").fetchone(), (30, 90_000))
    base.execute("pragma journal_mode=wal")
    with base:
        base.execute("delete from t where i % 2")
    equal(base.execute("select count(*) from t").fetchone(), (15,))
    base.close()


def digest(folder):
    """Of all names, modes, links and contents below a folder."""
    total = hashlib.sha256()
    for path, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files + folders):
            full = os.path.join(path, name)
            info = os.lstat(full)
            total.update(f"{os.path.relpath(full, folder)} {info.st_mode:o} {int(info.st_mtime)}".encode("utf-8", "surrogateescape"))
            if stat.S_ISREG(info.st_mode):
                total.update(get(full))
            elif stat.S_ISLNK(info.st_mode):
                total.update(os.readlink(full).encode())
    return total.hexdigest()


@test
def trees_by_cp_and_tar(d):
    source = "/usr/include/linux"
    if not os.path.isdir(source):
        raise Skip(f"no {source}")
    subprocess.run(["cp", "-a", source, f"{d}/cp"], check=True)
    equal(digest(f"{d}/cp"), digest(source))
    subprocess.run(["tar", "-C", source, "-cf", f"{d}/t.tar", "."], check=True)
    os.mkdir(f"{d}/tar")
    subprocess.run(["tar", "-C", f"{d}/tar", "-xpf", f"{d}/t.tar"], check=True)
    drop_caches()
    equal(digest(f"{d}/tar"), digest(source))
    subprocess.run(["rm", "-r", f"{d}/cp", f"{d}/tar"], check=True)
    equal(os.listdir(d), ["t.tar"])


@test
def git_repository(d):
    def git(*words, folder=f"{d}/a"):
        return subprocess.run(["git", "-C", folder, "-c", "user.name=n", "-c", "user.email=e", *words], check=True,
                              capture_output=True).stdout
    os.mkdir(f"{d}/a")
    git("init", "-q", "-b", "main")
    for i in range(30):
        put(f"{d}/a/{i}", pattern(2000 * i, i))
    git("add", ".")
    git("commit", "-qm", "one")
    subprocess.run(["git", "clone", "-q", f"{d}/a", f"{d}/b"], check=True)
    put(f"{d}/b/5", b"changed")
    git("commit", "-qam", "two", folder=f"{d}/b")
    git("checkout", "-qb", "other", "HEAD~1", folder=f"{d}/b")
    git("gc", "-q", folder=f"{d}/b")
    git("fsck", "--strict", folder=f"{d}/b")
    equal(git("status", "--porcelain", folder=f"{d}/b"), b"")


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(__file__), __doc__))
