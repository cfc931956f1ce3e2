#!/usr/bin/env python3
"""A thousand blobs of 1 byte to 1 MiB: put, replaced, deleted, read back after a restart; by name, by id and through the mount."""
# test: timeout=240
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, step, wait_for  # noqa: E402

COUNT = 1000
EDGES = [1, 2, 4095, 4096, 4097, 65535, 65536, 262143, 262144, 262145, 262144 + 4096, 1 << 20]


def main():
    generator = random.Random(7)
    sizes = EDGES + [int(2 ** generator.uniform(0, 18)) for _ in range(COUNT - len(EDGES) - 20)]
    sizes += [generator.randrange(262144, 1 << 20) for _ in range(20)]
    blobs = {f"b{i:04}": generator.randbytes(size) for i, size in enumerate(sizes)}
    local = os.path.join(DIR, "blobs")
    os.mkdir(local)

    def write_local(names):
        for name in names:
            with open(os.path.join(local, name), "wb") as file:
                file.write(blobs[name])

    def verify(folder):
        check(sorted(os.listdir(folder)) == sorted(blobs), f"{folder} holds {len(os.listdir(folder))} names, not {len(blobs)}")
        for name, data in blobs.items():
            with open(os.path.join(folder, name), "rb") as file:
                check(file.read() == data, f"{folder}/{name} ({len(data)} bytes) is not what was put")

    with Cluster(mount=True, chunkservers=3) as cluster:
        step(f"put {COUNT} blobs, {sum(sizes) >> 20} MiB")
        write_local(blobs)
        cluster.granary("put", "-r", local, "/blobs")
        step("read them through the mount")
        verify(cluster.mnt + "/blobs")

        step("by id")
        by_id = {}
        for size in EDGES:
            data = generator.randbytes(size)
            by_id[cluster.granary("put", "--id", "-", data=data).decode().strip()] = data
        check(len(by_id) == len(EDGES), f"ids are not distinct: {by_id.keys()}")

        step("replace every seventh, delete every fifth")
        names = sorted(blobs)
        for name in names[::7]:
            blobs[name] = generator.randbytes(generator.randrange(1, 300000))
            with open(f"{cluster.mnt}/blobs/{name}", "wb") as file:
                file.write(blobs[name])
        for name in names[::5]:
            os.unlink(f"{cluster.mnt}/blobs/{name}")
            del blobs[name]
        verify(cluster.mnt + "/blobs")

        step("change some in place: they get chunks of their own")
        for name in sorted(blobs)[::20]:
            data = bytearray(blobs[name])
            at = generator.randrange(len(data))
            data[at:at + 5] = b"12345"
            with open(f"{cluster.mnt}/blobs/{name}", "r+b") as file:
                file.seek(at)
                file.write(b"12345")
            blobs[name] = bytes(data)
        verify(cluster.mnt + "/blobs")

        step("after a restart")
        cluster.dev("down")
        cluster.up()
        verify(cluster.mnt + "/blobs")
        cluster.granary("get", "-r", "/blobs", os.path.join(DIR, "back"))
        verify(os.path.join(DIR, "back"))
        for blob, data in by_id.items():
            check(cluster.granary("get", blob, "-") == data, f"blob {blob} ({len(data)} bytes) is not what was put")

        step("remove all; the space comes back")
        for blob in by_id:
            cluster.granary("rm", blob)
        cluster.granary("rm", "-r", "/blobs")
        cluster.granary("admin", "trash", "empty")
        wait_for(lambda: cluster.status()["garbage"] == 0 and cluster.status()["inodes"] <= 1, 30, "deletion on the chunkservers")
    print("done")


if __name__ == "__main__":
    main()
