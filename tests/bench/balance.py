#!/usr/bin/env python3
"""balance.py [--unit MIB] [--file MIB] [--seconds S]: two larger servers join four; what does it cost to make all equally full?

Six chunkservers with disks (small ext4 on loop files) of 1:1:1:1:2:4 units of MIB (2048); four are up, 30% full of files of --file MiB
(16), then the other two. A writer (1 MiB at a time, every fourth synced) runs as fast as it can for S seconds (10) and on while `admin
rebalance` runs at its default rate. Reported, and a miss ends with 1:

    off       how many points the share of a server is off the mean, at most, afterwards       <= 5
    moved     bytes sent beside the least that make of what was what is afterwards            <= 1.1
    writer    its throughput meanwhile beside that of before                                   >= 70%"""
import argparse
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import json  # noqa: E402

from cluster import DiskCluster, check, ends, read, wait_for  # noqa: E402
from repair import Writer  # noqa: E402

MIB = 1 << 20
UNITS = (1, 1, 1, 1, 2, 4)
FULL = 0.3  # of the four, at first: 12% of the six, and the writer has its part. More than 30% cannot be: the largest has a third at most
POINTS, MOVED, WRITER_SHARE = 5, 1.1, 0.7


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--unit", type=int, default=2048)
    parser.add_argument("--file", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    return parser.parse_args()


def plan(cluster):
    return json.loads(cluster.granary("admin", "rebalance", "--dry-run", "--json"))


def moved(cluster):
    total = 0
    for name in os.listdir(os.path.join(cluster.path, "log")):
        if name.startswith("chunkserver"):
            text = read(os.path.join(cluster.path, "log", name)).decode(errors="replace")
            total += sum(int(n) for n in re.findall(r"copy_filled .*bytes=(\d+)", text))
    return total


def mean_of(servers):
    return sum(s["bytes_used"] for s in servers) / sum(s["bytes_total"] for s in servers)


def least(before, after):
    """To come from the one to the other."""
    used = {s["id"]: s["bytes_used"] for s in before}
    return sum(max(0, s["bytes_used"] - used[s["id"]]) for s in after)


class Settled:
    """What the servers say of their space, when it has been the same for a while and nothing moves."""

    def __init__(self, cluster):
        self.cluster, self.last, self.since = cluster, None, 0

    def __call__(self):
        now = plan(self.cluster)
        used = [s["bytes_used"] for s in now["servers"]]
        if used != self.last:
            self.last, self.since = used, time.monotonic()
        return now["servers"] if time.monotonic() - self.since > 1 and not now["running"] and now["moves"] == 0 else None


def measure(options, cluster):
    data = os.urandom(options.file * MIB)
    files = int(FULL * 4 * (options.unit - 64) / 3 / options.file)
    for number in range(files):
        with open(os.path.join(cluster.mnt, f"file-{number}"), "wb") as file:
            file.write(data)
    os.sync()
    writer = Writer(os.path.join(cluster.mnt, "writer"))
    writer.start()
    begun = time.monotonic()
    writer.ending.wait(options.seconds)
    cluster.up("--chunkservers", "6")
    wait_for(lambda: len(plan(cluster)["servers"]) == 6, 30, "six chunkservers")
    before, sent, begin = plan(cluster)["servers"], moved(cluster), time.monotonic()
    ended = cluster.granary("admin", "rebalance", "--wait", timeout=3600).decode().strip()
    end = time.monotonic()
    writer.ending.set()
    writer.join()
    usual, meanwhile = writer.rate(begun, begun + options.seconds), writer.rate(begin, end)
    sent = moved(cluster) - sent
    after = wait_for(Settled(cluster), 30, "the servers' word of their space")
    off = max(abs(s["bytes_used"] / s["bytes_total"] - mean_of(after)) * 100 for s in after)
    needed = least(before, after)
    print(ended)
    print("full: " + ", ".join(f"{100 * s['bytes_used'] / s['bytes_total']:.1f}% of {s['bytes_total'] / MIB:.0f} MiB" for s in after) +
          f"; mean {100 * mean_of(after):.1f}%")
    print(f"off       {off:.1f} points at most (goal {POINTS})")
    print(f"moved     {sent / MIB:.0f} MiB in {end - begin:.0f} s, at least {needed / MIB:.0f}: {sent / needed:.2f} (goal {MOVED})")
    print(f"writer    {meanwhile:.1f} MiB/s, {usual:.1f} before: {100 * meanwhile / usual:.0f}% (goal {100 * WRITER_SHARE:.0f}%)")
    check(cluster.status()["safe"], "copies are lacking")
    missed = [f"{off:.1f} points off"] if off > POINTS else []
    missed += [f"{sent / needed:.2f} of the least bytes moved"] if sent > MOVED * needed else []
    return missed + ([f"the writer kept {meanwhile / usual:.2f}"] if meanwhile < WRITER_SHARE * usual else [])


def main():
    options = arguments()
    with DiskCluster([unit * options.unit * MIB for unit in UNITS], mount=True, chunkservers=4) as cluster:
        missed = measure(options, cluster)
    sys.exit(ends(missed))


main()
