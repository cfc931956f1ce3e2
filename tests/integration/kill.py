#!/usr/bin/env python3
"""One process of each kind killed, then frozen, while a program writes: every synced byte stays, and the pause is bounded: one second
for a killed chunkserver, two for a frozen one (its lease of 1.5 s must run out) and for a new leader (an election of 0.3 to 0.6 s,
then 1 s until what the old one allowed clients to cache has run out)."""
# test: exclusive timeout=300
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, Writer, check, step, wait_for  # noqa: E402

KILLED_PAUSE_S = 1.0
FROZEN_PAUSE_S = 2.0
LEADER_PAUSE_S = 2.0


def under_fault(cluster, name, fault, heal, bound):
    """A writer through the fault; its longest pause."""
    path = os.path.join(cluster.mnt, name)
    writer = Writer(path)
    writer.start()
    writer.progress(40, 30)
    since = time.monotonic()
    fault()
    writer.progress(60, 30)
    # the fault must have had its time to be felt
    wait_for(lambda: time.monotonic() - since > bound + 0.5, bound + 2, "time to pass")
    pause = writer.longest_pause(since)
    heal()
    writer.progress(20, 30)
    writer.finish()
    writer.verify()
    print(f"   {name}: longest pause {pause * 1000:.0f} ms, {writer.blocks} blocks", flush=True)
    check(pause <= bound, f"{name}: a pause of {pause:.2f} s, at most {bound} s is promised")
    return path, writer


def main():
    written = []
    with Cluster(mount=True) as cluster:
        for number in range(1, 4):  # at least two of them have the chunk
            step(f"chunkserver {number}: kill -9, then up again")
            written.append(under_fault(cluster, f"killed-chunkserver-{number}",
                                       lambda n=number: cluster.dev("kill", "chunkserver", str(n)), lambda: cluster.up(),
                                       KILLED_PAUSE_S))
        step("leading master: kill -9, then up again")
        written.append(under_fault(cluster, "killed-leader", lambda: cluster.dev("kill", "master", str(cluster.leader())),
                                   lambda: cluster.up(), LEADER_PAUSE_S))
        for number in range(1, 4):  # at least two of them have the chunk
            step(f"chunkserver {number}: frozen, then goes on")
            written.append(under_fault(cluster, f"frozen-chunkserver-{number}",
                                       lambda n=number: cluster.dev("stop", "chunkserver", str(n)),
                                       lambda n=number: cluster.dev("cont", "chunkserver", str(n)), FROZEN_PAUSE_S))
            cluster.up()
        step("leading master: frozen, then goes on")
        leader = str(cluster.leader())
        written.append(under_fault(cluster, "frozen-leader", lambda: cluster.dev("stop", "master", leader),
                                   lambda: cluster.dev("cont", "master", leader), LEADER_PAUSE_S))

        step("the mount: kill -9; what was synced is there for another one")
        path = os.path.join(cluster.mnt, "killed-mount")
        writer = Writer(path)
        writer.start()
        writer.progress(40, 30)
        os.kill(cluster.processes()["mount"]["pid"], signal.SIGKILL)
        wait_for(lambda: writer.error, 30, "the writer to notice")
        cluster.up()
        writer.verify()
        for path, writer in written:
            writer.verify()
        check(os.listdir(cluster.mnt), "an empty mount")
    print("done")


if __name__ == "__main__":
    main()
