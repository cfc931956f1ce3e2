#!/usr/bin/env python3
"""Data that moves between chunkservers that are well: two large empty ones are filled while a program writes and the leader is killed, no
byte is moved in vain; one is drained and unplugged, which costs no repair; one is drained while another is lost; a drain that cannot end
says why."""
# test: timeout=240
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DiskCluster, Writer, check, read, step, wait_for, write  # noqa: E402

MIB = 1 << 20
DISKS = [384 * MIB] * 4 + [704 * MIB, 1024 * MIB]
FILE = 4 * MIB
FILES = 28
COLD_FILES = 4
TARGET = 2
POINTS = 5


def moved(cluster):
    """Bytes sent to fill copies, as the chunkservers' logs say."""
    total = 0
    for name in os.listdir(os.path.join(cluster.path, "log")):
        if name.startswith("chunkserver"):
            text = read(os.path.join(cluster.path, "log", name)).decode(errors="replace")
            total += sum(int(n) for n in re.findall(r"copy_filled .*bytes=(\d+)", text))
    return total


def plan(cluster):
    return json.loads(cluster.granary("admin", "rebalance", "--dry-run", "--json"))


def share(server, what="bytes_used"):
    return 100 * server[what] / server["bytes_total"]


def servers(cluster):
    """By number: dev gives them their addresses."""
    addresses = {p["address"]: int(name.split("-")[1]) for name, p in cluster.processes().items() if name.startswith("chunkserver")}
    found = json.loads(cluster.granary("admin", "servers", "--json"))["servers"]
    return {addresses[s["address"]]: s for s in found if s["address"] in addresses}


def is_safe(cluster):
    return cluster.status()["safe"]


def verify(cluster, files, where):
    mount = os.path.join(cluster.path, "mnt-" + where)
    process = cluster.mount_again(mount)
    for name, wanted in files.items():
        check(hashlib.sha256(read(os.path.join(mount, name))).digest() == wanted, f"{name}, read {where}: not what was written")
    cluster.unmount(mount, process)


def rebalance(cluster):
    step("two large servers are new: a plan, and what it comes to, with a program that writes and a leader that is killed")
    before = plan(cluster)
    mean = 100 * sum(s["bytes_used"] for s in before["servers"]) / sum(s["bytes_total"] for s in before["servers"])
    check(len(before["servers"]) == 6 and not before["running"], f"the plan: {before}")
    check(sum(s["bytes_used"] for s in before["servers"]) == sum(s["bytes_planned"] for s in before["servers"]), "the plan loses bytes")
    check(all(abs(share(s, "bytes_planned") - mean) < POINTS for s in before["servers"]), f"planned, with a mean of {mean}: {before}")
    sent = moved(cluster)
    writer = Writer(os.path.join(cluster.mnt, "writer"), rate=4)
    writer.start()
    waiting = subprocess.Popen([cluster.program("granary"), "admin", "rebalance", "--rate", "60", "--wait"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    wait_for(lambda: plan(cluster)["bytes_moved"] > 20 * MIB, 30, "the first moves")
    check(is_safe(cluster), "a chunk has fewer copies while it moves")
    cluster.dev("kill", "master", str(cluster.leader()))
    out, err = waiting.communicate(timeout=90)
    check(waiting.returncode == 0 and b"moved" in out, f"rebalance --wait: {waiting.returncode} {out} {err}")
    cluster.up()
    writer.finish()
    writer.verify()
    sent = moved(cluster) - sent
    after = wait_for(Settled(cluster), 20, "the servers' word of their space")
    mean = 100 * sum(s["bytes_used"] for s in after) / sum(s["bytes_total"] for s in after)
    print("   " + ", ".join(f"{share(s):.1f}%" for s in after) + f"; mean {mean:.1f}%; {sent / MIB:.0f} MiB moved, planned "
          f"{before['bytes_to_move'] / MIB:.0f}: {out.decode().strip()}", flush=True)
    check(all(abs(share(s) - mean) < POINTS for s in after), f"off the mean of {mean}: {after}")
    # What the writer has made may have moved, too; and what moves is whole chunks.
    most = 1.1 * before["bytes_to_move"] + 3 * writer.blocks * writer.BLOCK + 6 * FILE
    check(0 < sent <= most, f"{sent} bytes were moved, {before['bytes_to_move']} were planned, {most} are allowed")
    check(is_safe(cluster), "copies are lacking")


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


def drain(cluster):
    step("a server is drained and unplugged: no repair")
    victim = servers(cluster)[1]
    out = cluster.granary("admin", "drain", "--wait", victim["address"])
    check(b"may be unplugged" in out, f"drain --wait: {out}")
    victim = servers(cluster)[1]
    check(victim["draining"] and victim["empty"] and victim["chunks_left"] == 0, f"drained: {victim}")
    check(is_safe(cluster), "copies are lacking after a drain")
    cluster.granary("admin", "set", "repair_delay_ms", "1")
    sent = moved(cluster)
    cluster.dev("kill", "chunkserver", "1")
    wait_for(lambda: not servers(cluster)[1]["up"], 20, "the server to be gone")
    check(is_safe(cluster) and moved(cluster) == sent, "an empty server was missed")


def drain_with_loss(cluster):
    step("a server is lost while another is drained: repair comes first, and the drain ends")
    cluster.granary("admin", "set", "rebalance_bytes_per_second", "4M")
    victim = servers(cluster)[2]
    cluster.granary("admin", "drain", victim["address"])
    wait_for(lambda: plan(cluster)["moves"] > 0, 20, "the drain to begin")
    cluster.dev("kill", "chunkserver", "3")
    wait_for(lambda: not is_safe(cluster), 20, "copies to be missed")
    wait_for(lambda: is_safe(cluster), 60, "copies to be back")
    cluster.granary("admin", "set", "rebalance_bytes_per_second", "default")
    cluster.granary("admin", "drain", "--wait", victim["id"])
    check(servers(cluster)[2]["empty"] and is_safe(cluster), "not drained, or not safe")


def drain_in_vain(cluster):
    step("a drain that cannot end says why; undrain")
    last = servers(cluster)[5]
    done = subprocess.run([cluster.program("granary"), "admin", "drain", "--wait", "--timeout", "2s", last["address"]], capture_output=True,
                          timeout=90, check=False)
    check(done.returncode == 1 and b"no other chunkserver" in done.stderr, f"a drain in vain: {done}")
    check("no other chunkserver" in servers(cluster)[5]["waits_for"], f"a drain in vain: {servers(cluster)[5]}")
    cluster.granary("admin", "undrain", servers(cluster)[2]["address"])
    cluster.granary("admin", "drain", "--wait", last["address"])
    cluster.granary("admin", "undrain", last["address"])
    check(not servers(cluster)[5]["draining"] and is_safe(cluster), "undrained")
    cluster.granary("admin", "drain", "no-such-server", status=3)


def main():
    with DiskCluster(DISKS, mount=True, chunkservers=4) as cluster:
        rng = random.Random(7)
        files = {}
        for number in range(FILES):
            data = rng.randbytes(FILE)
            write(os.path.join(cluster.mnt, f"file-{number}"), data)
            files[f"file-{number}"] = hashlib.sha256(data).digest()
        cluster.granary("admin", "class", "set", "shards", "cold=2+1")
        cluster.granary("mkdir", "--class", "shards", "/cold")
        for number in range(COLD_FILES):
            data = rng.randbytes(FILE)
            write(os.path.join(cluster.mnt, "cold", str(number)), data)
            files[f"cold/{number}"] = hashlib.sha256(data).digest()
        for number in range(100):
            data = rng.randbytes(rng.randrange(1, 20000))
            write(os.path.join(cluster.mnt, f"small-{number}"), data)
            files[f"small-{number}"] = hashlib.sha256(data).digest()
        os.sync()
        cluster.up("--chunkservers", "6")
        wait_for(lambda: len(servers(cluster)) == 6 and all(s["up"] for s in servers(cluster).values()), 20, "six chunkservers")
        step("a new server does not stay empty: unasked, data begins to move there")
        wait_for(lambda: plan(cluster)["moves"] > 0, 20, "something to move unasked")
        rebalance(cluster)
        cluster.granary("admin", "cool", "--wait", "/cold")
        verify(cluster, files, "after-rebalance")
        drain(cluster)
        drain_with_loss(cluster)
        drain_in_vain(cluster)
        verify(cluster, files, "after-drains")
        cluster.granary("admin", "fsck")


main()
