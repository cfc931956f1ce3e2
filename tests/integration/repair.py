#!/usr/bin/env python3
"""Chunkservers that are lost for good, while a program writes: every chunk gets all of its copies again, status says so and how long it
takes, and what is read afterwards, from the new copies alone, is what was written. A server that comes back after overwrites does
not serve what it had, and gets only what differs."""
# test: exclusive timeout=300
import hashlib
import os
import random
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, Writer, check, read, step, wait_for, write  # noqa: E402

MIB = 1 << 20
LARGE = 80 * MIB  # two chunks
LARGE_FILES = 3
MEDIUM = 2 * MIB  # a chunk each: more of them than one server is sent at a time
MEDIUM_FILES = 20
SMALL_FILES = 300
PIECE = MIB // 4  # what is overwritten of a chunk
RATE = 16 * MIB
TARGET_SHARE = 0.8


def digest(data):
    return hashlib.sha256(data).hexdigest()


def is_safe(status):
    return status["safe"] and status["chunks_under_replicated"] == 0


def moved(cluster):
    """Bytes sent to fill copies, as the chunkservers' logs say."""
    total = 0
    for name in os.listdir(os.path.join(cluster.path, "log")):
        if name.startswith("chunkserver"):
            text = read(os.path.join(cluster.path, "log", name)).decode(errors="replace")
            total += sum(int(n) for n in re.findall(r"copy_filled .*bytes=(\d+)", text))
    return total


def fill(cluster):
    rng = random.Random(7)
    files = {}
    for number in range(LARGE_FILES):
        files[f"large-{number}"] = rng.randbytes(LARGE)
    for number in range(MEDIUM_FILES):
        files[f"medium-{number}"] = rng.randbytes(MEDIUM)
    for number in range(SMALL_FILES):
        files[f"small-{number}"] = rng.randbytes(rng.randrange(1, 20000))
    for name, data in files.items():
        write(os.path.join(cluster.mnt, name), data)
    os.sync()
    return {name: (len(data), digest(data)) for name, data in files.items()}


def verify(cluster, files, where):
    mount = os.path.join(cluster.path, "mnt-" + where)
    process = cluster.mount_again(mount)  # nothing of it is cached there
    for name, (size, wanted) in files.items():
        data = read(os.path.join(mount, name))
        check(len(data) == size and digest(data) == wanted, f"{name}, read {where}: not what was written")
    cluster.unmount(mount, process)


def lose(cluster, number, bound):
    """Kills it for good and waits until nothing lacks a copy; the seconds that took, and what status said on the way."""
    cluster.dev("kill", "chunkserver", str(number))
    wait_for(lambda: not is_safe(cluster.status()), 20, "status to notice that copies are gone")
    since = time.monotonic()
    said = []

    def over():
        status = cluster.status()
        if status["safe_in_ms"] and status["fills"]:
            said.append((time.monotonic(), status["safe_in_ms"] / 1000, status["bytes_lacking"], status["fill_bytes_per_second"]))
        return is_safe(status)

    wait_for(over, bound, f"all copies to be back without chunkserver {number}")
    return time.monotonic() - since, said


def differences(cluster, files):
    step("a server that was away during overwrites: refilled with what differs, never served before")
    cluster.granary("admin", "set", "repair_delay_ms", "120s")
    before = moved(cluster)
    cluster.dev("kill", "chunkserver", "5")
    overwritten = 0
    for name, (size, _) in files.items():
        if name.startswith("small"):
            continue
        data = bytearray(read(os.path.join(cluster.mnt, name)))
        with open(os.path.join(cluster.mnt, name), "r+b") as file:
            for offset in (5 * MIB, 70 * MIB) if size == LARGE else (size // 2,):  # in each of its chunks
                data[offset:offset + PIECE] = os.urandom(PIECE)
                file.seek(offset)
                file.write(data[offset:offset + PIECE])
                overwritten += PIECE
            file.flush()
            os.fsync(file.fileno())
        files[name] = (size, digest(data))
    check(not is_safe(cluster.status()), "nothing of what was overwritten was on the server")
    cluster.up()
    wait_for(lambda: is_safe(cluster.status()), 60, "all copies to be back")
    bytes_moved = moved(cluster) - before
    print(f"   {bytes_moved / MIB:.1f} MiB moved for {overwritten / MIB:.1f} MiB overwritten", flush=True)
    check(0 < bytes_moved <= overwritten, f"{bytes_moved} bytes were moved, {overwritten} were overwritten")
    verify(cluster, files, "after-differences")


def main():
    with Cluster(mount=True, chunkservers=5) as cluster:
        step("data")
        files = fill(cluster)
        wait_for(lambda: is_safe(cluster.status()), 30, "a safe cluster")
        differences(cluster, files)

        step("chunkserver 1 is lost while a program writes")
        cluster.granary("admin", "set", "repair_delay_ms", "1s")
        cluster.granary("admin", "set", "repair_bytes_per_second", str(RATE))
        writer = Writer(os.path.join(cluster.mnt, "writer"), rate=20)
        writer.start()
        writer.progress(20, 30)
        seconds, said = lose(cluster, 1, 120)
        writer.progress(10, 30)
        writer.finish()
        writer.verify()
        print(f"   safe again after {seconds:.1f} s", flush=True)
        check(said, "status never said how long it takes")
        end = time.monotonic()
        for at, left, lacking, rate in said[:: max(1, len(said) // 5)]:
            print(f"   said {left:.1f} s at {rate / MIB:.1f} MiB/s for {lacking / MIB:.0f} MiB, it took {end - at:.1f} s", flush=True)
        at, _, lacking, _ = said[0]
        if lacking > 4 * RATE:  # by chance the lost server had little
            check(lacking / (end - at) >= TARGET_SHARE * RATE, f"{lacking / (end - at) / MIB:.1f} MiB/s, each server may spend {RATE / MIB:.0f}")
        at, left, _, _ = said[len(said) // 2]
        check(abs(left - (end - at)) <= 0.25 * (end - at) + 1.5, f"half way status said {left:.1f} s, it took {end - at:.1f} s")
        verify(cluster, files, "without-1")

        step("chunkserver 2 is lost; then 3: two copies are left of everything")
        cluster.granary("admin", "set", "repair_bytes_per_second", "default")
        seconds, _ = lose(cluster, 2, 120)
        print(f"   safe again after {seconds:.1f} s", flush=True)
        cluster.dev("kill", "chunkserver", "3")
        wait_for(lambda: cluster.status()["chunks_under_replicated"] > 0, 20, "status to notice it")
        verify(cluster, files, "without-1-2-3")

        step("all come back")
        cluster.up()
        wait_for(lambda: is_safe(cluster.status()), 120, "all copies to be back")
        verify(cluster, files, "at-the-end")
        writer.verify()
    print("done")


if __name__ == "__main__":
    main()
