"""Faults of a campaign: each can be begun and ended; a Gate says what may be broken now without breaking a promise.

The promise: an acknowledged byte is safe while one intact copy exists, and a majority of the masters' disks. So at most one master
is harmed at a time; what destroys data on a disk (rot, a replaced server) happens only while every chunk has all its copies and what
was destroyed before is repaired, and then on one server."""
import os
import subprocess
import time

MASTER_LEFT_BYTES = 40 << 20       # below what it wants to keep: it refuses
HEAL_ALONE_S = 40
CHUNKSERVER_LEFT_BYTES = 40 << 20  # the same; or nothing at all


class Fault:
    """What is drawn from the seed is drawn in the schedule; here is only what is done."""

    def __init__(self, cluster, kind, victim, other, duration, random, heals):
        self.heals = heals  # the cluster mends what can be mended by itself
        self.cluster, self.kind, self.victim, self.other = cluster, kind, victim, other
        self.duration, self.random, self.note = duration, random, ""

    def __str__(self):
        who = "" if self.victim is None else f" {self.victim.name}"
        return f"{self.kind}{who}{f' ({self.note})' if self.note else ''}"

    def begin(self):
        getattr(self, "begin_" + self.kind.split("-")[0])()

    def end(self):
        getattr(self, "end_" + self.kind.split("-")[0])()

    # kill -9, started again after the duration
    def begin_kill(self):
        for process in self.killed():
            process.kill()

    def killed(self):
        if self.kind == "kill-all":
            return self.cluster.servers
        return [p for p in (self.victim, self.other) if p is not None]

    def end_kill(self):
        for process in self.killed():
            process.start()

    # SIGSTOP
    def begin_stop(self):
        self.trouble(True)
        self.victim.freeze()

    def end_stop(self):
        self.victim.thaw()
        self.trouble(False)

    # cut off: from all, one way, from some
    def begin_cut(self):
        self.trouble(True)
        self.victim.host.cut_off()

    def end_cut(self):
        self.cluster.network.heal()
        self.trouble(False)

    def begin_oneway(self):
        """What it sends is lost, or what is sent to it, for all others or some of them."""
        self.trouble(True)
        others = [h for h in self.cluster.network.hosts.values() if h is not self.victim.host]
        if self.random.random() < 0.5:
            others = [h for h in others if self.random.random() < 0.5]
        out = self.random.random() < 0.5
        self.note = f"{'to' if out else 'from'} {len(others)} of {len(self.cluster.network.hosts) - 1}"
        for other in others:
            (self.victim.host.cut(other) if out else other.cut(self.victim.host))

    end_oneway = end_cut

    def begin_bridge(self):
        """Two processes of a kind do not reach each other, all others reach both."""
        self.note = f"and {self.other.name}"
        self.victim.host.cut_off(self.other.host)

    end_bridge = end_cut

    def begin_slow(self):
        self.victim.host.limit("1mbit")

    def end_slow(self):
        self.victim.host.limit(None)

    # a full disk
    def begin_full(self):
        self.all_in_doubt(True)
        for process in self.filled():
            process.may_end = process in self.cluster.masters
            process.fill(MASTER_LEFT_BYTES if process in self.cluster.masters else self.random.choice([0, CHUNKSERVER_LEFT_BYTES]))

    def all_in_doubt(self, begins):
        """No chunkserver has room: a small file that was closed, not synced, stays with its mount, and others see it empty meanwhile."""
        for mount in self.cluster.mounts if self.kind == "full-all" else ():
            mount.trouble(begins)

    def filled(self):
        return self.cluster.chunkservers if self.kind == "full-all" else [self.victim]

    def end_full(self):
        for process in self.filled():
            process.empty()
            process.note_death()
            process.may_end = False
            if not process.running():
                process.start()
        # A store that has failed for want of space comes back by itself where that is built, else when its process starts anew: counted.
        deadline = time.monotonic() + (HEAL_ALONE_S if self.heals else 0)
        while not self.cluster.ready() and time.monotonic() < deadline:
            time.sleep(0.2)
        status = self.cluster.status()
        for server in status["servers"] if status else ():
            process = self.cluster.by_address(server["address"])
            if server["failed"] and process and process.running():
                process.kill()
                process.start()
                self.note = "restarted"
        self.all_in_doubt(False)

    # data on disk destroyed
    def begin_rot(self):
        """Bits flipped in the chunk files of a running chunkserver, or in the log of a stopped master."""
        master = self.victim in self.cluster.masters
        if master:
            self.victim.terminate()
        files = self.victim.files(r"^log/wal-" if master else r"\.(chunk|pack)$")
        self.note = f"{flip_bits(files, self.random, 3)} bytes of {len(files)} files"

    def end_rot(self):
        if not self.victim.running():
            self.victim.start()

    def begin_replace(self):
        self.victim.kill()

    def end_replace(self):
        self.victim.wipe()
        self.victim.start()

    # data that moves meanwhile: one chunkserver is drained while the faults that follow come, until another is
    def begin_drain(self):
        self.cluster.undrain()
        self.cluster.drain(self.victim)

    def end_drain(self):
        pass

    def begin_rebalance(self):
        self.cluster.admin("rebalance", "--target", "1")

    end_rebalance = end_drain

    def trouble(self, begins):
        if self.victim in self.cluster.mounts:
            self.victim.trouble(begins)


def flip_bits(files, random, count):
    """In places that were written (no holes), in up to three files; how many bytes."""
    flipped = 0
    for path in random.sample(files, min(len(files), 3)):
        with open(path, "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for _ in range(count):
                at = written_offset(file.fileno(), random.randrange(max(size, 1)))
                byte = os.pread(file.fileno(), 1, at) if at is not None else b""
                if byte:
                    os.pwrite(file.fileno(), bytes([byte[0] ^ (1 << random.randrange(8))]), at)
                    flipped += 1
            os.fsync(file.fileno())
    return flipped


def written_offset(number, at):
    try:
        return os.lseek(number, at, os.SEEK_DATA)
    except OSError:
        return None


DESTRUCTIVE = ("rot-chunk", "rot-log", "replace-chunkserver", "replace-master")
# kind: weight, roles of the victim, longest duration in s
KINDS = {
    "kill-chunkserver": (5, "chunkserver", 4), "kill-two": (2, "chunkserver", 3), "kill-master": (3, "master", 4), "kill-leader": (3, "leader", 4),
    "kill-mount": (2, "mount", 1), "kill-all": (2, None, 1),
    "stop-chunkserver": (4, "chunkserver", 6), "stop-master": (1, "master", 5), "stop-leader": (3, "leader", 5), "stop-mount": (2, "mount", 5),
    "cut-chunkserver": (3, "chunkserver", 6), "cut-master": (1, "master", 6), "cut-leader": (3, "leader", 6), "cut-mount": (1, "mount", 5),
    "oneway-chunkserver": (3, "chunkserver", 6), "oneway-leader": (2, "leader", 6), "oneway-master": (1, "master", 6), "oneway-mount": (1, "mount", 5),
    "bridge-chunkserver": (3, "chunkserver", 5), "bridge-leader": (2, "leader", 5), "slow-chunkserver": (2, "chunkserver", 5),
    "full-chunkserver": (2, "chunkserver", 5), "full-all": (1, None, 3), "full-master": (1, "master", 3), "full-leader": (1, "leader", 3),
    "rot-chunk": (4, "chunkserver", 2), "rot-log": (2, "master", 1), "replace-chunkserver": (3, "chunkserver", 2), "replace-master": (2, "master", 2),
    "drain-chunkserver": (3, "chunkserver", 2), "rebalance": (1, None, 1),
}


class Gate:
    """Whether what destroys data may happen now."""

    def __init__(self, cluster, can_repair, can_scrub, can_replace_master):
        self.cluster, self.can_repair, self.can_scrub, self.can_replace_master = cluster, can_repair, can_scrub, can_replace_master
        self.harmed = None  # the chunkserver whose copies may be bad

    def repaired(self, seconds):
        """Waits until every chunk has all its copies; None if that does not come."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.cluster.status()
            if status and status["safe"] and self.cluster.ready():
                return status
            time.sleep(0.2)
        return None

    def refuses(self, fault):
        """Why the fault may not happen now, or None."""
        kind, victim = fault.kind, fault.victim
        # While one server's copies may be damaged the others' are needed: no fault of theirs before a scrub has mended that.
        others = kind.endswith(("chunkserver", "-two", "-all", "rot-chunk")) and victim is not self.harmed
        if self.harmed and others and not self.scrubbed():
            return f"what was done to {self.harmed.name} may not be repaired"
        if kind not in DESTRUCTIVE:
            return None
        if victim in self.cluster.masters:
            if kind == "replace-master" and not self.can_replace_master:
                return "masters cannot be replaced yet"
            if kind == "rot-log" and not self.can_replace_master:
                return "a master does not repair its log yet"
            behind = self.masters_behind()
            return f"masters are behind: {behind}" if behind else None
        if kind == "rot-chunk" and not (self.can_repair and self.can_scrub):
            return "damaged blocks are not found and repaired yet"
        if not self.repaired(60 if self.can_repair else 2):
            return "chunks lack copies"
        if kind == "rot-chunk":
            self.harmed = victim
        return None

    def masters_behind(self):
        deadline, status = time.monotonic() + 15, None
        while time.monotonic() < deadline:
            status = self.cluster.status()
            if status and len(status["members"]) >= 3 and all(m["match"] + 2000 >= status["commit"] for m in status["members"]) \
                    and all(m.running() for m in self.cluster.masters):
                return None
            time.sleep(0.2)
        return status["members"] if status else "no leader"

    def scrubbed(self):
        """All that is damaged on the disks has been found and repaired."""
        if self.scrub(60):
            return False  # under load it may take its time; in the end it may not
        self.harmed = None
        return True

    def scrub(self, seconds):
        """None when every block on every disk has been checked and, where it was damaged, repaired."""
        try:
            code, out, complaint = self.cluster.granary("admin", "scrub", "--wait", timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"it does not end within {seconds} s"
        return None if code == 0 else f"{code}: {complaint} {out.decode(errors='replace').strip()}"
