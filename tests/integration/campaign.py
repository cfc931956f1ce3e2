#!/usr/bin/env python3
"""campaign.py [--minutes M] [--seed S] [--faults KIND,...] [--keep]: a real cluster that is broken in every way while it is used.

Three masters, five chunkservers and two mounts, each in a network namespace of its own, each server on a small disk of its own.
Writers (tests/lib/writers.py) work through the mounts and with the program `granary` and check every byte against a model of what
was acknowledged; meanwhile a schedule that the seed gives (tests/lib/faults.py) kills, freezes, cuts off, fills, damages and
replaces. In the end everything heals, and all must be there: on both mounts, by `get`, the same everywhere, with all copies.

--faults: only kinds that begin with one of these (kill,stop,rot-chunk,...); --list shows all. --keep leaves the folder.
Without arguments two minutes, which is how tools/test runs it."""
# test: exclusive timeout=420
import argparse
import os
import random
import re
import shutil
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import network  # noqa: E402

if __name__ == "__main__" and not {"--help", "-h", "--list"} & set(sys.argv):
    network.enter()
from cluster import DIR, check  # noqa: E402
from faults import KINDS, Fault, Gate  # noqa: E402
from hosts import HostCluster  # noqa: E402
from writers import BlobClient, Office  # noqa: E402

DISK_BYTES = 1536 << 20
HEAL_SECONDS = 60
REPAIR_SECONDS = 120


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", default="")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


class Campaign:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        self.cluster = HostCluster(disk_bytes=DISK_BYTES)
        self.started = time.monotonic()
        self.history, self.begun, self.held_back, self.slowest_return = [], {}, {}, (0, "")
        self.gate = None
        self.watch = threading.Event()
        self.office, self.blobs = None, []

    def has(self, group, command):
        """Whether the program under test offers it: `granary admin GROUP`, by its help."""
        _, out, complaint = self.cluster.granary("admin", *group, "--help")
        return re.search(rf"\b{command}\b", out.decode() + complaint) is not None

    def say(self, text):
        print(f"{time.monotonic() - self.started:7.1f}  {text}", flush=True)

    def start_workers(self):
        self.office = Office(self.cluster, self.options.seed)
        for mount in self.cluster.mounts:
            mount.told = lambda name, troubles: self.office.ask("troubles", name, troubles)
        self.blobs = [BlobClient(f"blobs-{n}", self.cluster, self.options.seed) for n in range(2)]
        for worker in self.blobs:
            worker.start()

    def wrong(self):
        found = [w for worker in self.blobs for w in worker.wrong] + self.cluster.crashes()
        return self.office.ask("wrong") + found

    def check(self):
        found = self.wrong()
        if found:
            raise AssertionError("\n  ".join(["wrong:"] + found[:20]))

    # ---- the schedule

    def draw(self):
        """The next fault: pause before it, kind, victims, duration, all from the seed."""
        prefixes = tuple(self.options.faults.split(",")) if self.options.faults else ("",)
        kinds = [k for k in KINDS if k.startswith(prefixes)]
        kind = self.random.choices(kinds, [KINDS[k][0] for k in kinds])[0]
        return (self.random.uniform(0.3, 3), kind, self.random.sample(range(5), 2), self.random.sample(range(3), 2), self.random.randrange(2),
                self.random.uniform(0.3, KINDS[kind][2]), self.random.randrange(1 << 30))

    def fault(self, drawn):
        _, kind, chunkservers, masters, mount, duration, seed = drawn
        cluster, role = self.cluster, KINDS[kind][1]
        victim = other = None
        if role == "chunkserver":
            victim, other = (cluster.chunkservers[n] for n in chunkservers)
        elif role == "master":
            victim = cluster.masters[masters[0]]
        elif role == "leader":
            victim = cluster.leader()
            other = next(cluster.masters[n] for n in masters if cluster.masters[n] is not victim)
        elif role == "mount":
            victim = cluster.mounts[mount]
        if not kind.startswith("bridge") and kind != "kill-two":
            other = None
        return Fault(cluster, kind, victim, other, duration, random.Random(seed), self.gate.can_scrub)

    def wait(self, seconds):
        """Watches the workers meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            self.watch.wait(min(0.25, max(0, end - time.monotonic())))

    def wait_healed(self, fault):
        started = time.monotonic()
        self.cluster.wait_ready(HEAL_SECONDS)
        took = time.monotonic() - started
        if took > self.slowest_return[0]:
            self.slowest_return = took, str(fault)
        return took

    def one_fault(self):
        drawn = self.draw()
        self.wait(drawn[0])
        fault = self.fault(drawn)
        refused = self.gate.refuses(fault)
        if refused:
            self.held_back[fault.kind] = refused
            return
        started = time.monotonic()
        fault.begin()
        self.say(f"{fault} for {fault.duration:.1f} s")
        try:
            self.wait(fault.duration)
        finally:
            fault.end()
        if fault.note == "restarted":
            self.say("   restarted what had failed")
        self.begun[fault.kind] = self.begun.get(fault.kind, 0) + 1
        self.history.append((started, time.monotonic(), str(fault)))
        took = self.wait_healed(fault)
        if took > 3:
            self.say(f"   took {took:.1f} s to be ready again")

    # ---- the end

    def end(self):
        for worker in self.blobs:
            worker.ending.set()
        self.office.ask("end")
        deadline = time.monotonic() + 120
        alive = True
        while alive:
            self.check()
            alive = self.office.ask("alive") + [w.name for w in self.blobs if w.is_alive()]
            if alive and time.monotonic() > deadline:
                raise AssertionError(f"these do not end: {alive}")
            self.watch.wait(0.1)
        self.check()
        self.say("healed, all writers have ended")
        if self.gate.can_repair:
            status = self.gate.repaired(REPAIR_SECONDS)
            if not status:
                raise AssertionError(f"not all copies are back within {REPAIR_SECONDS} s: {self.cluster.status()}")
            self.say(f"all data is safe: {status['chunks']} chunks")
            failed = self.gate.scrub(120) if self.gate.can_scrub else None
            if failed:
                raise AssertionError(f"scrub in the end: {failed}")
        else:
            status = self.cluster.wait_ready(HEAL_SECONDS)
            self.say(f"repair does not exist yet: {status['chunks_under_replicated']} of {status['chunks']} chunks lack copies, "
                     f"{status['chunks_one_copy']} have one")
        if status["chunks_unavailable"]:
            raise AssertionError(f"chunks are unavailable: {status}")
        self.verify()
        self.check()

    def verify(self):
        wrong, _, _ = self.office.ask("verify", False)
        for mount in self.cluster.mounts:
            mount.terminate()
            mount.start()
        more, digests, count = self.office.ask("verify", True)
        wrong += more
        for worker in self.blobs:
            wrong += worker.check()
        if len(set(digests)) != 1:
            wrong.append(f"the mounts differ: {digests}")
        if wrong:
            raise AssertionError("\n  ".join(["in the end:"] + wrong[:20]))
        self.say(f"{count // 2} files are the same on both mounts, digest {digests[0][:16]}; {sum(len(w.live) for w in self.blobs)} blobs")

    def summary(self):
        operations, errors, longest = {}, {}, {}
        for name, counts, failures, pauses in self.office.ask("figures") + [(w.name, w.counts, w.errors, w.longest) for w in self.blobs]:
            for kind, number in counts.items():
                operations[kind] = operations.get(kind, 0) + number
            for kind, number in failures.items():
                errors[kind] = errors.get(kind, 0) + number
            for kind, (took, at) in pauses.items():
                longest[kind] = max(longest.get(kind, (0, 0, "")), (took, at, name))
        print(f"operations: {sum(operations.values())}: " + ", ".join(f"{k} {n}" for k, n in sorted(operations.items())))
        print(f"errors: {sum(errors.values())}: " + ", ".join(f"{k} {n}" for k, n in sorted(errors.items())))
        print(f"faults: {sum(self.begun.values())}: " + ", ".join(f"{k} {n}" for k, n in sorted(self.begun.items())))
        for kind, why in sorted(self.held_back.items()):
            print(f"   held back: {kind}: {why}")
        for kind, (took, at, who) in sorted(longest.items(), key=lambda item: -item[1][0])[:6]:
            during = [text for begin, end, text in self.history if begin < at + took and end > at - 1]
            print(f"longest {kind}: {took:.2f} s, {who} at {at - self.started:.1f}{': ' + ', '.join(during[:3]) if during else ''}")
        for line in self.office.ask("late"):
            print(f"seen late: {line}")
        print(f"slowest return to service: {self.slowest_return[0]:.1f} s after {self.slowest_return[1]}")

    def run(self):
        self.cluster.up()
        # What this cluster can do: the parts are built one after another, and what can be repaired may be broken.
        self.gate = Gate(self.cluster, "fills" in self.cluster.status(), self.has([], "scrub"), self.has(["raft"], "remove"))
        for setting in ("repair_delay_ms", "2s"), ("session_timeout_ms", "30s"), ("trash_seconds", "30s"):
            if self.has([], "set"):
                code, _, complaint = self.cluster.granary("admin", "set", *setting)
                check(code == 0, f"admin set {setting}: {complaint}")
        self.say(f"up: {'repair' if self.gate.can_repair else 'no repair'}, {'scrub' if self.gate.can_scrub else 'no scrub'}, "
                 f"{'masters can be replaced' if self.gate.can_replace_master else 'masters cannot be replaced'}")
        self.start_workers()
        end = time.monotonic() + self.options.minutes * 60
        try:
            while time.monotonic() < end:
                self.one_fault()
            self.end()
        finally:
            self.summary()
        self.cluster.down()
        self.check()


def main():
    options = arguments()
    if options.list:
        print("\n".join(KINDS))
        return
    print(f"seed {options.seed}, {options.minutes} minutes", flush=True)
    campaign = Campaign(options)
    try:
        campaign.run()
    except BaseException:
        print(f"the cluster's logs: {campaign.cluster.path}/log", flush=True)
        raise
    if not options.keep and "TEST_DIR" not in os.environ:
        shutil.rmtree(DIR, ignore_errors=True)
    print("done")


if __name__ == "__main__":
    main()
