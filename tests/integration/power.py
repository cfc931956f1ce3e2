#!/usr/bin/env python3
"""Everything killed at once under load, several times: what was put, synced or committed as a name is there, whole."""
# test: timeout=240
import hashlib
import os
import random
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, Writer, check, step, wait_for  # noqa: E402

ROUNDS = 4


class Putter(threading.Thread):
    """Puts blobs and renames files until the cluster goes; `acknowledged` is what must be there afterwards."""

    def __init__(self, cluster, prefix, seed):
        super().__init__(daemon=True)
        self.cluster, self.prefix, self.random = cluster, prefix, random.Random(seed)
        self.acknowledged, self.under_way, self.ending = {}, None, threading.Event()

    def run(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            path = f"{self.prefix}-{number}"
            data = self.random.randbytes(self.random.choice([1, 100, 4096, 70000, 262144, 262145, 900000]))
            self.under_way = path, data
            done = subprocess.run([self.cluster.program("granary"), "--timeout", "2s", "put", "-", path], input=data,
                                  capture_output=True, check=False)
            if done.returncode == 0:
                self.acknowledged[path] = hashlib.sha256(data).digest()


class Namer(threading.Thread):
    """Through the mount: a synced file under a temporary name, renamed over the last one, its directory synced."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.ending, self.acknowledged = folder, threading.Event(), 0

    def run(self):
        directory = None
        try:
            os.mkdir(self.folder)
            directory = os.open(self.folder, os.O_RDONLY)
            while not self.ending.is_set():
                number = self.acknowledged + 1
                with open(f"{self.folder}/new", "wb") as file:
                    file.write(number.to_bytes(8, "big") * 700)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(f"{self.folder}/new", f"{self.folder}/current")
                os.fsync(directory)
                self.acknowledged = number
        except OSError:
            pass  # the mount was killed: that is the end
        finally:
            if directory is not None:
                os.close(directory)

    def verify(self):
        with open(f"{self.folder}/current", "rb") as file:
            data = file.read()
        number = int.from_bytes(data[:8], "big")
        check(data == data[:8] * 700, f"{self.folder}/current is torn")
        check(number >= self.acknowledged, f"{self.folder}/current is number {number}; {self.acknowledged} was acknowledged")


def main():
    with Cluster(mount=True, chunkservers=3) as cluster:
        expected, writers, namers = {}, [], []
        for power_cut in range(ROUNDS):
            step(f"power cut {power_cut + 1}")
            putters = [Putter(cluster, f"/put-{power_cut}-{i}", 10 * power_cut + i) for i in range(2)]
            writer = Writer(f"{cluster.mnt}/synced-{power_cut}", rate=1000)
            namer = Namer(f"{cluster.mnt}/names-{power_cut}")
            for thread in putters + [writer, namer]:
                thread.start()
            wait_for(lambda: min(len(p.acknowledged) for p in putters) >= 8 and writer.blocks >= 60 and namer.acknowledged >= 20,
                     60, "some acknowledged work")
            for thread in putters + [writer, namer]:
                thread.ending.set()
            cluster.dev("kill", "all")
            for thread in putters + [writer, namer]:
                thread.join(30)
                check(not thread.is_alive(), "a client hangs after the power cut")
            cluster.up()
            for putter in putters:
                expected.update(putter.acknowledged)
            writers.append(writer)
            namers.append(namer)
            print(f"   {len(expected)} blobs, {sum(w.blocks for w in writers)} synced blocks, "
                  f"{sum(n.acknowledged for n in namers)} renames so far", flush=True)
            for path, digest in expected.items():
                with open(cluster.mnt + path, "rb") as file:
                    check(hashlib.sha256(file.read()).digest() == digest, f"{path} is not what was put")
            for putter in putters:  # the one without an answer: all of it or nothing
                path, data = putter.under_way
                if path not in expected and os.path.exists(cluster.mnt + path):
                    with open(cluster.mnt + path, "rb") as file:
                        check(file.read() == data, f"{path} is half there")
            for one in writers + namers:
                one.verify()
        check(cluster.status()["safe"], f"not safe: {cluster.status()}")
    print("done")


if __name__ == "__main__":
    main()
