"""A cluster of real processes, each on a host of its own (network.py), each server with a disk of its own if asked for.

Processes are started, killed, frozen, wiped and started again here and not with `granary dev`, which knows one network only. A
process that ends without our doing is noted (`deaths`): a test fails on it unless it says that it had to."""
import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import time

from cluster import BIN, DIR, check, wait_for
from network import Network, run

MASTER_PORT, CHUNKSERVER_PORT = 7001, 7101
EXT4_SHUTDOWN, EXT4_SHUTDOWN_AT_ONCE = 0x8004587d, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH: not even its journal is written
# In a log: the process has found that it is wrong itself.
CRASHES = re.compile(rb"check failed|assert|Sanitizer|runtime error:|SUMMARY:|stack smashing|double free|corrupted size|Segmentation")


class Process:
    """One daemon or mount. `command` is without the namespace."""

    def __init__(self, cluster, name, host, command, data=None):
        self.cluster, self.name, self.host, self.command, self.data = cluster, name, host, command, data
        self.log = os.path.join(cluster.path, "log", f"{name}.log")
        self.environment, self.popen, self.disk, self.may_end = {}, None, None, False

    def start(self):
        check(not self.running(), f"{self.name} runs already")
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(self.host.command(*self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=dict(os.environ, **self.environment), start_new_session=True)

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def kill(self):
        """kill -9; also of a frozen one."""
        self.note_death()
        if self.running():
            self.popen.send_signal(signal.SIGKILL)
            self.popen.wait(20)
        self.popen = None

    def terminate(self, patience=20):
        self.note_death(*self.ends_with)
        if self.running():
            self.popen.terminate()
            try:
                self.popen.wait(patience)
            except subprocess.TimeoutExpired:
                self.cluster.deaths.append(f"{self.name} does not end within {patience} s of SIGTERM")
                self.popen.kill()
                self.popen.wait(20)
            self.note_death(0)
        self.popen = None

    def freeze(self):
        if self.running():
            self.popen.send_signal(signal.SIGSTOP)

    def thaw(self):
        if self.running():
            self.popen.send_signal(signal.SIGCONT)

    ends_with = ()  # exit statuses that are no surprise at its end

    def note_death(self, *wanted):
        """It has ended by itself: remembered, unless it may."""
        if self.popen is not None and self.popen.poll() is not None:
            if not self.may_end and self.popen.returncode not in wanted:
                self.cluster.deaths.append(f"{self.name} ended by itself: {self.popen.returncode} (see {self.log})")
            self.popen = None

    def wipe(self):
        """Its disk is replaced by an empty one."""
        check(not self.running() and self.data, f"wipe of {self.name}")
        for entry in os.listdir(self.data):
            if entry != "lost+found":
                run("rm", "-rf", os.path.join(self.data, entry))

    def fill(self, leave):
        """The disk runs full but for so many bytes; empty() ends that. Others write meanwhile."""
        with open(os.path.join(self.data, "filler"), "ab") as filler:
            for _ in range(64):
                space = os.fstatvfs(filler.fileno())
                more = space.f_bavail * space.f_frsize - leave
                if more <= 0:
                    return
                with contextlib.suppress(OSError):
                    os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, max(4096, more * 15 // 16))

    def empty(self):
        filler = os.path.join(self.data, "filler")
        if os.path.exists(filler):
            os.unlink(filler)

    def files(self, pattern):
        """Those under the data folder whose path there matches, in order."""
        found = []
        for folder, _, names in os.walk(self.data):
            found += [os.path.join(folder, n) for n in names]
        return sorted(f for f in found if re.search(pattern, os.path.relpath(f, self.data)))


class Mount(Process):
    ends_with = (0,)  # when it is unmounted

    def __init__(self, cluster, name, host, options=()):
        self.path = os.path.join(cluster.path, name)
        os.makedirs(self.path, exist_ok=True)
        super().__init__(cluster, name, host, [os.path.join(BIN, "granary-mount"), "--cluster", cluster.addresses, *options, self.path])
        self.troubles = []  # times [from, to] within which it may have lost what was not synced
        # What is written to while the mount is away must fail and not land on the disk below.
        run("mount", "-t", "tmpfs", "-o", "ro", "none", self.path)

    def is_mounted(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            return any(f" {self.path} " in line and " - fuse" in line for line in file)

    def start(self):
        before = os.path.getsize(self.log) if os.path.exists(self.log) else 0
        super().start()
        wait_for(lambda: self.ready(before) or not self.running(), 40, f"{self.name} to be mounted")
        check(self.running(), f"{self.name} does not start: see {self.log}")

    def trouble(self, begins):
        """From now on, or no more, it may lose what was not synced; `told` passes it on."""
        if begins:
            self.troubles.append((time.monotonic(), float("inf")))
        else:
            self.troubles[-1] = self.troubles[-1][0], time.monotonic()
        if self.told:
            self.told(self.name, self.troubles)

    told = None

    def detach(self):
        if self.is_mounted():
            subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)

    def ready(self, before):
        """Says so itself in its log; asking the file system could block."""
        with open(self.log, "rb") as log:
            log.seek(before)
            return self.is_mounted() and b" ready " in log.read()

    def kill(self):
        self.trouble(True)
        super().kill()
        self.trouble(False)
        self.detach()

    def terminate(self, patience=40):
        if self.running() and self.is_mounted():
            subprocess.run(["umount", self.path], capture_output=True, check=False, timeout=patience)
        super().terminate(patience)
        self.detach()


class HostCluster:
    def __init__(self, masters=3, chunkservers=5, mounts=2, disk_bytes=0, options=None):
        """options: role ("master", "chunkserver", "mount") to words of its command line."""
        options = options or {}
        self.path = os.path.join(DIR, "cluster")
        for folder in ("log", "data", "disk"):
            os.makedirs(os.path.join(self.path, folder), exist_ok=True)
        self.network, self.deaths, self.processes, self.drained = Network(), [], {}, None
        hosts = {f"master-{n + 1}": None for n in range(masters)}
        hosts.update({f"chunkserver-{n + 1}": None for n in range(chunkservers)})
        hosts.update({f"mount-{n + 1}": None for n in range(mounts)})
        self.hosts = {name: self.network.host(name) for name in hosts}
        self.client = self.network.host("client")
        members = [(n + 1, f"{self.hosts[f'master-{n + 1}'].address}:{MASTER_PORT}") for n in range(masters)]
        self.addresses = ",".join(a for _, a in members)
        self.masters = [self.add(f"master-{n}", "granary-master", "--listen", address, "--id", str(n), "--members",
                                 ",".join(f"{i}={a}" for i, a in members), *options.get("master", ())) for n, address in members]
        self.chunkservers = [self.add(f"chunkserver-{n + 1}", "granary-chunkserver", "--listen",
                                      f"{self.hosts[f'chunkserver-{n + 1}'].address}:{CHUNKSERVER_PORT}", "--masters", self.addresses,
                                      "--host", f"chunkserver-{n + 1}", *options.get("chunkserver", ())) for n in range(chunkservers)]
        self.mounts = []
        for n in range(mounts):
            mount = Mount(self, f"mount-{n + 1}", self.hosts[f"mount-{n + 1}"], options.get("mount", ()))
            self.mounts.append(mount)
            self.processes[mount.name] = mount
        self.servers = self.masters + self.chunkservers
        if disk_bytes:
            self.make_disks(disk_bytes)

    def add(self, name, program, *words):
        data = os.path.join(self.path, "data", name)
        os.makedirs(data, exist_ok=True)
        self.processes[name] = Process(self, name, self.hosts[name], [os.path.join(BIN, program), "--data", data, *words], data)
        return self.processes[name]

    def make_disks(self, size):
        for process in self.servers:
            process.disk = os.path.join(self.path, "disk", process.name)
            with open(process.disk, "wb") as file:
                file.truncate(size)
            run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", process.disk)
            run("mount", "-o", "loop", process.disk, process.data)

    def power_cut(self):
        """All processes and disks go off at once: a disk keeps what it was made to keep, and what ext4 had written by then. Needs disks."""
        for process in self.processes.values():
            process.freeze()
        for process in self.servers:
            folder = os.open(process.data, os.O_RDONLY)
            fcntl.ioctl(folder, EXT4_SHUTDOWN, struct.pack("I", EXT4_SHUTDOWN_AT_ONCE))
            os.close(folder)
        for process in self.processes.values():
            process.kill()
        for process in self.servers:
            run("umount", process.data)
            run("mount", "-o", "loop", process.disk, process.data)

    def up(self):
        for process in self.servers:
            process.start()
        self.wait_ready(40)
        for mount in self.mounts:
            mount.start()

    def down(self):
        """In order; what does not end is noted."""
        self.network.heal()
        for process in self.processes.values():
            process.thaw()
        for process in self.mounts + self.chunkservers + self.masters:
            process.terminate()
        for mount in self.mounts:
            subprocess.run(["umount", "-l", mount.path], capture_output=True, check=False)
        for process in self.servers:
            if process.disk:
                subprocess.run(["umount", "-l", process.data], capture_output=True, check=False)

    def granary(self, *words, data=None, timeout=90, host=None):
        """Runs granary as a client; (exit status, output, complaint)."""
        command = (host or self.client).command(os.path.join(BIN, "granary"), "--cluster", self.addresses, *words)
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout, check=False)
        return done.returncode, done.stdout, done.stderr.decode(errors="replace").strip()

    def status(self, timeout="2s"):
        """None: no answer."""
        code, out, _ = self.granary("--timeout", timeout, "admin", "status", "--json")
        return json.loads(out) if code == 0 else None

    def admin(self, *words):
        code, _, complaint = self.granary("admin", *words)
        check(code == 0, f"admin {' '.join(words)}: {complaint}")

    def drain(self, chunkserver):
        self.drained = f"{chunkserver.host.address}:{CHUNKSERVER_PORT}"
        self.admin("drain", self.drained)

    def undrain(self):
        if self.drained:
            self.admin("undrain", self.drained)
        self.drained = None

    def leader(self):
        """The process of the leading master."""
        status = wait_for(self.status, 30, "a leader")
        return self.masters[status["leader"] - 1]

    def by_address(self, address):
        return next((c for c in self.chunkservers if f"{c.host.address}:{CHUNKSERVER_PORT}" == address), None)

    def ready(self):
        """A leader answers and has heard all chunkservers that run."""
        status = self.status()
        up = {s["address"] for s in status["servers"] if s["up"] and not s["failed"]} if status else set()
        wanted = {f"{c.host.address}:{CHUNKSERVER_PORT}" for c in self.chunkservers if c.running()}
        return status if status and wanted <= up else None

    def wait_ready(self, seconds):
        return wait_for(self.ready, seconds, "a leader that has heard all chunkservers")

    def crashes(self):
        """What went wrong by itself so far: processes that ended, logs that say so."""
        for process in self.processes.values():
            process.note_death()
        found = list(self.deaths)
        for process in self.processes.values():
            if os.path.exists(process.log):
                with open(process.log, "rb") as log:
                    found += [f"{process.name}: {line.decode(errors='replace')}" for line in log.read().splitlines() if CRASHES.search(line)]
        return found
