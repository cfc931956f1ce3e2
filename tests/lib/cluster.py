"""For integration tests in Python: a cluster under $TEST_DIR that is taken down at the end, and waiting for conditions.

    from cluster import Cluster, check, wait_for
    with Cluster(mount=True) as cluster: ...

By hand: tests/integration/kill.py uses build/dev/bin and a folder of its own under /tmp."""
import atexit
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
BIN = os.environ.get("GRANARY_BIN", os.path.join(ROOT, "build/dev/bin"))
DIR = os.environ.get("TEST_DIR") or tempfile.mkdtemp(prefix="granary-test-")
SKIPPED = 77


@atexit.register
def leave_no_empty_folder():
    """Behind --help, --list and words that are not understood."""
    if "TEST_DIR" not in os.environ:
        with contextlib.suppress(OSError):
            os.rmdir(DIR)


def stop(number, frame):
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, stop)


def step(text):
    print(f"== {text}", flush=True)


def skip(why):
    print(why)
    sys.exit(SKIPPED)


def check(condition, what):
    """Not assert: it must fail under any options of the interpreter, and say what was seen."""
    if not condition:
        raise AssertionError(what)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data, mode="wb"):
    with open(path, mode) as file:
        file.write(data)


def fails(number, function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        check(error.errno == number, f"{function.__name__}{arguments}: {error}, not {errno.errorcode[number]}")
        return
    raise AssertionError(f"{function.__name__}{arguments} went well, {errno.errorcode[number]} was expected")


def ends(missed):
    """The end of a benchmark: says what was missed and leaves no folder behind; its exit status."""
    for line in missed:
        print(f"MISSED {line}")
    if "TEST_DIR" not in os.environ:
        shutil.rmtree(DIR, ignore_errors=True)
    return 1 if missed else 0


def wait_for(condition, seconds, what):
    """The first true value of condition()."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)


class Cluster:
    def __init__(self, mount=False, masters=3, chunkservers=4, sets=()):
        self.path = os.path.join(DIR, "cluster")
        self.mnt = os.path.join(self.path, "mnt") if mount else None
        self.options = ["--masters", str(masters), "--chunkservers", str(chunkservers)]
        self.options += ["--mount", self.mnt] if mount else []
        self.options += [word for s in sets for word in ("--set", s)]
        self.extra = []
        os.environ.pop("GRANARY_CLUSTER", None)
        os.environ["GRANARY_CONFIG"] = os.path.join(self.path, "client.conf")

    def __enter__(self):
        self.up(*self.options)
        return self

    def __exit__(self, kind, value, trace):
        for process in self.extra:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        if kind is not None:
            subprocess.run([self.program("granary"), "dev", "status", self.path], check=False)
            subprocess.run(f"tail -n 30 {self.path}/log/*.log", shell=True, check=False)
        self.dev("down", check_status=False)

    @staticmethod
    def program(name):
        return os.path.join(BIN, name)

    def up(self, *options):
        self.dev("up", *options)

    def dev(self, command, *words, check_status=True):
        """granary dev COMMAND DIR WORDS; options go behind."""
        done = subprocess.run([self.program("granary"), "dev", command, self.path, *words], capture_output=True, timeout=90, check=False)
        if check_status:
            check(done.returncode == 0, f"dev {command} {words}: {done.returncode}: {done.stderr.decode(errors='replace')}")

    def granary(self, *words, data=None, status=0, timeout=90):
        """Runs granary; its standard output as bytes."""
        done = subprocess.run([self.program("granary"), *words], input=data, capture_output=True, timeout=timeout, check=False)
        check(done.returncode == status,
              f"granary {' '.join(words)}: exited with {done.returncode}, not {status}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def status(self):
        return json.loads(self.granary("admin", "status", "--json"))

    def leader(self):
        """Number of the leading master."""
        return json.loads(self.granary("admin", "raft", "status", "--json"))["leader"]

    def processes(self):
        done = subprocess.run([self.program("granary"), "dev", "status", self.path, "--json"], capture_output=True, check=False)
        return {p["name"]: p for p in json.loads(done.stdout)}

    def addresses(self):
        return ",".join(p["address"] for name, p in self.processes().items() if name.startswith("master"))

    def mount_again(self, path, *options):
        """Another mount, a client of its own; its process."""
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(self.path, "log", os.path.basename(path) + ".log"), "ab") as log:
            process = subprocess.Popen([self.program("granary-mount"), "--cluster", self.addresses(), *options, path], stdout=log, stderr=log)
        self.extra.append(process)
        wait_for(lambda: os.path.ismount(path), 10, f"mount at {path}")
        os.statvfs(path)
        return process

    def unmount(self, path, process):
        process.terminate()
        process.wait(20)
        self.extra.remove(process)
        wait_for(lambda: not os.path.ismount(path), 10, f"{path} to be unmounted")


class DiskCluster(Cluster):
    """Each chunkserver has a small ext4 of its own, of so many bytes; more of them than there are chunkservers at first."""

    def __init__(self, disks, **options):
        super().__init__(**options)
        self.disks = disks

    def __enter__(self):
        for number, size in enumerate(self.disks, 1):
            image, place = os.path.join(DIR, f"disk-{number}"), self.disk(number)
            os.makedirs(place)
            with open(image, "wb") as file:
                file.truncate(size)
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
            done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, check=False)
            if done.returncode:
                self.unmount_disks()
                skip(f"no loop mounts here: {done.stderr.decode(errors='replace')}")
        return super().__enter__()

    def __exit__(self, kind, value, trace):
        super().__exit__(kind, value, trace)
        self.unmount_disks()

    def disk(self, number):
        return os.path.join(self.path, "data", f"chunkserver-{number}")

    def unmount_disks(self):
        for number in range(1, len(self.disks) + 1):
            if os.path.ismount(self.disk(number)):
                subprocess.run(["umount", "-l", self.disk(number)], check=False)
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(DIR, f"disk-{number}"))


class Writer(threading.Thread):
    """Writes numbered blocks to a file, synced each, at most `rate` a second, and notes its pauses."""
    BLOCK = 256 << 10

    def __init__(self, path, rate=40):
        super().__init__(daemon=True)
        self.path, self.rate, self.blocks, self.error = path, rate, 0, None
        self.ending = threading.Event()
        self.times = [time.monotonic()]

    @classmethod
    def content(cls, number):
        return number.to_bytes(8, "little") * (cls.BLOCK // 8)

    def run(self):
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            while not self.ending.is_set():
                check(os.pwrite(descriptor, self.content(self.blocks), self.blocks * self.BLOCK) == self.BLOCK, "short write")
                os.fdatasync(descriptor)
                self.blocks += 1
                self.times.append(time.monotonic())
                self.ending.wait(1 / self.rate)
            os.close(descriptor)
        except (OSError, AssertionError) as error:
            self.error = error

    def longest_pause(self, since):
        times = [t for t in self.times if t >= since]
        before = [t for t in self.times if t < since]
        times = before[-1:] + times + [time.monotonic()]
        return max(b - a for a, b in zip(times, times[1:]))

    def progress(self, blocks, seconds):
        """Waits until it has written so many more."""
        goal = self.blocks + blocks
        wait_for(lambda: self.blocks >= goal or self.error, seconds, f"{blocks} more blocks in {self.path}")
        check(not self.error, f"writing {self.path}: {self.error}")

    def finish(self):
        self.ending.set()
        self.join(60)
        check(not self.is_alive(), f"the writer of {self.path} hangs")
        check(not self.error, f"writing {self.path}: {self.error}")

    def verify(self, path=None):
        """Every block that was synced is there."""
        with open(path or self.path, "rb") as file:
            for number in range(self.blocks):
                check(file.read(self.BLOCK) == self.content(number), f"{path or self.path}: block {number} is not what was synced")
