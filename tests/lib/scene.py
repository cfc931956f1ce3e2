"""What scenarios of integration/scenarios.py share: a cluster of hosts with writers on it that is checked in the end, and looking at it.

The scenarios themselves are in scenarios_masters.py, scenarios_chunks.py, scenarios_damage.py and scenarios_clients.py: functions
scenario_NN_NAME. The first paragraph of each one's text is the design's, the second is what is done here."""
import json
import os
import re
import struct
import threading

from cluster import Writer, check, read, wait_for
from hosts import HostCluster

PAUSE_S = 3.0
CLOCK = threading.Event()  # never set: to let time pass


def measures(scenario):
    """For a scenario that measures pauses: nothing else runs beside it."""
    scenario.alone = True
    return scenario


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
                said = log_text(process).count(" ready ")
                process.start()
                wait_for(lambda p=process, n=said: log_text(p).count(" ready ") > n, 20, f"{process.name} to be up")
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

    def raft(self):
        """What `admin raft status` says; without an answer an empty one."""
        code, out, _ = self.cluster.granary("--timeout", "5s", "admin", "raft", "status", "--json")
        return json.loads(out) if code == 0 else {"members": [], "leader": 0, "log_last": 0}

    def voters(self):
        return sorted(m["id"] for m in self.raft()["members"] if not m["learner"])

    def caught_up(self, *masters):
        """These, by number, are the voters, and hold all of the log or nearly."""
        state = self.raft()
        voters = [m for m in state["members"] if not m["learner"]]
        return (sorted(m["id"] for m in voters) == sorted(masters) and
                all(m["match"] + 200 > state["log_last"] and m["contact_ms"] < 1000 for m in voters))

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


def pass_time(seconds):
    CLOCK.wait(seconds)


def put(scene, name, data):
    """Once more if its head has failed and nobody knows whether it was written (chunkserver/README.md, repeated writes)."""
    code, _, complaint = scene.cluster.granary("put", "-", name, data=data)
    if code == 1 and "is not known" in complaint:
        print(f"   put once more: {complaint.strip()}", flush=True)
        scene.granary("put", "-", name, data=data)
    else:
        check(code == 0, f"granary put - {name}: {code}: {complaint}")


def put_one(scene):
    """A blob, and a file with a chunk of its own: something new for the indexes."""
    name = os.urandom(6).hex()
    put(scene, f"/{name}-blob", b"z" * 10_000)
    put(scene, f"/{name}-file", b"z" * 300_000)


def has_bytes(server, data):
    return any(data in read(f) for f in server.files(r"\.chunk$"))


def newest(server):
    files = sorted(server.files(r"\.chunk$"), key=os.path.getmtime)
    return files[-1:]


def new_chunk(scene, file, data=b"O" * 1_000_000):
    """A file with a chunk of its own, synced; the three chunkservers that have it."""
    with open(file, "wb") as new:
        new.write(data)
        new.flush()
        os.fsync(new.fileno())
    members = [s for s in scene.cluster.chunkservers if any(read(f).count(data[:4096]) > 200 for f in newest(s))]
    check(len(members) == 3, f"{len(members)} chunkservers have the new chunk")
    return members


def wal_entries(master, start=0):
    """(offset, index, term, bytes) of each entry in a master's log, as it stands in master/wal_format.h; from that offset on."""
    for path in master.files(r"^log/wal-"):
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(16 << 20 if start == 0 else 2 << 20)
        for match in re.finditer(rb"GWR1\x01", data):
            at = match.start()
            size, _, _, index, term = struct.unpack("<IIQQQ", data[at + 8:at + 40])
            yield start + at, index, term, size


def log_text(process):
    return read(process.log).decode(errors="replace")
