#!/usr/bin/env python3
"""posix_privileges.py [-k WORD] DIR [DIR2]: set-id bits and capabilities go where a local file system drops them.

The same is done in DIR, through DIR2 (the same folder by another mount), and in a folder of the local disk, and the outcome
compared. As posix.py otherwise. Needs root.
"""
# test: timeout=180
import contextlib
import ctypes
import errno
import itertools
import mmap
import os
import stat
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from posix_kit import Told, child, drop_caches, equal, joined, libc, main, put, root_only, test, test_pair  # noqa: E402

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
NOBODY = 65534
MODES = (0o6777, 0o4766, 0o2777, 0o2767, 0o777)  # 0o2767: the group may not execute
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2


@contextlib.contextmanager
def opened(path, flags=os.O_WRONLY):
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_block(descriptor):
    """Of an address as O_DIRECT wants it."""
    with mmap.mmap(-1, 4096) as block:
        os.write(descriptor, block)


def write(path):
    with opened(path) as descriptor:
        os.write(descriptor, b"new")


def append(path):
    with opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
        os.write(descriptor, b"new")


def direct(path):
    with opened(path, os.O_WRONLY | os.O_DIRECT) as descriptor:
        write_block(descriptor)


def ftruncate(path):
    with opened(path) as descriptor:
        os.ftruncate(descriptor, 10)


def grow(path):
    os.truncate(path, 9000)


def open_truncate(path):
    with opened(path, os.O_WRONLY | os.O_TRUNC):
        pass


def create_truncate(path):
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        pass


def allocate(path):
    with opened(path) as descriptor:
        os.posix_fallocate(descriptor, 0, 8192)


def copy(path):
    with opened(path, os.O_RDWR) as descriptor:
        os.copy_file_range(descriptor, descriptor, 10, 0, 2000)


def own(path):
    os.chown(path, os.geteuid(), os.getegid())


def read(path):
    with opened(path, os.O_RDONLY) as descriptor:
        os.read(descriptor, 10)


def chown_then_write(path):
    own(path)
    write(path)


CHANGES = (write, append, direct, ftruncate, grow, open_truncate, create_truncate, allocate, copy, own, read, chown_then_write)
CASES = list(itertools.product(CHANGES, (0, NOBODY), MODES, (False, True)))


def has_capability(path):
    try:
        return os.getxattr(path, "security.capability") == CAPABILITY
    except OSError as error:
        equal(error.errno, errno.ENODATA)
        return False


def made(path, owner, mode, capable):
    """The file, still open."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    os.write(descriptor, b"a" * 4096)
    os.fchown(descriptor, owner, NOBODY)
    os.fchmod(descriptor, mode)
    if capable:
        os.setxattr(path, "security.capability", CAPABILITY)
    return descriptor


def outcome(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode)), has_capability(path)


def attempt(change, user, path):
    if user:
        joined(child(change, path, uid=user))
    else:
        change(path)


def expected():
    """What becomes of each case on the local disk."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        result = []
        for number, (change, user, mode, capable) in enumerate(CASES):
            path = f"{folder}/{number}"
            os.close(made(path, user, mode, capable))
            attempt(change, user, path)
            result.append(outcome(path))
    return result


def compare(expectation, make, there, others, keep=False):
    """Files made in the folder `make`, changed through `there`, looked at through it and the others. keep: they stay open."""
    for folder in {make, there, *others}:
        os.chmod(folder, 0o755)
    descriptors = [made(f"{make}/{number}", user, mode, capable) for number, (_, user, mode, capable) in enumerate(CASES)]
    if not keep:
        for descriptor in descriptors:
            os.close(descriptor)
    for number, (change, user, mode, capable) in enumerate(CASES):
        what = f"{change.__name__} by {user} of {mode:o}{' with a capability' if capable else ''}"
        attempt(change, user, f"{there}/{number}")
        equal(outcome(f"{there}/{number}"), expectation[number], what)
        for other in others:
            equal(outcome(f"{other}/{number}"), expectation[number], f"{what}, seen by the other mount")
    if keep:
        for descriptor in descriptors:
            os.close(descriptor)
    drop_caches()
    for number, expect in enumerate(expectation):
        equal(outcome(f"{there}/{number}"), expect, f"{CASES[number][0].__name__}: afterwards")


@test
def closed_files(d):
    root_only()
    compare(expected(), d, d, [])


@test
def open_files(d):
    root_only()
    compare(expected(), d, d, [], keep=True)


@test_pair
def pair_seen_at_once(a, b):
    root_only()
    compare(expected(), a, a, [b])


@test_pair
def pair_changed_by_the_other(a, b):
    root_only()
    compare(expected(), a, b, [a])


@test
def punched(d):
    root_only()
    os.chmod(d, 0o755)
    os.close(made(f"{d}/a", NOBODY, 0o6777, False))

    def punch():
        with opened(f"{d}/a", os.O_RDWR) as descriptor:
            mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            equal(libc.fallocate(descriptor, mode, ctypes.c_long(0), ctypes.c_long(4096)), 0)
    joined(child(punch, uid=NOBODY))
    equal(outcome(f"{d}/a"), ("0o777", False))


@test
def still_a_file_with_its_data(d):
    """What was written while bits were dropped is there, beside what the cache has."""
    root_only()
    os.chmod(d, 0o755)
    os.close(made(f"{d}/a", NOBODY, 0o4777, True))

    def writer():
        with opened(f"{d}/a", os.O_RDWR) as descriptor:
            os.pwrite(descriptor, b"1" * 300_000, 1000)
            equal(outcome(f"{d}/a"), ("0o777", False))
            os.pwrite(descriptor, b"2" * 10, 100_000)
            equal(os.pread(descriptor, 20, 99_995), b"1" * 5 + b"2" * 10 + b"1" * 5)
    joined(child(writer, uid=NOBODY))
    drop_caches()
    with open(f"{d}/a", "rb") as file:
        assert file.read() == b"a" * 1000 + b"1" * 99_000 + b"2" * 10 + b"1" * 200_990


@test
def others_attributes_stay(d):
    """Only the capability goes, and not again and again."""
    root_only()
    put(f"{d}/a", b"a" * 8192)
    os.setxattr(f"{d}/a", "user.one", b"1")
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_DIRECT):
        os.setxattr(f"{d}/a", "security.capability", CAPABILITY)
        with opened(f"{d}/a", flags) as descriptor:
            for _ in range(3):
                write_block(descriptor)
        equal((has_capability(f"{d}/a"), os.getxattr(f"{d}/a", "user.one")), (False, b"1"))


def gained_while_open(here, there, flags):
    """A file that is being written here gets rights through another mount: the next write drops them."""
    os.chmod(here, 0o755)
    os.close(made(f"{here}/a", NOBODY, 0o777, False))
    ready, go = Told(), Told()

    def writer():
        os.close(go.write_end)  # so that it ends with the test
        with opened(f"{here}/a", flags) as descriptor:
            for _ in range(4):
                write_block(descriptor)
                write_block(descriptor)
                ready.tell()
                go.wait()
    pid = child(writer, uid=NOBODY)
    os.close(ready.write_end)  # so that a writer that fails is not waited for
    ready.wait()
    os.chmod(f"{there}/a", 0o6777)
    go.tell()
    ready.wait()
    equal((outcome(f"{there}/a"), outcome(f"{here}/a")), (("0o777", False),) * 2, "set-id bits")
    os.setxattr(f"{there}/a", "security.capability", CAPABILITY)
    go.tell()
    ready.wait()
    equal((has_capability(f"{there}/a"), has_capability(f"{here}/a")), (False, False), "capability")
    os.chmod(f"{there}/a", 0o2767)
    go.tell()
    ready.wait()
    equal(outcome(f"{there}/a"), ("0o2767", False), "the group may not execute")
    go.tell()
    joined(pid)


@test
def gained_while_open_here(d):
    root_only()
    gained_while_open(d, d, os.O_WRONLY)


@test_pair
def pair_gained_while_open(a, b):
    root_only()
    gained_while_open(a, b, os.O_WRONLY)


@test_pair
def pair_gained_while_open_direct(a, b):
    root_only()
    gained_while_open(a, b, os.O_WRONLY | os.O_DIRECT)


@test
def chown_of_all_kinds(d):
    root_only()
    os.mkdir(f"{d}/directory")
    os.mkfifo(f"{d}/fifo")
    os.symlink("fifo", f"{d}/link")
    with tempfile.TemporaryDirectory() as local:
        os.mkdir(f"{local}/directory")
        os.mkfifo(f"{local}/fifo")
        os.symlink("fifo", f"{local}/link")
        for folder in (local, d):
            for name in ("directory", "fifo"):
                os.chmod(f"{folder}/{name}", 0o6777)
            for name in ("directory", "fifo", "link"):
                os.chown(f"{folder}/{name}", 5, 6, follow_symlinks=False)
        for name in ("directory", "fifo", "link"):
            here, there = os.lstat(f"{d}/{name}"), os.lstat(f"{local}/{name}")
            equal((oct(here.st_mode), here.st_uid, here.st_gid), (oct(there.st_mode), 5, 6), name)


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(__file__), __doc__))
