"""Scenarios of chunkservers: replicas, disks, what is collected. See scene.py."""
import os
import shutil
import threading
import time

from cluster import check, wait_for
from scene import PAUSE_S, Scene, has_bytes, log_text, measures, new_chunk, pass_time, put_one
from shim import Shim


@measures
def scenario_04_failed_sync():
    """One failed sync on log, LevelDB or chunk file; on leader, follower, chunkserver: no acknowledgement, that store stops, service goes
    on.

    One failed fdatasync in the log, the master's LevelDB, a chunk file, the chunkserver's index: nothing is acknowledged on it, the
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


def scenario_09_overwrite_half_way():
    """Chunkserver, then the client too, killed after one and two of three replicas have an overwrite: replicas converge, reads give old or
    new per block, the same everywhere, for good.

    Client and head die when one or two of three replicas have an overwrite: all show old or new, the same, for good."""
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


def scenario_10_stale_replica():
    """Stale replica returns after two overwrites, after deletion, as the only one left: never served, never a source.

    A replica that missed two overwrites comes back, alone at first, then with the others; one comes back after the deletion."""
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
    """ENOSPC on one chunkserver, on all, on the leader's log disk: reads and deletes go on; service returns by itself with space.

    One chunkserver's disk full: writes go on. All: "no space", reads and deletes go on. The leader's: refused. Each ends by itself."""
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


@measures
def scenario_14_gray_failures():
    """Gray failure: a 2 s disk or a 1 Mbit/s link on one chunkserver, then a link flapping every 3 s: p99 of writes within 3× of healthy
    after ejection; no storm of repairs or elections.

    A chunkserver with a disk of 2 s, then behind 1 Mbit/s, then behind a link that flaps: a writer pauses once or twice (of the disk it
    sees one pause, of 2.5 s and what a busy machine adds); from then on its p99 is at most three times what it was before, or GRAY_FLOOR_S."""
    shims = {}

    def prepare(cluster):
        shims.update({p.name: Shim(p) for p in cluster.chunkservers})
    with Scene(prepare, mounts=1) as scene:
        cluster = scene.cluster
        term = cluster.status()["term"]
        for kind in ("disk", "link", "flapping"):
            writer = scene.writer(f"writer-{kind}", rate=20)
            writer.progress(40, 20)
            victim = scene.writing()[-1]
            since = time.monotonic()
            if kind == "disk":
                shims[victim.name].set(path="/chunks/", delay_us=2_000_000)
                pass_time(GRAY_S)
                shims[victim.name].clear()
            elif kind == "link":
                victim.host.limit("1mbit")
                pass_time(GRAY_S)
                victim.host.limit(None)
            else:
                for _ in range(3):
                    victim.host.cut_off()
                    pass_time(1.5)
                    cluster.network.heal()
                    pass_time(1.5)
            end = time.monotonic()
            writer.progress(5, 40)
            writer.finish()
            healthy, ejected = p99(writer, 0, since), p99(writer, since + EJECTED_S, end)
            pauses = sorted(b - a for a, b in zip(writer.times, writer.times[1:]) if b > since)
            print(f"   {kind} of {victim.name}: longest {pauses[-1] * 1000:.0f} and {pauses[-2] * 1000:.0f} ms, p99 before it "
                  f"{healthy * 1000:.0f} ms, after {EJECTED_S} s {ejected * 1000:.0f} ms", flush=True)
            check(ejected <= max(3 * healthy, GRAY_FLOOR_S), f"{kind}: p99 is {ejected} s, it was {healthy} s")
            check(kind != "disk" or (pauses[-1] < 3 and pauses[-2] < 1), f"a slow disk: a writer waited for {pauses[-2:]} s")
            if kind != "disk":  # who was left out for it is back only when it has been as fast as others for 10 s: meanwhile
                cluster.wait_ready(30)
        check(cluster.status()["term"] - term <= 1, "elections because of one chunkserver")
        fills = sum(log_text(master).count(" copy_complete ") for master in cluster.masters)
        check(fills <= FILLS_MAX, f"{fills} copies were filled because of one chunkserver")


GRAY_S, EJECTED_S, GRAY_FLOOR_S = 9, 6, 0.5
FILLS_MAX = 30  # three files of two or three chunks, each left and joined a few times


def p99(writer, begin, end):
    """Of what lies between two blocks, the later one written from begin to end."""
    pauses = sorted(b - a for a, b in zip(writer.times, writer.times[1:]) if begin <= b <= end)
    return pauses[len(pauses) * 99 // 100]


def scenario_15_collection():
    """Collection against wrong knowledge: a master from an older snapshot, failover between unlink and re-create, a chunkserver with
    unknown chunks.

    The leader dies between removals and new files of the same names, a chunkserver is away meanwhile. Then all masters are put back to
    what their disks had before: newer chunks are unknown to them, removed ones are there for them. Back to what they had last, nothing
    lacks."""
    with Scene(mounts=0) as scene:
        cluster = scene.cluster
        scene.granary("admin", "set", "trash_seconds", "0")
        contents = {}
        for number in range(2):
            put_some(scene, contents, "again", number)
            away = cluster.chunkservers[number]
            away.kill()
            for name in [n for n in contents if n.startswith("/again")]:
                scene.granary("rm", name)
            cluster.leader().kill()
            put_some(scene, contents, "again", number + 100)
            for process in cluster.servers:
                if not process.running():
                    process.note_death()
                    process.start()
            cluster.wait_ready(30)
        put_some(scene, contents, "removed", 7)
        for master in cluster.masters:
            master.kill()
        images(cluster, "old")
        for master in cluster.masters:
            master.start()
        cluster.wait_ready(30)
        removed = [name for name in contents if name.startswith("/removed")]
        for name in removed:
            scene.granary("rm", name)
            del contents[name]
        put_some(scene, contents, "newer", 8)
        kept = sum(len(server.files(r"\.chunk$")) for server in cluster.chunkservers)
        for master in cluster.masters:
            master.kill()
        images(cluster, "last")
        for image in "old", "last":
            images(cluster, image, back=True)
            for master in cluster.masters:
                master.start()
            cluster.wait_ready(30)
            if image == "old":
                newer = wait_for(lambda: cluster.status()["orphan_copies_newer"], 10, "status to say that the masters' state is an old one")
                pass_time(COLLECTION_WAIT_S)
                left = sum(len(server.files(r"\.chunk$")) for server in cluster.chunkservers)
                print(f"   {newer} copies are newer than the masters' state; {kept} files of chunks before, {left} after", flush=True)
                for master in cluster.masters:
                    master.kill()
        for name, content in contents.items():
            check(scene.granary("cat", name) == content, f"{name} is not what was put")
        for name in removed:
            scene.granary("stat", name, status=3)
        wait_for(lambda: cluster.granary("admin", "fsck")[0] == 0, 20, "a clean fsck")


COLLECTION_WAIT_S = 5  # COLLECTION_WAIT_MS after an election, and a pass


def put_some(scene, contents, name, number):
    """Two with a chunk each, two in packs."""
    for index, size in enumerate([700_000, 300_000, 9_000, 100]):
        contents[f"/{name}-{index}"] = bytes([number]) * size
        scene.granary("put", "-", f"/{name}-{index}", data=contents[f"/{name}-{index}"])


def images(cluster, name, back=False):
    """All masters' data is kept, or is put back. They do not run."""
    for master in cluster.masters:
        image = os.path.join(cluster.path, "images", name, master.name)
        source, target = (image, master.data) if back else (master.data, image)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
