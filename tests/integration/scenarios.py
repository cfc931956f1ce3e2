#!/usr/bin/env python3
"""scenarios.py [--list] [NAME]...: scenarios of what a cluster survives, with real processes, each on a host of its own.

Without names all, one after another, each in a world of its own (tests/lib/network.py). A name is a number or a part of it. Numbers
are those of the design; what needs exact schedules is in the simulator (tests/sim). After each: what was acknowledged is there, the
same through every client, and no process has ended that had not to."""
# test: exclusive timeout=600
import fcntl
import inspect
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import network  # noqa: E402

NAMES = [w for w in sys.argv[1:] if not w.startswith("-")]
if __name__ == "__main__" and len(NAMES) == 1 and not {"--help", "--list"} & set(sys.argv):
    network.enter()
from cluster import DIR, Writer, check, read, step, wait_for, write  # noqa: E402
from hosts import HostCluster  # noqa: E402
from shim import Shim  # noqa: E402

PAUSE_S = 3.0
CLOCK = threading.Event()  # never set: to let time pass


class Scene:
    """A cluster, up, and the writers on it; in the end everything is checked."""

    def __init__(self, prepare=None, **options):
        self.cluster = HostCluster(**options)
        if prepare:
            prepare(self.cluster)
        self.cluster.up()
        self.writers = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(f"the cluster's logs: {self.cluster.path}/log", flush=True)
            return
        self.cluster.network.heal()
        for process in self.cluster.servers:
            process.thaw()
            if not process.running():
                process.note_death()
                process.start()
        self.cluster.wait_ready(30)
        for writer in self.writers:
            writer.finish()
            for mount in self.cluster.mounts:
                writer.verify(os.path.join(mount.path, os.path.basename(writer.path)))
        self.cluster.down()
        found = self.cluster.crashes()
        check(not found, f"crashes: {found}")

    def writer(self, name, mount=0, rate=50):
        """Blocks of 256 KiB, synced one after another; already under way."""
        writer = Writer(os.path.join(self.cluster.mounts[mount].path, name), rate)
        writer.start()
        writer.progress(10, 20)
        self.writers.append(writer)
        return writer

    def granary(self, *words, status=0, **options):
        code, out, complaint = self.cluster.granary(*words, **options)
        check(code == status, f"granary {' '.join(words)}: {code}, not {status}: {complaint}")
        return out

    def goes_on(self, writer, since, bound, what):
        writer.progress(20, 20)
        pause = writer.longest_pause(since)
        print(f"   {what}: longest pause {pause * 1000:.0f} ms", flush=True)
        check(pause <= bound, f"{what}: a pause of {pause:.2f} s, at most {bound} s is promised")

    def writing(self):
        """The three chunkservers that the only writer writes to now, by the times of their chunk files."""
        def last(server):
            return max((os.stat(f).st_mtime for f in server.files(r"\.chunk$")), default=0)
        return sorted(self.cluster.chunkservers, key=last)[-3:]


def put_one(scene):
    """A blob, and a file with a chunk of its own: something new for the indexes."""
    name = os.urandom(6).hex()
    scene.granary("put", "-", f"/{name}-blob", data=b"z" * 10_000)
    scene.granary("put", "-", f"/{name}-file", data=b"z" * 300_000)


def pass_time(seconds):
    CLOCK.wait(seconds)


def scenario_02_leader_killed_in_an_operation():
    """The leader dies before its entry is out, before a majority has it, before the answer is out: the client's retry counts once."""
    with Scene(mounts=1) as scene:
        cluster, hosts = scene.cluster, scene.cluster.hosts
        for number, where in enumerate(["nobody has it", "the leader alone has it", "the answer is lost"]):
            leader = cluster.leader()
            others = [m for m in cluster.masters if m is not leader]
            scene.granary("mkdir", f"/from-{number}")
            if number == 0:
                leader.host.cut(*[m.host for m in others])
            elif number == 1:
                for other in others:
                    other.freeze()
            else:
                leader.host.cut(cluster.client)
            results = {}

            def change(key, words, results=results):
                results[key] = cluster.granary(*words)
            # neither can be done twice without being noticed: the second would say "no such name" or "exists"
            threads = [threading.Thread(target=change, args=("mv", ("mv", f"/from-{number}", f"/to-{number}"))),
                       threading.Thread(target=change, args=("mkdir", ("mkdir", f"/made-{number}")))]
            for thread in threads:
                thread.start()
            pass_time(0.2)
            leader.kill()
            for other in others:
                other.thaw()
            cluster.network.heal()
            for thread in threads:
                thread.join(60)
            print(f"   {where}: {({k: v[0] for k, v in results.items()})}", flush=True)
            check(all(v[0] == 0 for v in results.values()), f"{where}: {results}")
            scene.granary("stat", f"/from-{number}", status=3)
            scene.granary("stat", f"/to-{number}", f"/made-{number}")
            leader.start()
            cluster.wait_ready(30)
        check(hosts, "hosts")


def scenario_04_failed_sync():
    """One failed fdatasync in the log, the master's LevelDB, a chunk file, the chunkserver's index: nothing is acknowledged on it, the
    store or the process stops, the service goes on."""
    shims = {}

    def prepare(cluster):
        shims.update({p.name: Shim(p) for p in cluster.servers})
    with Scene(prepare, mounts=1) as scene:
        cluster = scene.cluster
        writer = scene.writer("synced")
        leader = cluster.leader()
        follower = next(m for m in cluster.masters if m is not leader)
        for process, path in ((follower, "/log/"), (leader, "/log/")):
            since = time.monotonic()
            process.may_end = True
            shims[process.name].set(path=path, sync_failures=1)
            wait_for(lambda p=process: not p.running(), 20, f"{process.name} to stop after a failed sync of its log")
            shims[process.name].clear()
            scene.goes_on(writer, since, PAUSE_S, f"failed sync of the log of {process.name}")
            process.note_death()
            process.may_end = False
            process.start()
            cluster.wait_ready(30)
        for path in ("/chunks/", "/index/"):
            since = time.monotonic()
            victim = scene.writing()[-1]
            shim = shims[victim.name]
            shim.set(path=path, sync_failures=1)
            wait_for(lambda s=shim, p=path: s.get("sync_failures") == 0 or put_one(scene) and False, 20, f"a sync in {path}")
            scene.goes_on(writer, since, PAUSE_S, f"failed sync in {path} of {victim.name}")
            shim.clear()
            victim.kill()
            victim.start()
            cluster.wait_ready(30)


def scenario_07_partitions():
    """One-way cuts and bridges between masters: writers go on, no endless elections, nothing stale is read."""
    with Scene() as scene:
        cluster = scene.cluster
        writer = scene.writer("written")
        for kind in ("bridge", "leader is not heard", "leader does not hear", "follower is not heard", "follower does not hear"):
            leader = cluster.leader()
            others = [m for m in cluster.masters if m is not leader]
            term, since = cluster.status()["term"], time.monotonic()
            if kind == "bridge":
                leader.host.cut_off(others[0].host)
            elif kind == "leader is not heard":
                leader.host.cut(*[m.host for m in others])
            elif kind == "leader does not hear":
                for other in others:
                    other.host.cut(leader.host)
            elif kind == "follower is not heard":
                others[0].host.cut(leader.host, others[1].host)
            else:
                for master in (leader, others[1]):
                    master.host.cut(others[0].host)
            for number in range(20):
                data = f"{kind} {number}".encode()
                write(os.path.join(cluster.mounts[number % 2].path, "latest"), data)
                check(read(os.path.join(cluster.mounts[1 - number % 2].path, "latest")) == data, f"{kind}: stale through the other mount")
            pass_time(max(0, since + 3 - time.monotonic()))
            cluster.network.heal()
            cluster.wait_ready(30)
            raised = cluster.status()["term"] - term
            scene.goes_on(writer, since, PAUSE_S, f"{kind}, terms raised by {raised}")
            check(raised <= 4, f"{kind}: {raised} elections in 3 s")


def scenario_08_leader_paused():
    """A leader frozen past its lease and an election while others write on: when it wakes it answers nothing stale."""
    with Scene() as scene:
        cluster = scene.cluster
        for number in range(3):
            leader = cluster.leader()
            address = f"{leader.host.address}:7001"
            scene.granary("put", "-", "/value", data=b"old")
            others = ",".join(f"{m.host.address}:7001" for m in cluster.masters if m is not leader)
            results = []

            def ask(results=results, address=address):
                results.append(cluster.granary("--cluster", address, "cat", "/value"))
            leader.freeze()
            # some of these reach it while it is frozen and are answered, or not, when it wakes
            threads = [threading.Thread(target=ask) for _ in range(6)]
            for thread in threads[:3]:
                thread.start()
            new = f"new {number}".encode()
            code, _, complaint = cluster.granary("--cluster", others, "put", "-", "/value", data=new)
            check(code == 0, f"put while the leader is frozen: {complaint}")
            leader.thaw()
            for thread in threads[3:]:
                thread.start()
            for thread in threads:
                thread.join(60)
            wrong = [r for r in results if r[0] == 0 and r[1] != new]
            check(not wrong and len(results) == 6, f"the leader that was frozen answered {wrong}; all: {results}")
            cluster.wait_ready(30)


def scenario_09_overwrite_half_way():
    """Client and head die when one or two of three replicas have an overwrite: all show old or new, the same, for good."""
    with Scene() as scene:
        cluster = scene.cluster
        for number in range(4):
            file = os.path.join(cluster.mounts[1].path, f"block-{number}")
            old = b"%d" % number
            members = new_chunk(scene, file, old * 1_000_000)
            # Who is head the test does not know: once all three are cut off from each other, then each in turn from the two others.
            for server in members if number == 0 else members[number - 1:number]:
                server.host.cut_off(*[m.host for m in members if m is not server])

            new = b"abcd"[number:number + 1] * 4096

            def overwrite(file=file, new=new):
                try:
                    descriptor = os.open(file, os.O_WRONLY)
                    os.pwrite(descriptor, new, 8192)
                    os.fsync(descriptor)
                except OSError:
                    pass
            threading.Thread(target=overwrite, daemon=True).start()
            wait_for(lambda m=members, n=new: any(has_bytes(s, n) for s in m), 5, "the overwrite to reach a replica")
            having = [s for s in members if has_bytes(s, new)]
            if number % 2 == 0:
                pass_time(0.9)  # the host sends again at ever longer intervals
            cluster.mounts[1].kill()
            having[0].kill()
            if number % 2 == 0:  # it lives again before what its host still sends for its former life arrives
                having[0].start()
            cluster.network.heal()
            block = lambda n=number: scene.granary("cat", f"/block-{n}")[8192:12288]  # noqa: E731
            seen = [block() for _ in range(10)]
            if number % 2 == 1:
                having[0].start()
            cluster.wait_ready(30)
            seen += [block() for _ in range(20)]
            text = "".join("N" if s == new else "O" if s == old * 4096 else "?" for s in seen)
            print(f"   {len(having)} of 3 had it: {text} is read", flush=True)
            # Nobody was told that it failed: it may take effect later, once.
            check("?" not in text and "NO" not in text, f"{len(having)} of 3 had it: {text} was read")
            cluster.mounts[1].start()


def has_bytes(server, data):
    return any(data in read(f) for f in server.files(r"\.chunk$"))


def new_chunk(scene, file, data=b"O" * 1_000_000):
    """A file with a chunk of its own, synced; the three chunkservers that have it."""
    with open(file, "wb") as new:
        new.write(data)
        new.flush()
        os.fsync(new.fileno())
    members = [s for s in scene.cluster.chunkservers if any(read(f).count(data[:4096]) > 200 for f in newest(s))]
    check(len(members) == 3, f"{len(members)} chunkservers have the new chunk")
    return members


def newest(server):
    files = sorted(server.files(r"\.chunk$"), key=os.path.getmtime)
    return files[-1:]


def scenario_10_stale_replica():
    """A replica that missed two overwrites comes back, alone at first, then with the others; one comes back after the deletion."""
    with Scene(mounts=1) as scene:
        cluster = scene.cluster
        file = os.path.join(cluster.mounts[0].path, "file")
        members = new_chunk(scene, file)
        stale, others = members[0], members[1:]
        stale.kill()
        for content in (b"1", b"2"):
            with open(file, "r+b") as again:
                again.write(content * 4096)
                again.flush()
                os.fsync(again.fileno())
        for other in others:
            other.kill()
        stale.start()
        pass_time(2)
        code, out, complaint = cluster.granary("--timeout", "3s", "cat", "/file")
        print(f"   with the stale replica alone: {code} {complaint}", flush=True)
        check(code != 0 and not out, f"the stale replica was read: {out[:8]}")
        for other in others:
            other.start()
        cluster.wait_ready(30)
        for _ in range(8):
            check(scene.granary("cat", "/file")[:4096] == b"2" * 4096, "an old content was read")
        gone = others[0]
        gone.kill()
        scene.granary("rm", "/file")
        gone.start()
        cluster.wait_ready(30)
        scene.granary("cat", "/file", status=3)


def scenario_13_full_disks():
    """One chunkserver's disk full: writes go on. All: "no space", reads and deletes go on. The leader's: refused. Each ends by itself."""
    with Scene(mounts=1, disk_bytes=512 << 20) as scene:
        cluster = scene.cluster
        writer = scene.writer("writer", rate=20)
        scene.granary("put", "-", "/kept", data=b"k" * 700_000)
        scene.granary("put", "-", "/removed", data=b"k" * 700_000)
        victim = scene.writing()[0]
        victim.fill(48 << 20)
        pass_time(2)
        # Who writes to a chunk there may be told; new chunks go elsewhere.
        print(f"   the disk of {victim.name} full: the writer {'is told: ' + str(writer.error) if writer.error else 'goes on'}", flush=True)
        for number in range(4):
            scene.granary("put", "-", f"/elsewhere-{number}", data=b"e" * 700_000)
        victim.empty()
        writer.ending.set()
        writer.join(30)
        writer.verify()
        scene.writers.remove(writer)
        cluster.wait_ready(30)
        for server in cluster.chunkservers:
            server.fill(48 << 20)
        wait_for(lambda: cluster.granary("--timeout", "5s", "put", "-", "/no", data=b"n" * 3_000_000)[0] != 0, 20, "a refusal")
        _, _, complaint = cluster.granary("--timeout", "5s", "put", "-", "/no", data=b"n" * 3_000_000)
        check("no space" in complaint.lower(), f"full chunkservers say: {complaint}")
        check(scene.granary("cat", "/kept") == b"k" * 700_000, "a blob kept")
        scene.granary("rm", "/removed")
        for server in cluster.chunkservers:
            server.empty()
        wait_for(lambda: cluster.granary("--timeout", "5s", "put", "-", "/again", data=b"n" * 3_000_000)[0] == 0, 30, "space again")
        leader = cluster.leader()
        leader.fill(40 << 20)
        wait_for(lambda: "no space" in cluster.granary("--timeout", "3s", "mkdir", f"/d{os.urandom(6).hex()}")[2].lower()
                 or cluster.leader() is not leader, 20, "the full leader to refuse, or to hand over")
        check(scene.granary("cat", "/again") == b"n" * 3_000_000, "a read while the leader's disk is full")
        leader.empty()
        wait_for(lambda: cluster.granary("--timeout", "3s", "mkdir", f"/e{os.urandom(6).hex()}")[0] == 0, 20, "names again")
        cluster.wait_ready(30)


def scenario_14_gray_failures():
    """A chunkserver with a disk of 2 s, then behind 1 Mbit/s, then behind a link that flaps: a writer goes on (of the disk it sees
    one pause, of 2.5 s and what a busy machine adds), no storm of elections."""
    shims = {}

    def prepare(cluster):
        shims.update({p.name: Shim(p) for p in cluster.chunkservers})
    with Scene(prepare, mounts=1) as scene:
        cluster = scene.cluster
        term = cluster.status()["term"]
        for kind in ("disk", "link", "flapping"):
            writer = scene.writer(f"writer-{kind}", rate=20)
            victim = scene.writing()[-1]
            since = time.monotonic()
            if kind == "disk":
                shims[victim.name].set(path="/chunks/", delay_us=2_000_000)
                pass_time(7)
                shims[victim.name].clear()
            elif kind == "link":
                victim.host.limit("1mbit")
                pass_time(7)
                victim.host.limit(None)
            else:
                for _ in range(2):
                    victim.host.cut_off()
                    pass_time(1.5)
                    cluster.network.heal()
                    pass_time(1.5)
            writer.progress(5, 40)
            pauses = sorted(b - a for a, b in zip(writer.times, writer.times[1:]) if b > since)
            print(f"   {kind} of {victim.name}: {len(pauses)} blocks, p99 {pauses[len(pauses) * 99 // 100] * 1000:.0f} ms, "
                  f"longest {pauses[-1] * 1000:.0f} ms", flush=True)
            check(kind != "disk" or (pauses[-1] < 3 and pauses[-2] < 1), f"a slow disk: a writer waited for {pauses[-2:]} s")
            cluster.wait_ready(30)
        check(cluster.status()["term"] - term <= 1, "elections because of one chunkserver")


def scenario_17_client_stopped():
    """A mount is frozen for twice its session's time with dirty pages and a lock: others get the lock, what it writes later is refused."""
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


def scenario_19_clock_jumps():
    """The wall clock of a master, a chunkserver, a mount jumps an hour ahead and back, one node's clocks run at half speed: nobody notices."""
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
    """A file is closed on one mount while chunkservers are silent: whoever looks through another mount waits for it, and sees it whole."""
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


SCENARIOS = {name[len("scenario_"):]: function for name, function in list(globals().items()) if name.startswith("scenario_")}


def run_each(names):
    """Each as a process of its own, in a world and a folder of its own; how many failed."""
    failed = 0
    for name in names:
        environment = dict(os.environ)
        if "TEST_DIR" in os.environ:
            environment["TEST_DIR"] = os.path.join(os.environ["TEST_DIR"], name)
            os.makedirs(environment["TEST_DIR"])
        started = time.monotonic()
        done = subprocess.run([sys.executable, os.path.abspath(__file__), name], env=environment, check=False)
        if done.returncode == network.SKIPPED:
            sys.exit(network.SKIPPED)
        print(f"{'passed' if done.returncode == 0 else 'FAILED'} {name} ({time.monotonic() - started:.0f} s)", flush=True)
        failed += done.returncode != 0
    return failed


def main():
    if "--list" in sys.argv or "--help" in sys.argv:
        for name, function in SCENARIOS.items():
            print(f"{name}: {' '.join(inspect.getdoc(function).split())}")
        return 0
    chosen = [n for n in SCENARIOS if not NAMES or any(word in n for word in NAMES)]
    if len(NAMES) == 1 and len(chosen) == 1:
        step(chosen[0])
        SCENARIOS[chosen[0]]()
        if "TEST_DIR" not in os.environ:
            subprocess.run(["rm", "-rf", DIR], check=False)
        return 0
    if len(NAMES) == 1:
        print(f"scenarios.py: {NAMES[0]} is {'no scenario' if not chosen else 'more than one'} (see --list)")
        return 2
    return 1 if run_each(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
