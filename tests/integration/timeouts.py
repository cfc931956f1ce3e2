#!/usr/bin/env python3
"""A mount whose cluster is away: operations end with ETIMEDOUT in time, signals and umount are answered, all goes on when it is back."""
# test: timeout=200
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, step, wait_for  # noqa: E402

MNT = os.path.join(DIR, "away")
TIMEOUT_S = 4
SLACK_S = 3

ACT = """
import os, sys
words = sys.argv[1:]
try:
    exec(words[0])
except OSError as error:
    sys.exit(error.errno)
"""


def start(code, *words):
    """A process of its own: one that hangs does not take the test with it."""
    return subprocess.Popen([sys.executable, "-c", ACT, code, *words], stderr=subprocess.DEVNULL)


def act(code, *words, status=0, seconds=TIMEOUT_S + SLACK_S, least=0.0):
    process = start(code, *words)
    began = time.monotonic()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"{code} {words}: still waiting after {seconds} s") from None
    took = time.monotonic() - began
    check(process.returncode == status, f"{code} {words}: ended with {process.returncode}, not {status}, after {took:.1f} s")
    check(took >= least, f"{code} {words}: ended after {took:.1f} s already")


STAT = "os.stat(words[1])"
FSYNC = "f = os.open(words[1], os.O_WRONLY); os.pwrite(f, words[2].encode() * 65536, 0); os.fsync(f)"
READ = "f = os.open(words[1], os.O_RDONLY); os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED); os.read(f, 65536)"


@contextlib.contextmanager
def away(cluster, *kinds):
    """Every process of these kinds stands still."""
    pids = [p["pid"] for name, p in cluster.processes().items() if name.startswith(kinds)]
    check(len(pids) >= 3, f"processes: {pids}")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def signals(path):
    step("a process that waits for the cluster is ended by a signal")
    deadly = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); {STAT}"
    # Python leaves a signal alone that is ignored when it starts, as in the background of a shell.
    caught = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {STAT}"
    for code, number, most in ((deadly, signal.SIGINT, 1.5), (STAT, signal.SIGKILL, 1.5), (caught, signal.SIGINT, 3.6)):
        process = start(code, path)
        wait_for(lambda pid=process.pid: is_in_fuse(pid), 3, "the process waits for the mount")
        process.send_signal(number)
        began = time.monotonic()
        process.wait(TIMEOUT_S + SLACK_S)
        took = time.monotonic() - began
        check(took < most, f"ended {took:.1f} s after signal {number}")


def is_in_fuse(pid):
    with open(f"/proc/{pid}/wchan", "rb") as file:
        return b"request_wait_answer" in file.read()


def masters_away(cluster):
    step("all masters stand still")
    with away(cluster, "master"):
        act(STAT, f"{MNT}/none", status=errno.ETIMEDOUT, least=1)
        act("os.rename(words[1], words[1] + 'x')", f"{MNT}/dir/name", status=errno.ETIMEDOUT)
        signals(f"{MNT}/none2")
    wait_for(lambda: not os.path.exists(f"{MNT}/none"), 20, "answers again")
    act("os.mkdir(words[1])", f"{MNT}/made", seconds=20)
    check("made" in os.listdir(cluster.mnt), "what was made is seen by the other mount")


def chunkservers_away(cluster):
    step("all chunkservers stand still")
    for i in range(3):
        with open(f"{cluster.mnt}/data{i}", "wb") as file:
            file.write(b"%d" % i * (1 << 20))
    with away(cluster, "chunkserver"):
        act(READ, f"{MNT}/data0", status=errno.ETIMEDOUT, least=1)
        # Writing back what was accepted has failed: the kernel calls that EIO.
        process = start(FSYNC, f"{MNT}/data1", "A")
        check(process.wait(3 * TIMEOUT_S + SLACK_S) in (errno.ETIMEDOUT, errno.EIO), f"fsync ended with {process.returncode}")
    wait_for(lambda: start(READ, f"{MNT}/data0").wait(30) == 0, 30, "reads again")
    wait_for(lambda: start(FSYNC, f"{MNT}/data1", "B").wait(30) == 0, 30, "writes again")
    with open(f"{cluster.mnt}/data1", "rb") as file:
        data = file.read()
    check(data == b"B" * 65536 + b"1" * ((1 << 20) - 65536), "what was synced after the failure is what is there")


def ends(cluster, process):
    step("SIGTERM ends the mount while nothing answers")
    with away(cluster, "master", "chunkserver"):
        process.terminate()
        began = time.monotonic()
        process.wait(30)
        check(time.monotonic() - began < 25, "it took too long")
        check(not os.path.ismount(MNT), "the mount point is left behind")
    wait_for(lambda: start(READ, f"{cluster.mnt}/data2").wait(30) == 0, 30, "the other mount goes on")


with Cluster(mount=True) as cluster:
    process = cluster.mount_again(MNT, "--timeout", f"{TIMEOUT_S}s")
    os.mkdir(f"{cluster.mnt}/dir")
    with open(f"{cluster.mnt}/dir/name", "wb") as file:
        file.write(b"name")
    masters_away(cluster)
    chunkservers_away(cluster)
    ends(cluster, process)
