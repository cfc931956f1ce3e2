#!/usr/bin/env python3
"""A disk that fails, one that is slow, one that hangs, and one that is gone: a writer goes on, the server says what is wrong and comes back
by itself; nothing is lost."""
# test: exclusive timeout=240
import glob
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import BIN, DIR, Cluster, Writer, check, step, wait_for  # noqa: E402

FAULTS = os.path.join(DIR, "faults")
SHIM = os.path.join(BIN, "disk_shim.so")


def fault(text):
    """Takes effect at once, whole."""
    with open(FAULTS + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.rename(FAULTS + ".new", FAULTS)


class Disks:
    def __init__(self, cluster):
        self.cluster = cluster
        self.addresses = {name: p.get("address") for name, p in cluster.processes().items()}

    def server(self, number):
        for server in json.loads(self.cluster.granary("admin", "servers", "--json"))["servers"]:
            if server["address"] == self.addresses[f"chunkserver-{number}"]:
                return server
        raise AssertionError(f"chunkserver {number} is not known")

    def is_back(self, number):
        server = self.server(number)
        return server["up"] and not server["failed"] and not server["slow"] and server["disk"]["uncertain"] == 0


def under(cluster, disks, name, number, what, seen, back_s, pause_s):
    """A writer while the fault lasts."""
    writer = Writer(os.path.join(cluster.mnt, name))
    writer.start()
    writer.progress(40, 30)
    since = writer.times[-1]
    what()
    wait_for(lambda: seen(disks.server(number)), 20, f"chunkserver {number}: {name} to be said")
    writer.progress(40, 30)
    pause = writer.longest_pause(since)
    after = writer.times[-1]
    writer.progress(80, 30)
    steady = writer.longest_pause(after)
    print(f"   {name}: longest pause {pause * 1000:.0f} ms, afterwards {steady * 1000:.0f} ms", flush=True)
    check(pause < pause_s, f"{name}: a pause of {pause:.1f} s")
    check(steady < 1, f"{name}: pauses of {steady:.1f} s go on")
    fault("")
    wait_for(lambda: disks.is_back(number), back_s, f"chunkserver {number} to come back after: {name}")
    writer.progress(20, 30)
    writer.finish()
    writer.verify()
    return writer


def gone(cluster, disks):
    """The file system of a data folder is unmounted under the process."""
    data = os.path.join(cluster.path, "data", "chunkserver-4")
    image = os.path.join(DIR, "disk")
    cluster.dev("kill", "chunkserver", "4")
    subprocess.run(["truncate", "-s", "2G", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    os.rename(data, data + ".before")
    os.mkdir(data)
    if subprocess.run(["mount", "-o", "loop", image, data], check=False, capture_output=True).returncode != 0:
        os.rmdir(data)
        os.rename(data + ".before", data)
        cluster.up()
        print("   no loop mounts here: left out")
        return
    try:
        subprocess.run(f"cp -a {data}.before/. {data}/", shell=True, check=True)
        cluster.up()
        wait_for(lambda: disks.is_back(4), 20, "chunkserver 4 on its new disk")
        writer = Writer(os.path.join(cluster.mnt, "gone"))
        writer.start()
        writer.progress(40, 30)
        subprocess.run(["umount", "-l", data], check=True)
        wait_for(lambda: disks.server(4)["failed"], 20, "the folder to be missed")
        check("data folder" in disks.server(4)["disk"]["reason"], disks.server(4))
        writer.progress(40, 30)
        check(not os.listdir(data), f"written below the mount: {os.listdir(data)}")
        subprocess.run(["mount", "-o", "loop", image, data], check=True)
        wait_for(lambda: disks.is_back(4), 40, "chunkserver 4 to come back with its disk")
        writer.finish()
        writer.verify()
    finally:
        cluster.dev("kill", "chunkserver", "4", check_status=False)
        subprocess.run(["umount", "-l", data], check=False)


def main():
    fault("")
    os.environ["DISK_FAULTS"] = FAULTS
    os.environ["LD_PRELOAD"] = SHIM
    written = []
    with Cluster(mount=True) as cluster:
        os.environ.pop("LD_PRELOAD")
        disks = Disks(cluster)
        step("a disk that fails")
        written.append(under(cluster, disks, "eio", 1, lambda: fault("data/chunkserver-1/ eio"), lambda s: s["failed"], 30, 4))
        check(disks.server(1)["disk"]["reopened"] >= 1, disks.server(1))
        step("a disk that is slow")
        written.append(under(cluster, disks, "slow", 2, lambda: fault("data/chunkserver-2/ delay 1000"), lambda s: s["slow"], 60, 15))
        step("a disk that hangs")
        written.append(under(cluster, disks, "hang", 3, lambda: fault("data/chunkserver-3/ hang"),
                             lambda s: s["failed"] or s["slow"], 60, 10))
        step("a disk that is gone")
        gone(cluster, disks)
        for writer in written:
            writer.verify()
        check(not glob.glob(f"{cluster.path}/data/*/quarantine/*"), "something went to quarantine")
    print("done")


if __name__ == "__main__":
    main()
