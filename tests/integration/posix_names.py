#!/usr/bin/env python3
"""posix_names.py [-k WORD] DIR: what POSIX promises about names and attributes, asked of any directory.

As posix.py.
"""
# test: timeout=300
import ctypes
import errno
import os
import random
import stat
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from posix_kit import (  # noqa: E402
    child, drop_caches, equal, get, joined, libc, main, pattern, put, raises, root_only, test, until)


# ---------------------------------------------------------------- names


@test
def directories(d):
    os.mkdir(f"{d}/a")
    raises(errno.EEXIST, os.mkdir, f"{d}/a")
    equal(os.stat(f"{d}/a").st_nlink, 2)
    os.mkdir(f"{d}/a/b")
    equal(os.stat(f"{d}/a").st_nlink, 3)
    raises(errno.ENOTEMPTY, os.rmdir, f"{d}/a")
    raises(errno.EISDIR, os.unlink, f"{d}/a/b")
    put(f"{d}/file", b"")
    raises(errno.ENOTDIR, os.rmdir, f"{d}/file")
    raises(errno.ENOTDIR, os.mkdir, f"{d}/file/x")
    raises(errno.EINVAL, os.rmdir, f"{d}/a/.")
    equal(os.stat(f"{d}/a/b/..").st_ino, os.stat(f"{d}/a").st_ino)
    os.rmdir(f"{d}/a/b")
    equal(os.stat(f"{d}/a").st_nlink, 2)
    os.rmdir(f"{d}/a")
    raises(errno.ENOENT, os.rmdir, f"{d}/a")


@test
def names_of_all_kinds(d):
    long = "n" * 255
    put(f"{d}/{long}", b"long")
    equal(get(f"{d}/{long}"), b"long")
    raises(errno.ENAMETOOLONG, put, f"{d}/{long}x", b"")
    raises(errno.ENAMETOOLONG, os.stat, f"{d}/{long}x")
    raises(errno.ENAMETOOLONG, os.mkdir, f"{d}/{long}x")
    raises(errno.ENAMETOOLONG, os.rename, f"{d}/{long}", f"{d}/{long}x")
    os.unlink(f"{d}/{long}")
    odd = [bytes([c]) for c in range(1, 256) if c not in b"/."] + ["ä€𝄞".encode(), b" lead", b"tail ", b"new\nline", b"..."]
    for name in odd:
        put(d.encode() + b"/" + name, name)
    equal(sorted(os.listdir(d.encode())), sorted(odd))
    for name in odd:
        equal(get(d.encode() + b"/" + name), name)


@test
def hard_links(d):
    put(f"{d}/a", b"one")
    os.link(f"{d}/a", f"{d}/b")
    a, b = os.stat(f"{d}/a"), os.stat(f"{d}/b")
    equal((a.st_ino, a.st_nlink), (b.st_ino, 2))
    put(f"{d}/b", b"changed")
    equal(get(f"{d}/a"), b"changed")
    raises(errno.EEXIST, os.link, f"{d}/a", f"{d}/b")
    raises(errno.EPERM, os.link, d, f"{d}/dirlink")
    raises(errno.ENOENT, os.link, f"{d}/missing", f"{d}/c")
    os.rename(f"{d}/a", f"{d}/b")  # two names of one file: nothing happens
    equal(sorted(os.listdir(d)), ["a", "b"])
    os.unlink(f"{d}/a")
    equal(os.stat(f"{d}/b").st_nlink, 1)
    equal(get(f"{d}/b"), b"changed")


@test
def symbolic_links(d):
    put(f"{d}/a", b"target")
    os.symlink("a", f"{d}/link")
    equal(os.readlink(f"{d}/link"), "a")
    equal(get(f"{d}/link"), b"target")
    equal(stat.S_IFMT(os.lstat(f"{d}/link").st_mode), stat.S_IFLNK)
    equal(os.lstat(f"{d}/link").st_size, 1)
    long = "x" * 4000
    os.symlink(long, f"{d}/long")
    equal(os.readlink(f"{d}/long"), long)
    os.symlink("loop2", f"{d}/loop1")
    os.symlink("loop1", f"{d}/loop2")
    raises(errno.ELOOP, os.stat, f"{d}/loop1")
    raises(errno.ELOOP, os.open, f"{d}/link", os.O_RDONLY | os.O_NOFOLLOW)
    raises(errno.EINVAL, os.readlink, f"{d}/a")
    raises(errno.EEXIST, os.symlink, "b", f"{d}/link")
    os.unlink(f"{d}/link")
    equal(get(f"{d}/a"), b"target")


@test
def renames(d):
    put(f"{d}/a", b"a")
    put(f"{d}/b", b"b")
    inode = os.stat(f"{d}/a").st_ino
    os.rename(f"{d}/a", f"{d}/b")
    equal((get(f"{d}/b"), os.stat(f"{d}/b").st_ino), (b"a", inode))
    raises(errno.ENOENT, os.rename, f"{d}/a", f"{d}/c")
    os.makedirs(f"{d}/x/y/z")
    raises(errno.EINVAL, os.rename, f"{d}/x", f"{d}/x/y/inside")
    raises(errno.EISDIR, os.rename, f"{d}/b", f"{d}/x")
    raises(errno.ENOTDIR, os.rename, f"{d}/x", f"{d}/b")
    os.mkdir(f"{d}/full")
    put(f"{d}/full/f", b"")
    raises(errno.ENOTEMPTY, os.rename, f"{d}/x", f"{d}/full")
    os.mkdir(f"{d}/empty")
    os.rename(f"{d}/x/y", f"{d}/empty")
    equal(os.listdir(f"{d}/empty"), ["z"])
    equal(os.stat(f"{d}/empty/..").st_ino, os.stat(d).st_ino)
    equal(os.stat(f"{d}/x").st_nlink, 2)
    os.rename(f"{d}/b", f"{d}/x/moved")
    equal(get(f"{d}/x/moved"), b"a")
    file = os.open(f"{d}/x/moved", os.O_RDONLY)
    put(f"{d}/new", b"new")
    os.rename(f"{d}/new", f"{d}/x/moved")
    equal(os.read(file, 10), b"a")
    equal(os.fstat(file).st_nlink, 0)
    os.close(file)


def renameat2(old, new, flags):
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@test
def rename_flags(d):
    put(f"{d}/a", b"a")
    put(f"{d}/b", b"b")
    raises(errno.EEXIST, renameat2, f"{d}/a", f"{d}/b", 1)
    renameat2(f"{d}/a", f"{d}/c", 1)
    renameat2(f"{d}/c", f"{d}/b", 2)
    equal((get(f"{d}/b"), get(f"{d}/c")), (b"a", b"b"))
    os.makedirs(f"{d}/dir/sub")
    renameat2(f"{d}/b", f"{d}/dir", 2)
    equal((get(f"{d}/dir"), os.listdir(f"{d}/b")), (b"a", ["sub"]))
    equal(os.stat(f"{d}/b/sub/..").st_ino, os.stat(f"{d}/b").st_ino)
    raises(errno.ENOENT, renameat2, f"{d}/b", f"{d}/missing", 2)
    raises(errno.EINVAL, renameat2, f"{d}/b", f"{d}/c", 3)


@test
def special_files(d):
    os.mkfifo(f"{d}/fifo", 0o640)
    equal(os.lstat(f"{d}/fifo").st_mode, stat.S_IFIFO | 0o640)

    def writer():
        put(f"{d}/fifo", b"through")
    pid = child(writer)
    equal(get(f"{d}/fifo"), b"through")
    joined(pid)
    if os.geteuid() == 0:
        os.mknod(f"{d}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        info = os.stat(f"{d}/null")
        equal((stat.S_ISCHR(info.st_mode), os.major(info.st_rdev), os.minor(info.st_rdev)), (True, 1, 3))


@test
def reads_a_directory_while_deleting(d):
    names = {f"file-{i:05}" for i in range(2500)}
    for name in names:
        os.close(os.open(f"{d}/{name}", os.O_CREAT))
    equal(set(os.listdir(d)), names)
    seen = []
    with os.scandir(d) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    equal(len(seen), len(set(seen)), "names seen twice")
    equal(set(seen), names)
    equal(os.listdir(d), [])
    os.rmdir(d)
    os.mkdir(d)


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16),
                ("type", ctypes.c_uint8), ("name", ctypes.c_char * 256)]


@test
def telldir_and_seekdir(d):
    for i in range(1500):
        os.close(os.open(f"{d}/{i:04}", os.O_CREAT))
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.telldir.restype = ctypes.c_long
    directory = ctypes.c_void_p(libc.opendir(d.encode()))
    places, order = [], []

    def next_name():
        entry = libc.readdir(directory)
        return entry.contents.name.decode() if entry else None
    while True:
        place = libc.telldir(directory)
        name = next_name()
        if name is None:
            break
        places.append(place)
        order.append(name)
    equal(sorted(order), sorted([".", ".."] + [f"{i:04}" for i in range(1500)]))
    os.unlink(f"{d}/0700")
    os.close(os.open(f"{d}/0700-new", os.O_CREAT))
    dice = random.Random(3)
    for _ in range(50):
        i = dice.randrange(len(order))
        libc.seekdir(directory, ctypes.c_long(places[i]))
        equal(next_name(), order[i], f"position {i}")
    libc.rewinddir(directory)
    again = []
    while (name := next_name()) is not None:
        again.append(name)
    libc.closedir(directory)
    assert "0700-new" in again and "0700" not in again
    equal(len(again), len(order))


@test
def working_in_a_removed_directory(d):
    os.mkdir(f"{d}/gone")

    def inside():
        os.chdir(f"{d}/gone")
        os.rmdir(f"{d}/gone")
        equal(os.listdir("."), [])
        raises(errno.ENOENT, put, "file", b"")
    joined(child(inside))


# ---------------------------------------------------------------- attributes


@test
def times(d):
    put(f"{d}/a", b"x")
    os.utime(f"{d}/a", ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    info = os.stat(f"{d}/a")
    equal((info.st_atime_ns, info.st_mtime_ns), (1_234_567_890_123_456_789, 987_654_321_987_654_321))
    drop_caches()
    info = os.stat(f"{d}/a")
    equal(info.st_mtime_ns, 987_654_321_987_654_321)
    os.utime(f"{d}/a", ns=(-5_000_000_001, -1))
    drop_caches()
    equal(os.stat(f"{d}/a").st_mtime_ns, -1)
    before = time.time()
    os.utime(f"{d}/a")
    assert abs(os.stat(f"{d}/a").st_mtime - before) < 5
    os.utime(f"{d}/a", ns=(0, 0))
    with open(f"{d}/a", "ab") as file:
        file.write(b"y")
    assert abs(os.stat(f"{d}/a").st_mtime - before) < 60
    with open(f"{d}/b", "wb") as file:
        file.write(b"written before")
        os.utime(f"{d}/b", ns=(0, 5_000_000_005))
    drop_caches()
    old = os.stat(d).st_mtime_ns
    until(lambda: time.time_ns() > old + 10_000_000)
    put(f"{d}/c", b"")
    assert os.stat(d).st_mtime_ns > old, "mtime of the directory"


@test
def change_times_move(d):
    """ctime of what is changed, mtime and ctime of the folder in which a name changes."""
    os.mkdir(f"{d}/dir")
    os.mkdir(f"{d}/other")
    changes = {
        "chmod": lambda f: os.chmod(f, 0o640),
        "chown": lambda f: os.chown(f, os.geteuid(), os.getegid()),
        "utime": lambda f: os.utime(f, ns=(1, 1)),
        "link": lambda f: os.link(f, f"{d}/other/link"),
        "unlink": lambda f: os.unlink(f"{d}/other/link"),
        "setxattr": lambda f: os.setxattr(f, "user.c", b"1"),
        "removexattr": lambda f: os.removexattr(f, "user.c"),
        "truncate": lambda f: os.truncate(f, 5),
        "write": lambda f: put(f, b"new"),
        "rename": lambda f: (os.rename(f, f + "2"), os.rename(f + "2", f)),
    }
    for kind in ("file", "directory"):
        path = f"{d}/dir/{kind}"
        put(path, b"content") if kind == "file" else os.mkdir(path)
        for name, change in changes.items():
            if kind == "directory" and name in ("link", "unlink", "truncate", "write"):
                continue
            before, folder = os.stat(path), os.stat(f"{d}/dir")
            until(lambda: time.time_ns() > before.st_ctime_ns + 20_000_000)
            change(path)
            after = os.stat(path)
            assert after.st_ctime_ns > before.st_ctime_ns, f"ctime of a {kind} after {name}"
            if name in ("truncate", "write"):
                assert after.st_mtime_ns > before.st_mtime_ns, f"mtime after {name}"
            elif name != "utime":
                equal(after.st_mtime_ns, before.st_mtime_ns, f"mtime of a {kind} after {name}")
            now = os.stat(f"{d}/dir")
            equal((now.st_mtime_ns > folder.st_mtime_ns, now.st_ctime_ns > folder.st_ctime_ns), (name == "rename",) * 2,
                  f"times of the folder after {name}")


@test
def times_survive_cp(d):
    put(f"{d}/a", pattern(100_000))
    os.utime(f"{d}/a", ns=(1_111_111_111, 2_222_222_222))
    subprocess.run(["cp", "-a", f"{d}/a", f"{d}/b"], check=True)
    equal(os.stat(f"{d}/b").st_mtime_ns, 2_222_222_222)
    drop_caches()
    equal(os.stat(f"{d}/b").st_mtime_ns, 2_222_222_222)
    assert get(f"{d}/b") == get(f"{d}/a")


@test
def modes_and_owners(d):
    put(f"{d}/a", b"")
    for mode in (0o000, 0o777, 0o4755, 0o2711, 0o1644):
        os.chmod(f"{d}/a", mode)
        equal(stat.S_IMODE(os.stat(f"{d}/a").st_mode), mode)
    root_only()
    os.chmod(f"{d}/a", 0o6755)
    os.chown(f"{d}/a", 1234, 4321)
    info = os.stat(f"{d}/a")
    equal((info.st_uid, info.st_gid), (1234, 4321))
    equal(stat.S_IMODE(info.st_mode) & 0o4000, 0, "set-user-id after chown")
    os.chown(f"{d}/a", -1, 5)
    equal((os.stat(f"{d}/a").st_uid, os.stat(f"{d}/a").st_gid), (1234, 5))
    os.mkdir(f"{d}/setgid")
    os.chown(f"{d}/setgid", 0, 77)
    os.chmod(f"{d}/setgid", 0o2775)
    put(f"{d}/setgid/file", b"")
    os.mkdir(f"{d}/setgid/dir")
    equal(os.stat(f"{d}/setgid/file").st_gid, 77)
    equal((os.stat(f"{d}/setgid/dir").st_gid, os.stat(f"{d}/setgid/dir").st_mode & 0o2000), (77, 0o2000))


@test
def permissions(d):
    root_only()
    os.chmod(d, 0o755)
    put(f"{d}/secret", b"s")
    os.chmod(f"{d}/secret", 0o600)
    put(f"{d}/readable", b"r")
    os.chmod(f"{d}/readable", 0o644)
    os.mkdir(f"{d}/tmp")
    os.chmod(f"{d}/tmp", 0o1777)
    put(f"{d}/tmp/roots", b"")
    os.mkdir(f"{d}/closed", 0o700)

    def nobody():
        raises(errno.EACCES, get, f"{d}/secret")
        equal(get(f"{d}/readable"), b"r")
        raises(errno.EACCES, put, f"{d}/readable", b"")
        raises(errno.EACCES, put, f"{d}/new", b"")
        raises(errno.EACCES, os.unlink, f"{d}/readable")
        raises(errno.EACCES, os.listdir, f"{d}/closed")
        raises(errno.EACCES, os.stat, f"{d}/closed/x")
        raises(errno.EPERM, os.chmod, f"{d}/readable", 0o777)
        raises(errno.EPERM, os.chown, f"{d}/readable", 65534, 65534)
        raises(errno.EPERM, os.utime, f"{d}/readable", (1, 1))
        raises(errno.EPERM, os.unlink, f"{d}/tmp/roots")
        put(f"{d}/tmp/mine", b"m")
        os.chmod(f"{d}/tmp/mine", 0o4700)
        with open(f"{d}/tmp/mine", "ab") as file:
            file.write(b"m")
        equal(os.stat(f"{d}/tmp/mine").st_mode & 0o4000, 0, "set-user-id after a write")
        os.unlink(f"{d}/tmp/mine")
    joined(child(nobody, uid=65534))


@test
def extended_attributes(d):
    put(f"{d}/a", b"x")
    equal(os.listxattr(f"{d}/a"), [])
    raises(errno.ENODATA, os.getxattr, f"{d}/a", "user.none")
    os.setxattr(f"{d}/a", "user.one", b"1")
    os.setxattr(f"{d}/a", "user.empty", b"")
    big = pattern(40_000)
    try:
        os.setxattr(f"{d}/a", "user.big", big)
    except OSError as error:
        equal(error.errno, errno.ENOSPC)  # some file systems keep them all in one block
        os.setxattr(f"{d}/a", "user.big", big := big[:1000])
    equal(os.getxattr(f"{d}/a", "user.one"), b"1")
    equal(os.getxattr(f"{d}/a", "user.empty"), b"")
    equal(os.getxattr(f"{d}/a", "user.big"), big)
    equal(sorted(os.listxattr(f"{d}/a")), ["user.big", "user.empty", "user.one"])
    raises(errno.EEXIST, os.setxattr, f"{d}/a", "user.one", b"2", os.XATTR_CREATE)
    raises(errno.ENODATA, os.setxattr, f"{d}/a", "user.two", b"2", os.XATTR_REPLACE)
    os.setxattr(f"{d}/a", "user.one", b"new", os.XATTR_REPLACE)
    equal(os.getxattr(f"{d}/a", "user.one"), b"new")
    os.removexattr(f"{d}/a", "user.one")
    raises(errno.ENODATA, os.removexattr, f"{d}/a", "user.one")
    os.rename(f"{d}/a", f"{d}/b")
    equal(sorted(os.listxattr(f"{d}/b")), ["user.big", "user.empty"])
    os.setxattr(d, "user.dir", b"d")
    equal(os.getxattr(d, "user.dir"), b"d")
    if os.geteuid() == 0:
        os.setxattr(f"{d}/b", "trusted.t", b"t")
        capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
        os.setxattr(f"{d}/b", "security.capability", capability)
        equal(os.getxattr(f"{d}/b", "security.capability"), capability)
        with open(f"{d}/b", "ab") as file:
            file.write(b"y")
        raises(errno.ENODATA, os.getxattr, f"{d}/b", "security.capability")


@test
def space(d):
    info = os.statvfs(d)
    assert info.f_blocks > 0 and 0 < info.f_bavail <= info.f_blocks, info
    assert info.f_namemax == 255 and info.f_ffree > 0, info


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(__file__), __doc__))
