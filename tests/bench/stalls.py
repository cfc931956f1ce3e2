#!/usr/bin/env python3
"""stalls.py [--times N] [KIND]...: the longest pause of a writer when something breaks, N times each (10), as a table.

A cluster as in tests/integration/campaign (three masters, five chunkservers, a mount, each on a host of its own); granary-stall
writes 100 synced blocks of 64 KiB a second to one file. KIND: chunkserver-killed chunkserver-frozen chunkserver-cut leader-killed
leader-frozen leader-cut; without, all. Exits with 1 if a pause was longer than what is promised."""
import json
import os
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import network  # noqa: E402

if __name__ == "__main__" and "--help" not in sys.argv:
    network.enter()
from cluster import BIN, DIR, check  # noqa: E402
from hosts import HostCluster  # noqa: E402

PROMISED_MS = {"chunkserver-killed": 100, "chunkserver-frozen": 2500, "chunkserver-cut": 2500,
               "leader-killed": 1000, "leader-frozen": 3000, "leader-cut": 3000}
HOLD_S = 3.5


def chain_member(cluster):
    """A chunkserver that the file being written is on: one whose open chunk was changed last."""
    def newest(server):
        return max((os.stat(f).st_mtime for f in server.files(r"\.chunk$")), default=0)
    return max(cluster.chunkservers, key=newest)


def once(cluster, kind, number):
    """One fault under one writer; its longest pause in ms."""
    path = os.path.join(cluster.mounts[0].path, f"{kind}-{number}")
    victim = None
    stall = subprocess.Popen([os.path.join(BIN, "granary-stall"), path, str(HOLD_S + 1.5)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pause = threading.Event()
    pause.wait(1)  # the writer's run-up, not a condition
    victim = cluster.leader() if kind.startswith("leader") else chain_member(cluster)
    stall.stdin.write(b"fault\n")
    stall.stdin.flush()
    began = time.monotonic()
    if kind.endswith("killed"):
        victim.kill()
    elif kind.endswith("frozen"):
        victim.freeze()
    else:
        victim.host.cut_off()
    pause.wait(HOLD_S - (time.monotonic() - began))
    out, _ = stall.communicate(timeout=60)
    if kind.endswith("killed"):
        victim.start()
    elif kind.endswith("frozen"):
        victim.thaw()
    else:
        cluster.network.heal()
    cluster.wait_ready(40)
    result = json.loads(out)
    check(result["wrong"] == 0 and result["errors"] == 0, f"{kind}: {result}")
    pauses = {p["name"]: p for p in result["pauses"]}
    check("fault" in pauses, f"{kind}: {result}")
    return pauses["fault"]["longest_ms"], pauses["start"]["longest_ms"], victim.name


def main():
    words = [w for w in sys.argv[1:]]
    times = int(words.pop(words.index("--times") + 1)) if "--times" in words else 10
    kinds = [w for w in words if not w.startswith("--")] or list(PROMISED_MS)
    if "--help" in words or any(k not in PROMISED_MS for k in kinds):
        print(__doc__)
        return 2
    cluster = HostCluster(mounts=1)
    cluster.up()
    late = []
    print(f"{'':<20} {'promised':>9} {'longest':>9} {'median':>9} {'least':>9}   each, ms", flush=True)
    for kind in kinds:
        pauses = []
        for number in range(times):
            pause, before, name = once(cluster, kind, number)
            pauses.append(pause)
            if pause > PROMISED_MS[kind]:
                late.append(f"{kind} of {name}: {pause:.0f} ms (before it {before:.0f})")
        ordered = sorted(pauses)
        print(f"{kind:<20} {PROMISED_MS[kind]:>9} {ordered[-1]:>9.0f} {ordered[len(ordered) // 2]:>9.0f} {ordered[0]:>9.0f}   "
              + " ".join(f"{p:.0f}" for p in pauses), flush=True)
    found = cluster.crashes()
    cluster.down()
    for line in late + found + cluster.deaths:
        print(line)
    if "TEST_DIR" not in os.environ:
        shutil.rmtree(DIR, ignore_errors=True)
    return 1 if late or found else 0


if __name__ == "__main__":
    sys.exit(main())
