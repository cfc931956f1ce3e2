#!/usr/bin/env python3
"""What one mount does by itself in directories that were delegated to it: others see it at once, and nothing is lost."""
# test: timeout=240
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, fails, read, step, wait_for, write  # noqa: E402


def fresh(a, name):
    """A directory that only this mount knows: delegated with its making."""
    path = f"{a}/{name}"
    os.mkdir(path)
    write(f"{path}/first", b"")
    return path


def seen_at_once(a, b):
    for number in range(30):
        data = os.urandom(1 + number * 300)
        here = fresh(a, f"seen{number}")
        there = f"{b}/seen{number}"
        write(f"{here}/file", data)
        if number % 3 == 0:
            check(read(f"{there}/file") == data, "not the bytes that were closed")
        elif number % 3 == 1:
            check(sorted(os.listdir(there)) == ["file", "first"], f"the listing lacks a file: {os.listdir(there)}")
        else:
            check(os.stat(f"{there}/file").st_size == len(data), "not the size that was closed")
        mine, theirs = os.stat(f"{here}/file"), os.stat(f"{there}/file")
        for field in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
            check(getattr(mine, field) == getattr(theirs, field), f"{number} {field}: {getattr(mine, field)} and {getattr(theirs, field)}")
        # The kernel that wrote it goes by a clock of its own, that is coarser.
        check(abs(mine.st_ctime_ns - theirs.st_ctime_ns) < 20_000_000, f"change times {mine.st_ctime_ns} and {theirs.st_ctime_ns}")
        check(os.stat(here).st_mtime_ns == os.stat(there).st_mtime_ns, "times of the directory differ")


def times_stay(a, b):
    here = fresh(a, "times")
    write(f"{here}/file", b"12345")
    os.chmod(f"{here}/file", 0o640)
    os.utime(f"{here}/file", ns=(10**18, 2 * 10**18))
    before, directory = os.stat(f"{here}/file"), os.stat(here)
    check(os.listdir(f"{b}/times"), "empty")  # by now the masters know it all
    subprocess.run("echo 2 > /proc/sys/vm/drop_caches", shell=True, check=False)
    after = os.stat(f"{here}/file")
    check(before == after, f"{before} has become {after}")
    check(after.st_mtime_ns == 2 * 10**18 and after.st_mode & 0o777 == 0o640, str(after))
    check(os.stat(here).st_mtime_ns == directory.st_mtime_ns, "the directory's time has changed")


def same_name(a, b):
    here, there = fresh(a, "same"), f"{b}/same"
    write(f"{here}/x", b"mine")
    fails(errno.EEXIST, os.open, f"{there}/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    here, there = fresh(a, "same2"), f"{b}/same2"
    write(f"{here}/x", b"mine")
    fails(errno.EEXIST, os.mkdir, f"{there}/x")
    check(read(f"{here}/x") == b"mine", "lost")
    for number in range(100):  # both at once: exactly one makes it
        here, there = fresh(a, f"race{number}"), f"{b}/race{number}"
        made = []

        def make(path, who, made=made):
            try:
                os.close(os.open(f"{path}/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                made.append(who)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=make, args=pair) for pair in ((here, "a"), (there, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(len(made) == 1, f"made by {made}")


def removed(a, b):
    here, there = fresh(a, "removed"), f"{b}/removed"
    write(f"{here}/x", b"1")
    fails(errno.ENOTEMPTY, os.rmdir, there)
    here, there = fresh(a, "removed2"), f"{b}/removed2"
    write(f"{here}/x", b"1")
    os.unlink(f"{there}/x")
    fails(errno.ENOENT, os.stat, f"{here}/x")
    here, there = fresh(a, "removed3"), f"{b}/removed3"
    write(f"{here}/x", b"3")
    os.rename(there, f"{b}/moved")
    check(read(f"{b}/moved/x") == b"3", "lost by a rename of its directory")
    check(read(f"{a}/moved/x") == b"3", "lost by a rename of its directory here")
    here = fresh(a, "removed4")
    write(f"{here}/x", b"4")
    os.unlink(f"{here}/x")
    fails(errno.ENOENT, os.stat, f"{here}/x")
    write(f"{here}/x", b"5")
    os.rename(f"{here}/x", f"{here}/y")
    os.link(f"{here}/y", f"{here}/z")
    check(read(f"{b}/removed4/y") == read(f"{b}/removed4/z") == b"5", "renamed and linked")
    write(f"{here}/v", b"6")
    fails(errno.ENOTEMPTY, os.rmdir, here)
    here, there = fresh(a, "removed5"), f"{b}/removed5"
    with open(f"{here}/open", "wb") as file:  # still open, not flushed
        check("open" in os.listdir(there), "an open file is not listed")
        os.unlink(f"{there}/open")
        file.write(b"x" * 5000)
        file.flush()
        check(os.fstat(file.fileno()).st_size == 5000, "an open file that was unlinked elsewhere")


def contents(a, b):
    here, there = fresh(a, "contents"), f"{b}/contents"
    for size in (0, 1, 4096, 262144, 262145, 700000, 3 << 20):
        data = os.urandom(size)
        write(f"{here}/{size}", data)
        check(read(f"{here}/{size}") == data, f"{size} here")
    for size in (0, 1, 4096, 262144, 262145, 700000, 3 << 20):
        check(read(f"{there}/{size}") == read(f"{here}/{size}"), f"{size} there")
    here = fresh(a, "contents2")
    with open(f"{here}/cut", "wb") as file:
        file.truncate(100000)
        file.write(b"abc")
        file.flush()
        file.truncate(10)
        os.fsync(file.fileno())
        os.setxattr(f"{here}/cut", "user.a", b"1")
    check(read(f"{b}/contents2/cut") == b"abc" + bytes(7), "truncated")
    write(f"{here}/x", b"1")
    os.setxattr(f"{here}/x", "user.a", b"2")
    check(os.getxattr(f"{b}/contents2/x", "user.a") == b"2", "an attribute")
    with open(f"{here}/x", "ab") as file:
        file.write(b"2")
    check(read(f"{b}/contents2/x") == b"12", "appended")


def same_attributes(here, there):
    mine, theirs = os.lstat(here), os.lstat(there)
    for field in [name for name in dir(mine) if name.startswith("st_") and name not in ("st_dev", "st_atime", "st_mtime", "st_ctime")]:
        check(getattr(mine, field) == getattr(theirs, field), f"{here}: {field} is {getattr(mine, field)}, there {getattr(theirs, field)}")


def names_seen_at_once(cluster, a, b):
    """Directories made, names changed and removed: as soon as it is done here it is done there, by name and by path."""
    here, there = fresh(a, "names"), f"{b}/names"
    for number in range(10):
        os.makedirs(f"{here}/{number}/x/y")
        write(f"{here}/{number}/x/y/file", b"%d" % number)
        os.symlink("file", f"{here}/{number}/x/y/link")
        check(read(f"{there}/{number}/x/y/link") == b"%d" % number, "not there yet")
        for path in ("", "/x", "/x/y", "/x/y/link"):
            same_attributes(f"{here}/{number}{path}", f"{there}/{number}{path}")
    for number in range(10):
        os.rename(f"{here}/{number}", f"{here}/moved{number}")
        if number % 2 == 0:
            check(sorted(os.listdir(f"{there}/moved{number}/x/y")) == ["file", "link"], "not moved yet")
        else:
            cluster.granary("stat", f"/names/moved{number}/x/y/file")
        fails(errno.ENOENT, os.stat, f"{there}/{number}")
    for number in range(10):
        here_y, there_y = f"{here}/moved{number}/x/y", f"{there}/moved{number}/x/y"
        os.rename(f"{here_y}/file", f"{here_y}/renamed")
        check(read(f"{there_y}/renamed") == b"%d" % number, "a renamed file")
        write(f"{here_y}/new", b"new")
        os.rename(f"{here_y}/new", f"{here_y}/renamed")
        check(read(f"{there_y}/renamed") == b"new", "a file that took the place of another")
        os.chmod(here_y, 0o751)
        os.utime(here_y, ns=(10**18, 10**18))
        same_attributes(here_y, there_y)
        mine = os.stat(here_y)
        check((mine.st_mode, mine.st_mtime_ns) == (0o40751, 10**18), "not the attributes that were set")
        os.unlink(f"{here_y}/renamed")
        fails(errno.ENOENT, os.stat, f"{there_y}/renamed")
        fails(errno.ENOTEMPTY, os.rmdir, here_y)
        os.unlink(f"{here_y}/link")
        os.rmdir(here_y)
        fails(errno.ENOENT, os.listdir, there_y)
    subprocess.run(["rm", "-r", here], check=True)
    fails(errno.ENOENT, os.stat, there)
    with open(f"{fresh(a, 'names2')}/open", "wb") as file:
        file.write(b"x" * 1000)
        file.flush()
        os.unlink(f"{a}/names2/open")
        check(os.fstat(file.fileno()).st_nlink == 0, "an open file without a name has a link")


def attempt(root, operation, arguments):
    """What an operation in a tree answers."""
    path = [f"{root}/{argument}" for argument in arguments]
    try:
        if operation == "write":
            write(path[0], arguments[0].encode() * 10)
        elif operation == "symlink":
            os.symlink(arguments[0], path[1])
        elif operation == "chmod":
            os.chmod(path[0], 0o700)
        elif operation == "list":
            return sorted(os.listdir(path[0]))
        elif operation == "stat":
            stat = os.lstat(path[0])
            return stat.st_mode, stat.st_nlink if not os.path.isdir(path[0]) else 0
        else:
            getattr(os, operation)(*path)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def random_names(a, b, seed, steps):
    """The same operations on a mount and on a local tree have the same answers, and the other mount sees the same tree."""
    dice = random.Random(seed)
    here, local = f"{a}/random{seed}", os.path.join(DIR, f"random{seed}")
    os.mkdir(here)
    os.mkdir(local)
    kinds = ["mkdir"] * 5 + ["write"] * 5 + ["unlink"] * 4 + ["rmdir"] * 4 + ["rename"] * 6 + ["symlink", "link", "chmod", "list", "stat", "stat"]

    def name():
        return "/".join(dice.choice("abc") for _ in range(dice.choice((1, 1, 2, 2, 3))))

    for number in range(steps):
        operation = dice.choice(kinds)
        arguments = [name() for _ in range(2 if operation in ("rename", "symlink", "link") else 1)]
        mine, wanted = attempt(here, operation, arguments), attempt(local, operation, arguments)
        check(mine == wanted, f"seed {seed} step {number}: {operation} {arguments}: {mine}, but {wanted} locally")
        if dice.random() < 0.02:
            same_trees(local, f"{b}/random{seed}")
    same_trees(local, f"{b}/random{seed}")
    same_trees(local, here)


def same_trees(one, other):
    # (of directories not the times: the local ones change by themselves)
    done = subprocess.run(["rsync", "-rlpcn", "--delete", "--itemize-changes", f"{one}/", f"{other}/"], capture_output=True, check=True)
    check(done.stdout == b"", f"{other} differs: {done.stdout[:500]}")


def frozen(a, b, process):
    here, there = fresh(a, "frozen"), f"{b}/frozen"
    write(f"{here}/x", b"1")
    process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        write(f"{there}/y", b"2")
        waited = time.monotonic() - started
        check(waited < 2.0, f"waited {waited:.2f} s for a mount that stands still")
    finally:
        process.send_signal(signal.SIGCONT)
    # Its delegation is over: what it had not sent by then comes as soon as it goes on.
    wait_for(lambda: os.path.exists(f"{there}/x"), 5, "what the mount had made before it stood still")
    check(read(f"{here}/y") == b"2" and read(f"{here}/x") == b"1" == read(f"{there}/x"), "lost")
    print(f"waited {waited:.2f} s")


def killed(cluster, b):
    path = os.path.join(DIR, "killed")
    process = cluster.mount_again(path)
    here = fresh(path, "killed")
    with open(f"{here}/synced", "wb") as file:
        file.write(b"kept" * 1000)
        os.fsync(file.fileno())
    process.kill()
    process.wait()
    check(read(f"{b}/killed/synced") == b"kept" * 1000, "a synced file is lost with its mount")
    subprocess.run(["umount", "-l", path], check=True)


def killed_with_dirsync(cluster, b):
    """Names that were changed the moment before the mount died."""
    path = os.path.join(DIR, "dirsync")
    process = cluster.mount_again(path, "--dirsync")
    os.mkdir(f"{path}/dirsync")
    for number in range(20):
        os.mkdir(f"{path}/dirsync/{number}")
    for number in range(10):
        os.rename(f"{path}/dirsync/{number}", f"{path}/dirsync/moved{number}")
    for number in range(10, 15):
        os.rmdir(f"{path}/dirsync/{number}")
    process.kill()
    process.wait()
    names = sorted([f"moved{n}" for n in range(10)] + [str(n) for n in range(15, 20)])
    check(sorted(os.listdir(f"{b}/dirsync")) == names, f"not what was done: {os.listdir(f'{b}/dirsync')}")
    subprocess.run(["umount", "-l", path], check=True)


def unmounted(cluster, b):
    path = os.path.join(DIR, "unmounted")
    process = cluster.mount_again(path)
    here = fresh(path, "unmounted")
    for number in range(300):
        write(f"{here}/{number}", b"%d" % number)
    process.terminate()
    check(process.wait(20) == 0, "the mount ended with an error")
    check(all(read(f"{b}/unmounted/{n}") == b"%d" % n for n in range(300)), "lost by the end of the mount")


def leader_dies(cluster, a, b):
    source = os.path.join(DIR, "source")
    for directory in range(12):
        os.makedirs(f"{source}/{directory}")
        for number in range(100):
            write(f"{source}/{directory}/{number}", os.urandom(number * 37 + 1))
    shutil.copytree(source, f"{a}/old/tree")
    copying = subprocess.Popen(["cp", "-a", source, f"{a}/tree"])
    removing = subprocess.Popen(["rm", "-r", f"{a}/old"])
    wait_for(lambda: os.path.exists(f"{a}/tree/3"), 30, "the copy begins")
    leader = cluster.leader()
    cluster.dev("kill", "master", str(leader))
    check(copying.wait(60) == 0, "cp failed")
    check(removing.wait(60) == 0, "rm failed")
    fails(errno.ENOENT, os.stat, f"{b}/old")
    for mount in (a, b):
        done = subprocess.run(["rsync", "-acn", "--delete", "--itemize-changes", f"{source}/", f"{mount}/tree/"],
                              capture_output=True, check=True)
        check(done.stdout == b"", f"differs: {done.stdout[:500]}")


def main():
    with Cluster(mount=True) as cluster:
        other = os.path.join(DIR, "other")
        process = cluster.mount_again(other)
        a, b = other, cluster.mnt
        for test in (seen_at_once, times_stay, same_name, removed, contents):
            step(test.__name__)
            test(a, b)
        step("names_seen_at_once")
        names_seen_at_once(cluster, a, b)
        for seed in range(3):
            step(f"random_names {seed}")
            random_names(a, b, seed, 1000)
        step("frozen")
        frozen(a, b, process)
        step("killed")
        killed(cluster, b)
        step("killed_with_dirsync")
        killed_with_dirsync(cluster, b)
        step("unmounted")
        unmounted(cluster, b)
        step("leader_dies")
        leader_dies(cluster, a, b)


main()
