#!/usr/bin/env python3
"""cold.py [--mib N] [--runs N] [--rival SCRIPT]: how fast cold data is, beside the same data hot, in one run on six chunkservers (4+2).

Sequential reads by `granary get` and through a mount, all shards there and with two servers killed; 4 KiB at random through a mount; what
cooling and warming take. Caches are dropped before each read. GRANARY_BIN: a release build. Goals: cold sequential 70% of hot, degraded
40%, small reads within twice the latency of hot. A rival reads the same files after us each time: SCRIPT up|drop|remount|kill-two|down DIR, erasure
coding of 4+2 mounted at DIR/mnt."""
import argparse
import contextlib
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
    parser.add_argument("--rival")
    return parser.parse_args()


class Rival:
    def __init__(self, script):
        self.script, self.dir = script, os.path.join(DIR, "rival")
        self.mnt = os.path.join(self.dir, "mnt")

    def __enter__(self):
        self.run("up")
        return self

    def __exit__(self, *_):
        self.run("down")

    def run(self, command):
        if self.script:
            subprocess.run([self.script, command, self.dir], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def mounted(system):
    """Where it is mounted, anew: nothing is remembered."""
    if isinstance(system, Rival):
        system.run("drop")
        system.run("remount")
        yield system.mnt
        return
    mount = os.path.join(DIR, "mnt")
    process = system.mount_again(mount)
    yield mount
    system.unmount(mount, process)


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


def streamed(system, mib, name):
    """MiB/s of a program that reads through a mount of its own."""
    with mounted(system) as mount:
        drop_caches()
        began = time.monotonic()
        with open(mount + name, "rb", buffering=0) as file:
            while file.read(MIB):
                pass
        return mib / (time.monotonic() - began)


def small(system, mib, name):
    """Median microseconds of 4 KiB at random places."""
    rng = random.Random(1)
    places = rng.sample(range(mib * 256), SMALL_READS)
    times = []
    with mounted(system) as mount:
        drop_caches()
        file = os.open(mount + name, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        for place in places:
            began = time.monotonic()
            if len(os.pread(file, 4096, place * 4096)) != 4096:
                raise AssertionError(f"short read at {place}")
            times.append((time.monotonic() - began) * 1e6)
        os.close(file)
    return statistics.median(times)


MEASURES = (("get MiB/s", got, 1), ("mount MiB/s", streamed, 1), ("4 KiB us", small, -1))


def measure(systems, options, rows, state, files):
    for name in files:
        for what, function, _ in MEASURES:
            able = [system for system in systems if function is not got or not isinstance(system, Rival)]
            values = [[function(system, options.mib, name) for system in able] for _ in range(options.runs)]
            medians = [statistics.median(column) for column in zip(*values)]
            rows[(name, what, state)] = medians
            print(f"   {name} {state}: {what}", *(f"{median:.0f}" for median in medians), flush=True)


def fill(cluster, rival, mib):
    rng = random.Random(2)
    words = [rng.randbytes(rng.randrange(2, 9)) for _ in range(500)]
    text = b" ".join(rng.choice(words) for _ in range(3 * MIB))[:8 * MIB]
    for name, block in (("/random", None), ("/text", text)):
        with subprocess.Popen([cluster.program("granary"), "put", "-", name], stdin=subprocess.PIPE) as put:
            with open(rival.mnt + name if rival.script else os.devnull, "wb", buffering=0) as file:
                for number in range(mib // 8):
                    data = rng.randbytes(8 * MIB) if block is None else block[number * 97:] + block[:number * 97]
                    put.stdin.write(data)
                    file.write(data)
            put.stdin.close()
            if put.wait() != 0:
                raise AssertionError(f"put {name}")


def run(cluster, rival, options, rows, files):
    systems = (cluster, rival) if rival.script else (cluster,)
    fill(cluster, rival, options.mib)
    step("hot")
    measure((cluster,), options, rows, "hot", files)
    step("cooling")
    cluster.granary("admin", "set", "cool-bytes-per-second", "10G")
    for name in files:
        began = time.monotonic()
        cluster.granary("admin", "cool", "--wait", name, timeout=600)
        print(f"   {name}: {options.mib / (time.monotonic() - began):.0f} MiB/s", flush=True)
    wait_for(lambda: cluster.status()["garbage"] == 0, 60, "the copies to be deleted")
    step("cold")
    measure(systems, options, rows, "cold", files)
    step("degraded: two of six servers killed")
    for number in ("2", "4"):
        cluster.dev("kill", "chunkserver", number)
    rival.run("kill-two")
    wait_for(lambda: cluster.status()["chunks_under_replicated"] > 0, 20, "status to notice it")
    measure(systems, options, rows, "degraded", files)
    for number in ("2", "4"):
        cluster.dev("restart", "chunkserver", number)
    step("warming")
    began = time.monotonic()
    cluster.granary("admin", "warm", "--wait", "/random", timeout=600)
    print(f"   /random: {options.mib / (time.monotonic() - began):.0f} MiB/s", flush=True)


def judge(rows, files):
    """What missed its goal. The rival's figures stand beside ours, with how many times better ours are."""
    missed = []
    print(f"{'':24} {'hot':>8} {'cold':>8} {'degraded':>8}   of hot      rival: cold, degraded")
    for name in files:
        for what, _, sign in MEASURES:
            hot, cold, degraded = (rows[(name, what, state)][0] for state in ("hot", "cold", "degraded"))
            others = [(rows[(name, what, state)], (rows[(name, what, state)][0] / rows[(name, what, state)][1]) ** sign)
                      for state in ("cold", "degraded") if len(rows[(name, what, state)]) > 1]
            beside = "   ".join(f"{values[1]:8.0f} {times:5.1f}x" for values, times in others)
            print(f"{name + ' ' + what:24} {hot:8.0f} {cold:8.0f} {degraded:8.0f}   {cold / hot:.2f} {degraded / hot:.2f}   {beside}")
            if (sign > 0 and (cold < 0.7 * hot or degraded < 0.4 * hot)) or (sign < 0 and cold > 2 * hot):
                missed.append(f"{name} {what}")
    return missed


def main():
    options, rows, files = arguments(), {}, ("/random", "/text")
    with Cluster(chunkservers=6) as cluster, Rival(options.rival) as rival:
        run(cluster, rival, options, rows, files)
    return ends(judge(rows, files))


if __name__ == "__main__":
    sys.exit(main())
