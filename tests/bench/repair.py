#!/usr/bin/env python3
"""repair.py [--mib N] [--rate MIB] [--seconds S]: one of five chunkservers is lost; how fast, and at whose cost, are all copies back?

A cluster as in tests/integration/campaign (each process on a host of its own) with N MiB of files (2048), each chunkserver allowed to
spend MIB a second on new copies (16). A writer (1 MiB at a time, every fourth synced) runs as fast as it can for S seconds (10), then
on while chunkserver-1 is lost for good. Reported, and a miss ends with 1:

    rate      what the server that had most to send sent over the time it took, as a share of what each may spend     >= 80%
    all       the same of all that sent: as much as the work was evenly among them (each chunk's copy comes from one server)
    writer    its throughput during the repair beside that of before                                                  >= 70%
    safe in   what `admin status` said at 10, 25, 50, 80% of the repair against the truth                            within 25%"""
import argparse
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import network  # noqa: E402

if __name__ == "__main__" and not {"--help", "-h"} & set(sys.argv):
    network.enter()
from cluster import check, ends, read, wait_for  # noqa: E402
from hosts import HostCluster  # noqa: E402

MIB = 1 << 20
FILE = 16 * MIB  # a chunk each
RATE_SHARE, WRITER_SHARE, SAFE_IN_ERROR = 0.8, 0.7, 0.25
MOMENTS = (0.1, 0.25, 0.5, 0.8)


class Writer(threading.Thread):
    """Over one file of 256 MiB, again and again."""
    FILE_MIB = 256

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.ending, self.error = path, threading.Event(), None
        self.synced = [(time.monotonic(), 0)]

    def run(self):
        data, number = os.urandom(MIB), 0
        try:
            with open(self.path, "wb", buffering=0) as file:
                while not self.ending.is_set():
                    os.pwrite(file.fileno(), data, number % self.FILE_MIB * MIB)
                    number += 1
                    if number % 4 == 0:
                        os.fdatasync(file.fileno())
                        self.synced.append((time.monotonic(), number))
        except OSError as error:
            self.error = error

    def rate(self, begin, end):
        """MiB a second."""
        done = [(t, n) for t, n in self.synced if begin <= t <= end]
        check(len(done) > 2 and not self.error, f"the writer did nothing: {self.error}")
        return (done[-1][1] - done[0][1]) / (done[-1][0] - done[0][0])


def fill(folder, mib):
    for number in range(mib * MIB // FILE):
        with open(os.path.join(folder, f"data-{number}"), "wb") as file:
            for _ in range(FILE // (4 * MIB)):
                file.write(os.urandom(4 * MIB))
            file.flush()
            os.fsync(file.fileno())


def set_to(cluster, key, value):
    code, _, complaint = cluster.granary("admin", "set", key, str(value))
    check(code == 0, complaint)


def repair(cluster, lost):
    """When it began and ended, and what status said meanwhile."""
    said = []

    def is_over():
        status = cluster.status()
        if not status:
            return False
        if status["fills"] and status["safe_in_ms"]:
            said.append((time.monotonic(), status["safe_in_ms"] / 1000, status["bytes_lacking"]))
        return bool(said) and status["safe"] and status["chunks_under_replicated"] == 0

    lost.kill()
    wait_for(is_over, 900, "all copies to be back")
    return said[0][0], time.monotonic(), said


def sent(cluster):
    """Bytes sent to fill copies, of each chunkserver, as their logs say."""
    return [sum(int(n) for n in re.findall(rb" copy_filled .*bytes=(\d+)", read(c.log))) for c in cluster.chunkservers]


def report(options, senders, writer, before, during):
    begin, end, said = during
    seconds = end - begin
    share = max(senders) / seconds / (options.rate * MIB)
    active = sum(1 for s in senders if s)
    ratio = writer.rate(begin, end) / writer.rate(*before)
    misses = []
    print(f"{sum(senders) / MIB:.0f} MiB sent in {seconds:.1f} s by {active} servers: " + ", ".join(f"{s / MIB:.0f}" for s in senders if s))
    print(f"rate      {share:5.0%}: {max(senders) / seconds / MIB:.1f} MiB/s of {options.rate} that each may spend")
    print(f"all       {sum(senders) / seconds / active / (options.rate * MIB):5.0%}: {sum(senders) / seconds / MIB:.1f} MiB/s")
    print(f"writer    {ratio:5.0%} of before: {writer.rate(begin, end):.1f} MiB/s of {writer.rate(*before):.1f}")
    if share < RATE_SHARE:
        misses.append(f"rate: {share:.0%}, at least {RATE_SHARE:.0%} is wanted")
    if ratio < WRITER_SHARE:
        misses.append(f"writer: {ratio:.0%}, at least {WRITER_SHARE:.0%} is wanted")
    for moment in MOMENTS:
        at, left, lacking = min(said, key=lambda s: abs(s[0] - begin - moment * seconds))
        error = (left - (end - at)) / (end - at)
        print(f"safe in   {error:+5.0%} at {moment:.0%}: said {left:.1f} s for {lacking / MIB:.0f} MiB, it took {end - at:.1f} s")
        if abs(error) > SAFE_IN_ERROR:
            misses.append(f"safe in: {error:+.0%} at {moment:.0%}, within {SAFE_IN_ERROR:.0%} is wanted")
    return misses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rate", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    cluster = HostCluster(mounts=1)
    cluster.up()
    set_to(cluster, "repair_delay_ms", 1000)
    set_to(cluster, "repair_bytes_per_second", options.rate * MIB)
    fill(cluster.mounts[0].path, options.mib)
    writer = Writer(os.path.join(cluster.mounts[0].path, "writer"))
    writer.start()
    writer.ending.wait(2)  # its first round of the disk, not a condition
    before = time.monotonic(), time.monotonic() + options.seconds
    writer.ending.wait(options.seconds)
    sent_before = sent(cluster)
    during = repair(cluster, cluster.chunkservers[0])
    senders = [b - a for a, b in zip(sent_before, sent(cluster))]
    writer.ending.set()
    writer.join(60)
    misses = report(options, senders, writer, before, during)
    cluster.down()
    return ends(misses + cluster.crashes())


if __name__ == "__main__":
    sys.exit(main())
