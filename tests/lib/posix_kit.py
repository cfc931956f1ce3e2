"""What the tests of a mount share: helpers, locks, and the running of tests (see tests/integration/posix.py)."""
import ctypes
import errno
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback

KIB, MIB = 1024, 1024 * 1024
libc = ctypes.CDLL(None, use_errno=True)
tests = []


class Skip(Exception):
    pass


def test(function):
    """Of one directory: gets the path of an empty folder."""
    tests.append((function, 1))
    return function


def test_pair(function):
    """Of two mounts: gets the path of one empty folder through each."""
    tests.append((function, 2))
    return function


def raises(number, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except OSError as error:
        assert error.errno == number, f"expected {errno.errorcode[number]}, got {errno.errorcode[error.errno]}"
        return
    raise AssertionError(f"expected {errno.errorcode[number]}, got success")


def equal(got, expected, what=""):
    assert got == expected, f"{what}: got {got!r:.200}, expected {expected!r:.200}"


def put(path, content):
    with open(path, "wb") as file:
        file.write(content)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def until(condition, seconds=5):
    """Waits for a condition, at most so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.01)


def child(function, *arguments, uid=None):
    """Runs in a process of its own and returns a handle for joined()."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if uid is not None:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        function(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def joined(pid, seconds=60):
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            equal(status, 0, "status of a child")
            return
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("a child did not end in time")
        time.sleep(0.005)


def pattern(size, seed=1):
    return random.Random(seed).randbytes(size)


def root_only():
    if os.geteuid() != 0:
        raise Skip("needs root")


def drop_caches():
    if os.geteuid() == 0:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")


def lock_range(file, kind, start=0, length=0, wait=False):
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(file, fcntl.F_SETLKW if wait else fcntl.F_SETLK, lock)


def test_range(file, kind, start=0, length=0):
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    return struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, lock))


class Told:
    """A pipe from a child: tell() there, wait() here."""

    def __init__(self):
        self.read_end, self.write_end = os.pipe()

    def tell(self):
        os.write(self.write_end, b"x")

    def wait(self):
        equal(os.read(self.read_end, 1), b"x")


def locks_between(path, other_path):
    """fcntl and flock between this process (path) and another (other_path)."""
    put(path, b"0" * 100)
    file = os.open(path, os.O_RDWR)
    ready, go = Told(), Told()

    def other():
        mine = os.open(other_path, os.O_RDWR)
        lock_range(mine, fcntl.F_WRLCK, 10, 10)
        fcntl.flock(mine, fcntl.LOCK_EX)
        ready.tell()
        go.wait()
        lock_range(mine, fcntl.F_UNLCK, 10, 5)
        ready.tell()
        go.wait()
    pid = child(other)
    ready.wait()
    for kind in (fcntl.F_WRLCK, fcntl.F_RDLCK):
        raises(errno.EAGAIN, lock_range, file, kind, 15, 1)
    lock_range(file, fcntl.F_WRLCK, 0, 10)
    lock_range(file, fcntl.F_WRLCK, 20, 0)
    kind, _, start, length, _ = test_range(file, fcntl.F_WRLCK)
    equal((kind, start, length), (fcntl.F_WRLCK, 10, 10))
    raises(errno.EAGAIN, fcntl.flock, file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    go.tell()
    ready.wait()
    lock_range(file, fcntl.F_WRLCK, 10, 5)
    raises(errno.EAGAIN, lock_range, file, fcntl.F_WRLCK, 15, 1)
    go.tell()
    lock_range(file, fcntl.F_WRLCK, 0, 0, wait=True)  # granted when the other process ends
    fcntl.flock(file, fcntl.LOCK_EX)
    joined(pid)
    os.close(os.open(path, os.O_RDONLY))  # closes a descriptor of the file: this process's fcntl locks are gone

    def free():
        mine = os.open(other_path, os.O_RDWR)
        lock_range(mine, fcntl.F_WRLCK)
    joined(child(free))
    os.close(file)


def run(function, folders):
    """Runs one test in a new folder of its name and says how it went."""
    name = function.__name__
    paths = [f"{folder}/{name}" for folder in folders]
    subprocess.run(["rm", "-rf", "--", paths[0]], check=True)
    os.mkdir(paths[0])
    start = time.monotonic()
    verdict = "ok"
    try:
        function(*paths)
    except Skip as why:
        verdict = f"skipped ({why})"
    except Exception:
        traceback.print_exc()
        verdict = "FAILED"
    print(f"{name}: {verdict} ({time.monotonic() - start:.2f} s)", flush=True)
    if verdict == "ok":
        subprocess.run(["rm", "-rf", "--", paths[0]], check=True)
    return not verdict.startswith("FAILED")


def own_cluster(script, words):
    """Brings up a cluster with two mounts, runs the script on them, takes it down."""
    from cluster import Cluster
    with Cluster(mount=True) as cluster:
        second = cluster.path + "/mnt2"
        cluster.mount_again(second)
        return subprocess.run([sys.executable, script, *words, cluster.mnt, second], check=False).returncode


def main(script, usage):
    """Runs the tests that were declared: on the folders given, or on a cluster of its own."""
    words = sys.argv[1:]
    chosen, folders = (words[1], words[2:]) if words[:1] == ["-k"] and len(words) > 1 else ("", words)
    folders = [os.path.abspath(folder) for folder in folders]
    if not folders:
        return own_cluster(script, words)
    if len(folders) > 2:
        print(usage, file=sys.stderr)
        return 2
    selected = [(f, n) for f, n in tests if chosen in f.__name__ and n <= len(folders)]
    results = [run(function, folders[:count]) for function, count in selected]
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if all(results) and results else 1
