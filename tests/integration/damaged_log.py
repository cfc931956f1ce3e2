#!/usr/bin/env python3
"""Entries of masters' logs are damaged on their disks: on one that has to read them again, then others on each of three. Nothing is
lost, nobody needs help, and the damage is gone for good."""
# test: timeout=120
import glob
import json
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, check, read, step, wait_for  # noqa: E402


def folder(cluster, master):
    return os.path.join(cluster.path, f"data/master-{master}")


def log_of(cluster, master):
    return read(os.path.join(cluster.path, f"log/master-{master}.log")).decode(errors="replace")


def damage(cluster, master, text):
    """Flips a bit of each entry in the master's log that says `text`."""
    places = 0
    for path in glob.glob(os.path.join(folder(cluster, master), "log/wal-*")):
        data = read(path)
        for match in re.finditer(re.escape(text.encode()), data):
            places += 1
            with open(path, "r+b") as file:
                file.seek(match.start())
                file.write(bytes([data[match.start()] ^ 1]))
    check(places > 0, f"no entry of master {master} says {text}")


def damage_last(cluster, master):
    """Flips a bit in the last entry of the master's log: the others still have that in memory, as it is away."""
    last = None
    for path in glob.glob(os.path.join(folder(cluster, master), "log/wal-*")):
        data = read(path)
        for match in re.finditer(b"GWR1\x01", data):
            index = int.from_bytes(data[match.start() + 24:match.start() + 32], "little")
            if not last or index > last[0]:
                last = index, path, match.start()
    check(last, "there is no entry")
    with open(last[1], "r+b") as file:
        file.seek(last[2] + 16)
        byte = file.read(1)[0]
        file.seek(last[2] + 16)
        file.write(bytes([byte ^ 1]))


def starts(cluster, master):
    """What each start of the master found damaged."""
    return [int(count) for count in re.findall(r"master_restored .*damaged=(\d+)", log_of(cluster, master))]


def restart(cluster, master):
    """How many damaged entries the start finds."""
    before = len(starts(cluster, master))
    cluster.dev("restart", "master", str(master))
    return wait_for(lambda: starts(cluster, master)[before:], 20, f"master {master} to have read its log")[0]


def make(cluster, first, last):
    names = [f"/name-{number:04d}" for number in range(first, last)]
    for name in names:
        cluster.granary("mkdir", name)
    return [name[1:] for name in names]


def check_names(cluster, names):
    listed = set(cluster.granary("ls", "/").decode().split())
    missing = [name for name in names if name not in listed]
    check(not missing, f"missing: {missing[:5]} of {len(missing)}")


def all_hold(cluster):
    members = json.loads(cluster.granary("admin", "raft", "status", "--json"))["members"]
    return len(members) == 3 and all(member["match"] == members[0]["match"] > 0 and member["contact_ms"] < 500 for member in members)


def one(cluster, names):
    victim = next(number for number in (1, 2, 3) if number != cluster.leader())
    step(f"master {victim}: an entry is damaged, and the database, which would not need it, is gone")
    wait_for(lambda: all_hold(cluster), 20, "all to hold the log")
    cluster.dev("kill", "master", str(victim))
    damage_last(cluster, victim)
    for path in glob.glob(os.path.join(folder(cluster, victim), "state*")):
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    names += make(cluster, 20, 25)
    check(restart(cluster, victim) == 1, "the damage was not seen")
    wait_for(lambda: all_hold(cluster), 20, "all to hold the log")
    step("it is gone for good")
    cluster.dev("kill", "master", str(victim))
    check(restart(cluster, victim) == 0, "the entry was not made good on the disk")
    wait_for(lambda: all_hold(cluster), 20, "all to hold the log")


def three(cluster, names):
    step("all three are killed, and another entry is damaged on each")
    for master in (1, 2, 3):
        cluster.dev("kill", "master", str(master))
    for master in (1, 2, 3):
        damage(cluster, master, names[11 + master])
    for master in (1, 2, 3):
        check(restart(cluster, master) > 0, f"master {master} did not see the damage")
    names += make(cluster, 25, 30)
    check_names(cluster, names)


def main():
    with Cluster(chunkservers=1) as cluster:
        names = make(cluster, 0, 20)
        one(cluster, names)
        check_names(cluster, names)
        three(cluster, names)


main()
