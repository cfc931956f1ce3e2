#!/usr/bin/env python3
"""The life of granary-mount: exit statuses, background, end with dirty data, kill -9 and a new start, lost sessions."""
# test: timeout=240
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, step, wait_for  # noqa: E402

MNT = os.path.join(DIR, "life")


def mount(cluster, *options, status=0):
    """In the background: returns when the mount works; the number of its process."""
    log = os.path.join(cluster.path, "log", "life.log")
    with open(log, "ab") as file:
        place = file.tell()
        done = subprocess.run([cluster.program("granary-mount"), "--background", *options, MNT], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=file, timeout=60, check=False)
    with open(log, "rb") as file:
        file.seek(place)
        said = file.read().decode()
    check(done.returncode == status, f"granary-mount {options}: exited with {done.returncode}, not {status}: {said}")
    if status == 0:
        check(" ready " in said, f"no line says ready: {said}")
        return process_of(cluster)
    check(said.startswith("granary-mount: ") or "granary-mount: " in said, f"no message: {said}")
    return None


def process_of(cluster):
    """The process whose last argument is MNT."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[0] == cluster.program("granary-mount").encode() and words[-2:-1] == [MNT.encode()]:
            found.append(int(pid))
    check(len(found) == 1, f"processes of the mount: {found}")
    return found[0]


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return b") Z " in file.read()
    except OSError:
        return True


def is_dead_mount():
    try:
        os.stat(MNT)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def fails(number, function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        check(error.errno == number, f"{function.__name__}: {error}, not {errno.errorcode[number]}")
        return
    raise AssertionError(f"{function.__name__}{arguments} went well, {errno.errorcode[number]} was expected")


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def statuses(cluster):
    step("exit statuses")
    mount(cluster, "--no-such-option", status=2)
    mount(cluster, "--log-level", "loud", status=2)
    mount(cluster, "--log-format", "xml", status=2)
    mount(cluster, "-o", "no_such_fuse_option", status=2)
    mount(cluster, "--cluster", "127.0.0.1:1", "--timeout", "500ms", status=4)
    check(not os.path.ismount(MNT), "a mount that failed is left behind")
    done = subprocess.run([cluster.program("granary-mount"), DIR + "/missing"], capture_output=True, timeout=30, check=False)
    check(done.returncode == 1 and b"missing" in done.stderr, f"a missing folder: {done}")


def read_only(cluster):
    step("--read-only")
    put(f"{cluster.mnt}/there", b"there")
    pid = mount(cluster, "--read-only")
    check(get(f"{MNT}/there") == b"there", "content through a mount that is read-only")
    fails(errno.EROFS, put, f"{MNT}/new", b"")
    fails(errno.EROFS, os.mkdir, f"{MNT}/new")
    fails(errno.EROFS, os.unlink, f"{MNT}/there")
    subprocess.run(["umount", MNT], check=True)
    wait_for(lambda: is_gone(pid), 20, "end of the process after umount")


def ends_without_loss(cluster):
    step("SIGTERM while a file is open and not written out")
    pid = mount(cluster)
    small, large = b"small" * 100, os.urandom(3 << 20)
    with open(f"{MNT}/small", "wb", buffering=0) as one, open(f"{MNT}/large", "wb", buffering=0) as two:
        one.write(small)
        two.write(large)
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.ismount(MNT), 20, "unmounting")
    wait_for(lambda: is_gone(pid), 20, "end of the process")
    check(get(f"{cluster.mnt}/small") == small, "the small file after SIGTERM")
    check(get(f"{cluster.mnt}/large") == large, "the large file after SIGTERM")
    step("umount with data in memory")
    pid = mount(cluster)
    put(f"{MNT}/again", large)
    subprocess.run(["umount", MNT], check=True)
    wait_for(lambda: is_gone(pid), 20, "end of the process after umount")
    check(get(f"{cluster.mnt}/again") == large, "the file after umount")
    with_status = cluster.status()
    check(with_status["sessions"] == 1, f"sessions: {with_status['sessions']}, not that of the other mount alone")


def ends_alone(cluster):
    step("umount while no master answers")
    pid = mount(cluster, "--timeout", "2s")
    for number in range(1, 4):
        cluster.dev("stop", "master", str(number))
    try:
        subprocess.run(["umount", MNT], check=True, timeout=20)
        wait_for(lambda: is_gone(pid), 10, "end of the process")
    finally:
        for number in range(1, 4):
            cluster.dev("cont", "master", str(number))


def recovers(cluster):
    step("kill -9, with a file open; a new one takes the mount point over")
    pid = mount(cluster)
    put(f"{MNT}/kept", b"kept")
    descriptor = os.open(f"{MNT}/kept", os.O_RDONLY)
    os.kill(pid, signal.SIGKILL)
    wait_for(is_dead_mount, 20, "ENOTCONN")
    pid = mount(cluster)
    check(get(f"{MNT}/kept") == b"kept", "content after the new start")
    fails(errno.ENOTCONN, os.close, descriptor)
    step("kill -9 and umount -l")
    os.kill(pid, signal.SIGKILL)
    wait_for(is_dead_mount, 20, "ENOTCONN")
    subprocess.run(["umount", "-l", MNT], check=True)
    check(not os.path.ismount(MNT), "still mounted")


def loses_data(cluster):
    step("data that could not be stored: the writer is told, and nobody is shown it, here or elsewhere")
    pid = mount(cluster, "--timeout", "2s")
    put(f"{MNT}/lossy", b"old")
    for number in range(1, 5):
        cluster.dev("kill", "chunkserver", str(number))
    descriptor = os.open(f"{MNT}/lossy", os.O_RDWR)
    os.pwrite(descriptor, b"new and longer", 0)
    try:
        os.fsync(descriptor)
        told = False
    except OSError:
        told = True
    try:
        os.close(descriptor)
    except OSError:
        told = True
    check(told, "neither fsync nor close told of lost data")
    for number in range(1, 5):
        cluster.dev("restart", "chunkserver", str(number))
    wait_for(lambda: get(f"{cluster.mnt}/lossy") == b"old", 20, "the old content through another mount")
    check(os.stat(f"{MNT}/lossy").st_size == 3, f"size after a failed write: {os.stat(f'{MNT}/lossy').st_size}")
    check(get(f"{MNT}/lossy") == b"old", f"content after a failed write: {get(f'{MNT}/lossy')}")
    subprocess.run(["umount", MNT], check=True)
    wait_for(lambda: is_gone(pid), 20, "end of the process")


def loses_its_session(cluster):
    step("stopped for longer than its session: its lock goes to another, what it writes under it is refused")
    pid = mount(cluster)
    mine = os.open(f"{MNT}/lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.lockf(mine, fcntl.LOCK_EX)
    os.write(mine, b"mine")
    os.fsync(mine)
    os.kill(pid, signal.SIGSTOP)
    other = os.open(f"{cluster.mnt}/lock", os.O_RDWR)

    def granted():
        try:
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    check(not granted(), "two hold an exclusive lock")
    wait_for(granted, 40, "the lock of a session that has expired")
    os.write(other, b"OTHER")
    os.fsync(other)
    os.kill(pid, signal.SIGCONT)

    def refused():
        try:
            os.pwrite(mine, b"late", 0)
            os.fsync(mine)
        except OSError as error:
            return error.errno == errno.EIO
        return False
    check(wait_for(refused, 10, "refusal of a write without the lock"), "refused")
    fails(errno.EIO, os.close, mine)
    os.close(other)
    for path in (cluster.mnt, MNT):
        check(get(f"{path}/lock") == b"OTHER", f"{path}: {get(f'{path}/lock')}")
    subprocess.run(["umount", MNT], check=True)
    wait_for(lambda: is_gone(pid), 20, "end of the process")


os.mkdir(MNT)
with Cluster(mount=True) as the_cluster:
    try:
        statuses(the_cluster)
        read_only(the_cluster)
        ends_without_loss(the_cluster)
        ends_alone(the_cluster)
        recovers(the_cluster)
        loses_data(the_cluster)
        loses_its_session(the_cluster)
    finally:
        if os.path.ismount(MNT) or is_dead_mount():
            subprocess.run(["umount", "-l", MNT], check=False)
