#!/usr/bin/env python3
"""Rot of every kind on the disks of chunkservers, while they run and while they are stopped: readers never see a wrong byte, one scrub
finds it all, and it is repaired from the other copies."""
# test: timeout=240
import glob
import hashlib
import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, check, read, step, wait_for  # noqa: E402

HEADER, TABLE, BLOCK = 4096, 65536, 4096
DATA = HEADER + TABLE


def files(cluster, server, kind="chunk"):
    found = glob.glob(f"{cluster.path}/data/chunkserver-{server}/chunks/*/*/*.{kind}")
    return sorted(found, key=os.path.getsize, reverse=True)


def flip(path, offset, count=1):
    """Where the page cache does not hide it from nor show it to the process: it is the file's content either way."""
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(count)
        file.seek(offset)
        file.write(bytes(b ^ 0x55 for b in old))
        file.flush()
        os.fsync(file.fileno())


def disks(cluster):
    return [s["disk"] for s in json.loads(cluster.granary("admin", "servers", "--json"))["servers"]]


def scrub(cluster, *words):
    result = json.loads(cluster.granary("admin", "scrub", "--wait", "--json", *words, timeout=90))
    print(f"   scrub: {result}", flush=True)
    check(result["damaged"] == result["repaired"] and result["lost"] == 0, f"not all was repaired: {result}")
    return result


def put_files(cluster):
    random.seed(7)
    digests = {}
    for number, size in enumerate([9 << 20, 5 << 20, 3 << 20, 2 << 20, 3 << 20, 1 << 20, 1 << 20, 70000, 1234, 200000, 31]):
        data = random.randbytes(size)
        cluster.granary("put", "-", f"/file-{number}", data=data)
        digests[f"/file-{number}"] = hashlib.sha256(data).hexdigest()
    return digests


def verify(cluster, digests):
    for path, digest in digests.items():
        check(hashlib.sha256(cluster.granary("cat", path)).hexdigest() == digest, f"{path} is wrong")


def copies_are_sound(cluster):
    """Every copy of a chunk has the same content, header and table included but for padding."""
    seen = {}
    for server in range(1, 5):
        for path in files(cluster, server):
            content = hashlib.sha256(read(path)).hexdigest()
            seen.setdefault(os.path.basename(path), set()).add(content)
    return all(len(contents) == 1 for contents in seen.values())


def rot_while_running(cluster, digests):
    step("flipped bits in data, table and header, a hole, a cut file, while the processes run")
    large = files(cluster, 1)
    flip(large[0], DATA + 10 * BLOCK + 17)
    flip(large[0], DATA + 300 * BLOCK, 3 * BLOCK)
    flip(large[0], HEADER + 4 * 40, 4)
    flip(large[0], 20)
    flip(files(cluster, 2, "pack")[0], 4096 + 40)
    with open(files(cluster, 3)[0], "r+b") as file:
        file.truncate(DATA + 100 * BLOCK)
    verify(cluster, digests)
    result = scrub(cluster)
    check(result["damaged"] >= 8, f"found only {result['damaged']}")
    verify(cluster, digests)
    check(scrub(cluster)["damaged"] == 0, "damage after the repair")
    check(copies_are_sound(cluster), "copies differ")
    counts = [sum(d[name] for d in disks(cluster)) for name in ("damage_found", "damage_repaired")]
    check(counts[0] == counts[1], f"found and repaired: {counts}")

    step("two files swapped and one removed while the processes run")
    first, second, third = files(cluster, 2)[:3]
    os.rename(first, first + ".aside")
    os.rename(second, first)
    os.rename(first + ".aside", second)
    os.unlink(third)
    verify(cluster, digests)
    cluster.granary("admin", "scrub", "--wait", timeout=90)
    wait_for(lambda: all(d["uncertain"] == 0 for d in disks(cluster)), 30, "the copies to be made again")
    verify(cluster, digests)
    check(scrub(cluster)["damaged"] == 0, "damage after the repair")
    check(copies_are_sound(cluster), "copies differ")


def rot_while_stopped(cluster, digests):
    step("flipped, cut, swapped, removed and zeroed while a server is down")
    cluster.dev("kill", "chunkserver", "1")
    flip(files(cluster, 1, "pack")[0], 4096 + 50)
    all_files = files(cluster, 1)
    for path in all_files:
        flip(path, DATA + 5 * BLOCK + 100)
    with open(all_files[0], "r+b") as file:
        file.truncate(DATA + 50 * BLOCK)
    if len(all_files) >= 3:
        os.rename(all_files[1], all_files[1] + ".aside")
        os.rename(all_files[2], all_files[1])
        os.rename(all_files[1] + ".aside", all_files[2])
    cluster.dev("kill", "chunkserver", "3")
    for path in files(cluster, 3)[:2]:
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            file.write(bytes(size))
    cluster.up()
    verify(cluster, digests)
    cluster.granary("admin", "scrub", "--wait", timeout=90)
    wait_for(lambda: all(d["uncertain"] == 0 for d in disks(cluster)), 30, "the copies to be made again")
    check(scrub(cluster)["damaged"] == 0, "damage after the repair")
    verify(cluster, digests)
    check(copies_are_sound(cluster), "copies differ")


def one_server_one_file(cluster, digests):
    step("scrub of one server, of one file; names that are none")
    server = json.loads(cluster.granary("admin", "servers", "--json"))["servers"][0]
    check(scrub(cluster, server["id"])["servers"] == 1, "one server")
    result = scrub(cluster, "/file-0")
    check(result["chunks"] == 3, f"three copies of one chunk: {result}")
    check(scrub(cluster, "/file-8")["chunks"] == 3, "of a pack")
    cluster.granary("admin", "scrub", "nowhere", status=3)
    cluster.granary("admin", "scrub", "/nothing", status=3)
    cluster.granary("admin", "scrub")
    verify(cluster, digests)


def lost_everywhere(cluster):
    step("a block damaged in all copies: an error for just that range, and status says so")
    data = random.randbytes(2 << 20)
    cluster.granary("put", "-", "/lost", data=data)
    needle = data[33 * BLOCK:34 * BLOCK]
    damaged = 0
    for server in range(1, 5):
        for path in files(cluster, server):
            content = read(path)
            at = content.find(needle)
            if at >= 0:
                flip(path, at + 7)
                damaged += 1
    check(damaged == 3, f"{damaged} copies")
    cluster.granary("admin", "scrub", "--wait", "/lost", status=1)
    check(sum(d["damage_lost"] for d in disks(cluster)) == 1, f"{disks(cluster)}")
    check(b"LOST: 4.0K" in cluster.granary("admin", "status"), "status")
    cluster.granary("get", "/lost", "-", status=1)
    check(cluster.granary("get", "--range", "0-100000", "/lost", "-") == data[:100001], "what is before it")
    check(cluster.granary("get", "--range", "200000-2097151", "/lost", "-") == data[200000:], "what is behind it")
    cluster.granary("rm", "/lost")


def main():
    with Cluster() as cluster:
        step("files of all sizes")
        digests = put_files(cluster)
        verify(cluster, digests)
        check(scrub(cluster)["damaged"] == 0, "damage without a cause")
        rot_while_running(cluster, digests)
        rot_while_stopped(cluster, digests)
        one_server_one_file(cluster, digests)
        lost_everywhere(cluster)
    print("done")


if __name__ == "__main__":
    main()
