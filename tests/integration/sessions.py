#!/usr/bin/env python3
"""Scenario 17: a client stands still for twice its session time with dirty pages and locks. Others get the locks, what it writes later is
refused at the chunkservers too, its mount says so and goes on in a new session. And: locks of a client that is killed."""
# test: timeout=200
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, step, wait_for  # noqa: E402

MNT = os.path.join(DIR, "sleeper")
SESSION_S = 5
BYTES = 4 << 20


def lock(descriptor):
    """Whether the lock was granted at once."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        check(error.errno in (errno.EAGAIN, errno.EACCES), f"lockf: {error}")
        return False


# A program on the mount that will stand still: it holds the lock, and goes on writing under it in a thread of its own for as long as it can.
PROGRAM = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX)
size = int(sys.argv[2])
piece = b"A" * 65536
print("locked", flush=True)
failed = 0
while not failed:
    for at in range(0, size, len(piece)):
        try:
            os.pwrite(file, piece, at)
        except OSError as error:
            failed = error.errno
            break
    try:
        os.fsync(file)
    except OSError as error:
        failed = failed or error.errno
print("failed", failed, flush=True)
"""


def content(path):
    with open(path, "rb") as file:
        return file.read()


def stands_still(cluster, mount):
    step("a mount stands still for twice its session time, with a lock and dirty pages")
    path = f"{cluster.mnt}/shared"
    with open(path, "wb") as file:
        file.write(b"0" * BYTES)
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, f"{MNT}/shared", str(BYTES)], stdout=subprocess.PIPE, text=True)
    check(program.stdout.readline() == "locked\n", "the program has the lock")
    file = os.open(path, os.O_RDWR)
    check(not lock(file), "two clients have the lock")
    wait_for(lambda: content(path)[:65536] == b"A" * 65536, 20, "the program writes")
    os.kill(mount.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    wait_for(lambda: lock(file), 3 * SESSION_S, "the lock of a client that has gone")
    check(time.monotonic() - stopped > SESSION_S - 2, "the lock was given away too early")
    for at in range(0, BYTES, 65536):
        check(os.pwrite(file, b"B" * 65536, at) == 65536, "written under the lock")
    os.fsync(file)
    wait_for(lambda: time.monotonic() - stopped > 2 * SESSION_S, 3 * SESSION_S, "twice the session time")
    os.kill(mount.pid, signal.SIGCONT)
    said = program.stdout.readline().split()
    check(said[:1] == ["failed"] and int(said[1]) in (errno.EIO, errno.ESTALE), f"the program that lost its lock: {said}")
    check(program.wait(20) == 0, "the program's end")
    check(content(path) == b"B" * BYTES, "what was written under the lock is as it was written")
    os.close(file)
    wait_for(lambda: content(f"{MNT}/shared") == b"B" * BYTES, 20, "the mount that stood still sees it")
    with open(os.path.join(cluster.path, "log", "sleeper.log"), encoding="utf-8") as log:
        check("session_lost" in log.read(), "the mount does not say that its session was lost")


def goes_on(cluster):
    step("it goes on in a new session")
    path = f"{MNT}/after"
    with open(path, "wb") as file:
        check(lock(file.fileno()), "a lock in the new session")
        file.write(b"after")
        file.flush()
        os.fsync(file.fileno())
    check(content(f"{cluster.mnt}/after") == b"after", "what it writes afterwards")


def killed(cluster, mount):
    step("a mount that is killed loses its locks, and its mount point is used again")
    held = os.open(f"{MNT}/shared", os.O_RDWR)
    check(lock(held), "the lock")
    mine = os.open(f"{cluster.mnt}/shared", os.O_RDWR)
    check(not lock(mine), "two clients have the lock")
    mount.kill()
    mount.wait()
    wait_for(lambda: lock(mine), 3 * SESSION_S, "the lock of a client that was killed")
    os.close(mine)
    try:
        os.close(held)
    except OSError as error:
        check(error.errno == errno.ENOTCONN, f"close: {error}")
    subprocess.run([cluster.program("granary-mount"), "--background", MNT], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   timeout=30, check=True)
    check(content(f"{MNT}/after") == b"after", "mounted over the dead mount")
    subprocess.run(["umount", MNT], timeout=30, check=True)


with Cluster(mount=True) as cluster:
    cluster.granary("admin", "set", "session-timeout-ms", f"{SESSION_S}s")
    sleeper = cluster.mount_again(MNT)
    stands_still(cluster, sleeper)
    goes_on(cluster)
    killed(cluster, sleeper)
