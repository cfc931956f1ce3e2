"""Scenarios of clients, and of the whole cluster under them. See scene.py."""
import contextlib
import fcntl
import hashlib
import os
import random
import subprocess
import sys
import threading
import time

from cluster import Writer, check, read, wait_for, write
from scene import PAUSE_S, Scene, measures, pass_time
from shim import Shim


def scenario_17_client_stopped():
    """Client stopped for twice its session time with dirty pages and locks: others get the locks, its later writes are refused; a killed
    mount process: the mount point recovers.

    A mount is frozen for twice its session's time with dirty pages and a lock: others get the lock, what it writes later is refused."""
    with Scene() as scene:
        cluster = scene.cluster
        seconds = 20
        if cluster.granary("admin", "set", "session_timeout_ms", "5s")[0] == 0:
            seconds = 5
        frozen, other = cluster.mounts
        paths = [os.path.join(m.path, "locked") for m in (frozen, other)]
        write(paths[0], b"a" * 8192)
        holder = subprocess.Popen([sys.executable, "-c", """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX)
os.pwrite(fd, b"A" * 8192, 0)
print("locked", flush=True)
sys.stdin.readline()
try:
    os.pwrite(fd, b"Z" * 8192, 0)
    os.fsync(fd)
    print("written", flush=True)
except OSError as error:
    print("refused", error.errno, flush=True)
""", paths[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        check(holder.stdout.readline() == b"locked\n", "the first holder has the lock")
        frozen.freeze()
        frozen.trouble(True)
        since = time.monotonic()
        with open(paths[1], "r+b", buffering=0) as file:
            while True:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    check(time.monotonic() - since < 3 * seconds, "the lock of a frozen client is never given up")
                    pass_time(0.1)
            print(f"   the lock was free after {time.monotonic() - since:.1f} s", flush=True)
            file.write(b"B" * 8192)
            os.fsync(file.fileno())
            pass_time(max(0, since + 2 * seconds - time.monotonic()))
            frozen.thaw()
            holder.stdin.write(b"go\n")
            holder.stdin.flush()
            said = holder.stdout.readline().decode().strip()
            print(f"   the frozen one's later write: {said}", flush=True)
            check(said.startswith("refused"), "a write under a lost lock went well")
            for _ in range(5):
                check(scene.granary("cat", "/locked") == b"B" * 8192, "the write of one who lost his lock is there")
        holder.wait(20)
        # and it recovers
        wait_for(lambda: read(paths[0]) == b"B" * 8192, 30, "the mount that was frozen to read again")
        write(os.path.join(frozen.path, "afterwards"), b"c")
        check(scene.granary("cat", "/afterwards") == b"c", "a write after recovery")


@measures
def scenario_19_clock_jumps():
    """Clock jumps of an hour either way; a clock at half speed on one node.

    The wall clock of a master, a chunkserver, a mount jumps an hour ahead and back, one node's clocks run at half speed: nobody
    notices."""
    shims = {}

    def prepare(cluster):
        shims.update({p.name: Shim(p) for p in cluster.processes.values()})
        shims["chunkserver-5"].set(rate_permille=500)
    with Scene(prepare) as scene:
        cluster = scene.cluster
        writer = scene.writer("writer")
        leader = cluster.leader()
        follower = next(m for m in cluster.masters if m is not leader)
        term, since = cluster.status()["term"], time.monotonic()
        for process in (leader, follower, cluster.chunkservers[0], cluster.mounts[1]):
            for hours in (1, -1, 0):
                shims[process.name].set(wall_offset_ms=hours * 3_600_000)
                path = os.path.join(cluster.mounts[1].path, f"{process.name}{hours}")
                write(path, b"t" * 100_000)
                check(read(os.path.join(cluster.mounts[0].path, f"{process.name}{hours}")) == b"t" * 100_000, f"a file made at {hours} h")
                pass_time(0.7)
        scene.goes_on(writer, since, PAUSE_S, "clocks that jump")
        check(cluster.status()["term"] == term, "an election because of a wall clock")
        shims[leader.name].set(wall_offset_ms=-3_600_000)
        ids = [scene.granary("put", "--id", "-", data=b"i%d" % n).strip() for n in range(5)]
        leader.kill()
        cluster.wait_ready(30)
        ids += [scene.granary("put", "--id", "-", data=b"i%d" % n).strip() for n in range(5, 10)]
        check(len(set(ids)) == 10, f"ids were given out twice: {ids}")
        for number, name in enumerate(ids):
            check(scene.granary("get", name.decode(), "-") == b"i%d" % number, f"blob {name}")


def scenario_21_closed_is_seen():
    """A file that was closed through one mount is seen whole through another.

    A file is closed on one mount while chunkservers are silent: whoever looks through another mount waits for it, and sees it whole."""
    with Scene() as scene:
        cluster = scene.cluster
        here, there = (m.path for m in cluster.mounts)
        os.mkdir(f"{here}/folder")
        write(f"{here}/folder/first", b"1")  # now the folder is delegated to this mount, and there is a pack to append to
        check(os.listdir(f"{there}/folder") == ["first"], "the folder elsewhere")
        pass_time(1.5)  # the other mount's caches have run out
        write(f"{here}/folder/second", b"2")
        for server in cluster.chunkservers:
            server.freeze()
        write(f"{here}/folder/third", b"3" * 1000)
        pass_time(0.8)
        seen = {}

        def look():
            started = time.monotonic()
            try:
                seen["third"] = read(f"{there}/folder/third")
            except OSError as error:
                seen["third"] = error
            seen["after"] = time.monotonic() - started
        thread = threading.Thread(target=look)
        thread.start()
        pass_time(3)
        for server in cluster.chunkservers:
            server.thaw()
        thread.join(40)
        print(f"   seen after {seen['after']:.2f} s: {seen['third'][:8] if isinstance(seen['third'], bytes) else seen['third']}", flush=True)
        check(seen["third"] == b"3" * 1000, f"a file that was closed on the other mount: {seen['third']}")


def scenario_01_power_cut():
    """Power cut of everything at a random instant under create, rename, overwrite, fsync, cooling.

    Twice all disks go off at once with all processes, mounts too; what ext4 had not been made to keep is gone. What was put, synced or
    renamed is there, whole, on both mounts."""
    with Scene(disk_bytes=512 << 20) as scene:
        cluster = scene.cluster
        past = []
        for cut in range(2):
            here = cluster.mounts[0].path
            workers = [Putter(cluster, f"/put-{cut}-{n}", 10 * cut + n) for n in range(2)]
            workers += [Namer(f"{here}/names-{cut}"), Overwriter(f"{here}/over-{cut}", cut)]
            writer = Writer(f"{here}/synced-{cut}", rate=1000)
            for thread in [*workers, writer]:
                thread.start()
            wait_for(lambda: all(w.acknowledged_count() >= w.ENOUGH for w in workers) and writer.blocks >= 40, 60, "some acknowledged work")
            cluster.power_cut()
            for thread in [*workers, writer]:
                thread.ending.set()
            cluster.up()
            for thread in [*workers, writer]:
                thread.join(30)
                check(not thread.is_alive(), "a client hangs after the power cut")
            past += workers
            for mount in cluster.mounts:
                writer.verify(os.path.join(mount.path, os.path.basename(writer.path)))
                for worker in past:
                    worker.verify(mount.path)
            print(f"   {writer.blocks} synced blocks; " + ", ".join(f"{type(w).__name__} {w.acknowledged_count()}" for w in workers), flush=True)
        wait_for(lambda: cluster.status()["safe"], 30, "all to be safe")


class Putter(threading.Thread):
    """Puts blobs until the power goes; `acknowledged` is what must be there afterwards, what was under way is there whole or not."""
    ENOUGH = 6

    def __init__(self, cluster, prefix, seed):
        super().__init__(daemon=True)
        self.cluster, self.prefix, self.random = cluster, prefix, random.Random(seed)
        self.acknowledged, self.under_way, self.ending = {}, None, threading.Event()

    def run(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            path = f"{self.prefix}-{number}"
            data = self.random.randbytes(self.random.choice([1, 100, 4096, 70000, 262144, 262145, 900000]))
            self.under_way = path, data
            if self.cluster.granary("--timeout", "2s", "put", "-", path, data=data)[0] == 0:
                self.acknowledged[path] = hashlib.sha256(data).digest()

    def acknowledged_count(self):
        return len(self.acknowledged)

    def verify(self, folder):
        for path, digest in self.acknowledged.items():
            check(hashlib.sha256(read(folder + path)).digest() == digest, f"{path} is not what was put")
        path, data = self.under_way
        if path not in self.acknowledged and os.path.exists(folder + path):
            check(read(folder + path) == data, f"{path} is half there")


class Namer(threading.Thread):
    """Through the mount: a synced file under a temporary name, renamed over the last one, its directory synced."""
    ENOUGH = 15

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.ending, self.acknowledged = folder, threading.Event(), 0

    def run(self):
        with contextlib.suppress(OSError):  # the mount is gone: that is the end
            os.mkdir(self.folder)
            directory = os.open(self.folder, os.O_RDONLY)
            while not self.ending.is_set():
                number = self.acknowledged + 1
                with open(f"{self.folder}/new", "wb") as file:
                    file.write(number.to_bytes(8, "big") * 700)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(f"{self.folder}/new", f"{self.folder}/current")
                os.fsync(directory)
                self.acknowledged = number

    def acknowledged_count(self):
        return self.acknowledged

    def verify(self, folder):
        data = read(os.path.join(folder, os.path.basename(self.folder), "current"))
        number = int.from_bytes(data[:8], "big")
        check(data == data[:8] * 700, f"{self.folder}/current is torn")
        check(number >= self.acknowledged, f"{self.folder}/current is number {number}; {self.acknowledged} was acknowledged")


class Overwriter(threading.Thread):
    """Blocks of one file, overwritten and synced again and again: each block shows what was synced last, or what came after, whole."""
    ENOUGH = 30
    BLOCKS, BLOCK = 16, 12 << 10

    def __init__(self, path, seed):
        super().__init__(daemon=True)
        self.path, self.random, self.ending = path, random.Random(seed), threading.Event()
        self.synced, self.count = [0] * self.BLOCKS, 0

    def run(self):
        with contextlib.suppress(OSError):  # the mount is gone: that is the end
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            while not self.ending.is_set():
                block = self.random.randrange(self.BLOCKS)
                os.pwrite(file, (self.count + 1).to_bytes(8, "big") * (self.BLOCK // 8), block * self.BLOCK)
                os.fdatasync(file)
                self.count += 1
                self.synced[block] = self.count

    def acknowledged_count(self):
        return self.count

    def verify(self, folder):
        data = read(os.path.join(folder, os.path.basename(self.path)))
        for block, synced in enumerate(self.synced):
            part = data[block * self.BLOCK:(block + 1) * self.BLOCK]
            seen = [int.from_bytes(part[at:at + 8], "big") for at in range(0, len(part), 8)]
            check(not synced or len(seen) == self.BLOCK // 8, f"{self.path}: block {block} is cut")
            # the one under way may be there in part: blocks of 4 KiB are whole
            check(set(seen) <= {synced, self.count + 1}, f"{self.path}: block {block} has {set(seen)}, {synced} was synced")
