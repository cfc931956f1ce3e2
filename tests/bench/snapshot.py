#!/usr/bin/env python3
"""snapshot.py [--files N] [--rate N] [--seconds S]: an empty master gets the state of N files while names are made; then each restarts.

Three masters (each on a host of its own) are given N files (5,000,000) by a made backup. `granary bench meta --rate` then makes N names a
second (1,000) for S seconds (120, the pull has to end within them); after five of them one master's disk is replaced by an empty one,
and it pulls the leader's state. Afterwards each master is killed and started again. A miss ends with 1:

    creates   a second, while the state is pulled        >= 95% of what was asked for (also the longest time one took from when it was due)
    leader    its memory's growth, from before           <= 256 MiB
    restart   until it holds the whole log again         < 5 s each"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import network  # noqa: E402

if __name__ == "__main__" and not {"--help", "-h"} & set(sys.argv):
    network.enter()
from cluster import BIN, DIR, check, ends, wait_for  # noqa: E402
from scene import Scene  # noqa: E402

MIB = 1 << 20
RUN_UP_S = 5
RATE_SHARE, GROWTH_MIB, RESTART_S = 0.95, 256, 5
CLOCK = threading.Event()  # never set: to let time pass


def memory(process, key):
    """MiB, of /proc/PID/status."""
    with open(f"/proc/{process.popen.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key + ":")) / 1024


def forget_peak(process):
    """VmHWM begins again."""
    with open(f"/proc/{process.popen.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


class Load(threading.Thread):
    """granary bench meta; `row` is its first one, of the creates. What follows is not waited for."""

    def __init__(self, cluster, rate, seconds):
        super().__init__(daemon=True)
        self.row = None
        self.process = subprocess.Popen(
            cluster.client.command(os.path.join(BIN, "granary"), "--cluster", cluster.addresses, "bench", "meta", "--json", "--threads", "16",
                                   "--rate", str(rate), "--count", str(int(rate * seconds)), "--dir", DIR), stdout=subprocess.PIPE)

    def run(self):
        line = self.process.stdout.readline()
        self.process.kill()
        self.process.wait()
        self.row = json.loads(line) if line else {}


def replace_one(scene, load):
    """What it took, and what it cost."""
    cluster = scene.cluster
    leader = cluster.leader()
    victim = next(m for m in cluster.masters if m is not leader)
    for master in cluster.masters:
        forget_peak(master)
    before = memory(leader, "VmRSS")
    load.start()
    CLOCK.wait(RUN_UP_S)
    victim.kill()
    victim.wipe()
    began = time.monotonic()
    victim.start()
    # its file `store` names what it has pulled; before, the others still count its old disk
    wait_for(lambda: os.path.exists(os.path.join(victim.data, "store")) and scene.caught_up(1, 2, 3), 900, "the empty master to have caught up")
    seconds, in_time = time.monotonic() - began, load.row is None
    growth = memory(leader, "VmHWM") - before
    print(f"pulled    in {seconds:.1f} s{'' if in_time else ', longer than names were made'}; the new one's memory at most "
          f"{memory(victim, 'VmHWM'):.0f} MiB")
    print(f"leader    {before:.0f} MiB before, at most {before + growth:.0f} meanwhile")
    return growth, in_time


def restarted(scene, master):
    """Seconds from its start until it holds the whole log."""
    master.kill()
    number = int(master.name[-1])

    def silent_ms():
        """0: it leads, or nobody does."""
        state = scene.raft()
        return next((m["contact_ms"] for m in state["members"] if m["id"] == number and state["leader"] != number), 0)

    def holds():
        state = scene.raft()
        return any(m["id"] == number and m["match"] >= state["log_last"] - 200 and m["contact_ms"] < 300 for m in state["members"])
    wait_for(lambda: silent_ms() > 500, 30, "a leader that misses it")
    began = time.monotonic()
    master.start()
    wait_for(holds, 300, f"{master.name} to hold the log")
    return time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5_000_000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    made, misses = os.path.join(DIR, "made"), []
    with Scene(mounts=0, chunkservers=0) as scene:
        subprocess.run([os.path.join(BIN, "make_backup"), made, str(options.files)], check=True, stdout=subprocess.DEVNULL)
        began = time.monotonic()
        scene.granary("admin", "restore", made, timeout=1800)
        os.unlink(made)
        wait_for(lambda: scene.caught_up(1, 2, 3), 300, "all masters to have the files")
        print(f"restored  {options.files} files in {time.monotonic() - began:.1f} s", flush=True)
        load = Load(scene.cluster, options.rate, options.seconds)
        growth, in_time = replace_one(scene, load)
        load.join(options.seconds * 10)
        check(load.row, "granary bench has failed")
        print(f"creates   {load.row['ops_s']:.0f} a second of {options.rate}; median {load.row['p50_us'] / 1000:.1f} ms, "
              f"p99 {load.row['p99_us'] / 1000:.0f}, longest {load.row['max_us'] / 1000:.0f} ms", flush=True)
        times = [restarted(scene, master) for master in scene.cluster.masters]
        print("restart   " + ", ".join(f"{m.name} {t:.1f} s" for m, t in zip(scene.cluster.masters, times)), flush=True)
        misses += [f"creates: {load.row['ops_s']:.0f} a second"] if load.row["ops_s"] < RATE_SHARE * options.rate else []
        misses += [f"leader: grew by {growth:.0f} MiB, at most {GROWTH_MIB}"] if growth > GROWTH_MIB else []
        misses += [f"restart: {max(times):.1f} s, less than {RESTART_S}"] if max(times) >= RESTART_S else []
        misses += [] if in_time else ["the pull took longer than names were made: try more --seconds"]
    return ends(misses)


if __name__ == "__main__":
    sys.exit(main())
