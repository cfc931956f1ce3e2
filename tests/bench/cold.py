#!/usr/bin/env python3
"""cold.py [--mib N] [--runs N]: how fast cold data is, beside the same data hot, in one run on six chunkservers (4+2).

Sequential reads by `granary get` and through a mount, all shards there and with two servers killed; 4 KiB at random through a mount; what
cooling and warming take. Page caches are dropped before each read. GRANARY_BIN: a release build. Goals: cold sequential 70% of hot, degraded
40%, small reads within twice the latency of hot."""
import argparse
import os
import random
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, ends, step, wait_for  # noqa: E402

MIB = 1 << 20
SMALL_READS = 1500


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def got(cluster, mib, name):
    """MiB/s of `granary get`."""
    drop_caches()
    began = time.monotonic()
    subprocess.run([cluster.program("granary"), "get", name, "/dev/null"], check=True)
    return mib / (time.monotonic() - began)


def streamed(cluster, mib, name):
    """MiB/s of a program that reads through a mount of its own."""
    mount = os.path.join(DIR, "mnt")
    process = cluster.mount_again(mount)
    drop_caches()
    began = time.monotonic()
    with open(mount + name, "rb", buffering=0) as file:
        while file.read(MIB):
            pass
    spent = time.monotonic() - began
    cluster.unmount(mount, process)
    return mib / spent


def small(cluster, mib, name):
    """Median microseconds of 4 KiB at random places."""
    mount = os.path.join(DIR, "mnt")
    process = cluster.mount_again(mount)
    rng = random.Random(1)
    places = rng.sample(range(mib * 256), SMALL_READS)
    drop_caches()
    times = []
    file = os.open(mount + name, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    for place in places:
        began = time.monotonic()
        if len(os.pread(file, 4096, place * 4096)) != 4096:
            raise AssertionError(f"short read at {place}")
        times.append((time.monotonic() - began) * 1e6)
    os.close(file)
    cluster.unmount(mount, process)
    return statistics.median(times)


MEASURES = (("get MiB/s", got, 1), ("mount MiB/s", streamed, 1), ("4 KiB us", small, -1))


def measure(cluster, options, rows, state, files):
    for name in files:
        for what, function, _ in MEASURES:
            values = [function(cluster, options.mib, name) for _ in range(options.runs)]
            rows[(name, what, state)] = statistics.median(values)
            print(f"   {name} {state}: {what} {rows[(name, what, state)]:.0f}", flush=True)


def fill(cluster, mib):
    rng = random.Random(2)
    words = [rng.randbytes(rng.randrange(2, 9)) for _ in range(500)]
    text = b" ".join(rng.choice(words) for _ in range(3 * MIB))[:8 * MIB]
    for name, block in (("/random", None), ("/text", text)):
        with subprocess.Popen([cluster.program("granary"), "put", "-", name], stdin=subprocess.PIPE) as put:
            for number in range(mib // 8):
                put.stdin.write(rng.randbytes(8 * MIB) if block is None else block[number * 97:] + block[:number * 97])
            put.stdin.close()
            if put.wait() != 0:
                raise AssertionError(f"put {name}")


def main():
    options, rows, missed = arguments(), {}, []
    with Cluster(chunkservers=6) as cluster:
        fill(cluster, options.mib)
        files = ("/random", "/text")
        step("hot")
        measure(cluster, options, rows, "hot", files)
        step("cooling")
        cluster.granary("admin", "set", "cool-bytes-per-second", "10G")
        for name in files:
            began = time.monotonic()
            cluster.granary("admin", "cool", "--wait", name, timeout=600)
            print(f"   {name}: {options.mib / (time.monotonic() - began):.0f} MiB/s", flush=True)
        wait_for(lambda: cluster.status()["garbage"] == 0, 60, "the copies to be deleted")
        step("cold")
        measure(cluster, options, rows, "cold", files)
        step("degraded: two of six servers killed")
        for number in ("2", "4"):
            cluster.dev("kill", "chunkserver", number)
        wait_for(lambda: cluster.status()["chunks_under_replicated"] > 0, 20, "status to notice it")
        measure(cluster, options, rows, "degraded", files)
        for number in ("2", "4"):
            cluster.dev("restart", "chunkserver", number)
        step("warming")
        began = time.monotonic()
        cluster.granary("admin", "warm", "--wait", "/random", timeout=600)
        print(f"   /random: {options.mib / (time.monotonic() - began):.0f} MiB/s", flush=True)
    print(f"{'':24} {'hot':>8} {'cold':>8} {'degraded':>8}   of hot")
    for name in files:
        for what, _, sign in MEASURES:
            hot, cold, degraded = (rows[(name, what, state)] for state in ("hot", "cold", "degraded"))
            print(f"{name + ' ' + what:24} {hot:8.0f} {cold:8.0f} {degraded:8.0f}   {cold / hot:.2f} {degraded / hot:.2f}")
            if sign > 0 and (cold < 0.7 * hot or degraded < 0.4 * hot):
                missed.append(f"{name} {what}")
            if sign < 0 and cold > 2 * hot:
                missed.append(f"{name} {what}")
    return ends(missed)


sys.exit(main())
