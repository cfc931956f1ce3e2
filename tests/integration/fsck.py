#!/usr/bin/env python3
"""admin fsck: a cluster at work is clean; a chunk's file that was taken away comes back by itself; one that nobody knows is found, and --repair
takes it."""
# test: timeout=180
import json
import os
import random
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, check, read, step, wait_for, write  # noqa: E402

COPY_ORPHAN = 44  # master/meta/check.h


def fsck(cluster, *options, status):
    done = subprocess.run([cluster.program("granary"), "admin", "fsck", "--json", *options], capture_output=True, timeout=90, check=False)
    check(done.returncode == status, f"fsck {options}: {done.returncode}, not {status}: {done.stdout.decode()} {done.stderr.decode()}")
    return json.loads(done.stdout)


def chunk_files(cluster, number):
    """id -> path, of the chunks (not packs) of a chunkserver."""
    found = {}
    for folder, _, names in os.walk(os.path.join(cluster.path, "data", f"chunkserver-{number}", "chunks")):
        found |= {int(n.split(".")[0], 16): os.path.join(folder, n) for n in names if n.endswith(".chunk")}
    return found


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def plant_chunk(cluster, number, path, chunk):
    """A copy of a chunk's file under another id, as it stands in chunkserver/chunk_format.h and store_files.c."""
    data = bytearray(read(path))
    data[16:24] = chunk.to_bytes(8, "little")
    data[60:64] = crc32c(data[:60]).to_bytes(4, "little")
    folder = (chunk * 0x9e3779b97f4a7c15 & (1 << 64) - 1) >> 56
    place = os.path.join(cluster.path, "data", f"chunkserver-{number}", "chunks", f"{folder >> 4:x}", f"{folder & 15:x}")
    os.makedirs(place, exist_ok=True)
    place = os.path.join(place, f"{chunk:016x}.chunk")
    write(place, bytes(data))
    return place


def churn(cluster, ending):
    """Names come and go all the while."""
    generator = random.Random(3)
    while not ending.is_set():
        path = f"{cluster.mnt}/churn-{generator.randrange(20)}"
        write(path, generator.randbytes(generator.randrange(1, 400000)))
        os.rename(path, path + "-moved")
        if generator.randrange(2):
            os.unlink(path + "-moved")


def all_up(cluster):
    wait_for(lambda: sum(s["up"] for s in cluster.status()["servers"]) == 4, 20, "all chunkservers in service")


def main():
    with Cluster(mount=True, masters=3, chunkservers=4) as cluster:
        step("an empty cluster is clean")
        all_up(cluster)
        report = fsck(cluster, status=0)
        check(report["servers"] == 4 and report["servers_missed"] == 0, f"{report}")

        step("so is one at work")
        for i in range(200):
            write(f"{cluster.mnt}/file-{i}", random.Random(i).randbytes(100 * i))
        for i in range(4):
            write(f"{cluster.mnt}/large-{i}", random.Random(i).randbytes(3 << 20))
        os.link(f"{cluster.mnt}/large-0", f"{cluster.mnt}/large-link")
        os.unlink(f"{cluster.mnt}/large-1")
        ending = threading.Event()
        thread = threading.Thread(target=churn, args=(cluster, ending))
        thread.start()
        try:
            for _ in range(2):
                report = fsck(cluster, status=0)
                check(report["found"] == 0, f"a cluster at work: {report}")
        finally:
            ending.set()
            thread.join()
        text = cluster.granary("admin", "fsck").decode()
        check(text.startswith("clean"), text)

        step("a chunk's file that is gone, and one that nobody knows")
        os.sync()
        victim = next(n for n in range(1, 5) if chunk_files(cluster, n))
        files = chunk_files(cluster, victim)
        cluster.dev("kill", "chunkserver", str(victim))
        gone = max(files)
        orphan = gone - (1 << 22)  # a millisecond older: an id that no master gave out
        check(orphan not in files, "the id is in use")
        place = plant_chunk(cluster, victim, files[gone], orphan)
        os.unlink(files[gone])
        cluster.up()
        all_up(cluster)
        wait_for(lambda: cluster.status()["orphan_copies"] == 1, 10, "the orphan in admin status")
        wait_for(lambda: os.path.exists(files[gone]), 30, "the file that was gone, made anew from the other copies")
        wait_for(lambda: cluster.status()["safe"], 30, "all data to be safe")
        report = fsck(cluster, status=1)
        found = {(f["kind"], int(f["id"], 16)) for f in report["findings"]}
        check(found == {(COPY_ORPHAN, orphan)}, f"found {report['findings']}")

        step("it is kept as long as it is young; then --repair takes it")
        report = fsck(cluster, "--repair", status=1)
        check(report["repaired"] == 0 and os.path.exists(place), f"repaired {report}")
        report = fsck(cluster, "--repair", "--orphan-age", "0s", status=0)
        check([f["repair"] for f in report["findings"]] == ["repaired"], f"repaired {report}")
        wait_for(lambda: not os.path.exists(place), 20, "the orphan's deletion")
        report = fsck(cluster, status=0)
        check(report["found"] == 0, f"afterwards: {report}")
        for i in (0, 2, 3):
            check(read(f"{cluster.mnt}/large-{i}") == random.Random(i).randbytes(3 << 20), f"large-{i}")
    print("done")


main()
