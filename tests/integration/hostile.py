#!/usr/bin/env python3
"""Bytes from strangers on every port: random ones, cut and oversized frames, silence. They are counted and refused, nothing stops."""
# test: timeout=180
import os
import random
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, Writer, check, step, wait_for  # noqa: E402

MAGIC = 0x314e5247
HELLO = 1


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def frame(kind=HELLO, flags=0, number=1, message=b"", data=b"", message_bytes=None, data_bytes=None, magic=MAGIC, crc=None):
    head = struct.pack("<IHHQIII", magic, kind, flags, number, len(message) if message_bytes is None else message_bytes,
                       len(data) if data_bytes is None else data_bytes, 0)
    return head + struct.pack("<I", crc32c(head + message) if crc is None else crc) + message + data


def attacks(generator):
    """(name, bytes): each is malformed as a whole frame, so that it must be counted and its connection closed."""
    yield "random bytes", generator.randbytes(5000)
    yield "http", b"GET / HTTP/1.1\r\nHost: granary\r\nAccept: */*\r\n\r\n"
    yield "zeros", bytes(4096)
    yield "4 GiB message", frame(message_bytes=0xffffffff)
    yield "4 GiB data", frame(data_bytes=0xffffffff)
    yield "a message just too long", frame(message_bytes=(1 << 20) + 1)
    yield "wrong checksum", frame(message=b"\x08\x01", crc=12345)
    yield "wrong magic", frame(magic=0x47524e31)
    yield "unknown flags", frame(flags=0xffff)
    yield "no protobuf", frame(message=b"\xff" * 100)
    yield "unknown type first", frame(kind=60000)
    yield "deep nesting", frame(message=b"\x0b" * 1000)


def send(address, data):
    """True if the other side closed, the way it should."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.settimeout(10)
        try:
            connection.sendall(data)
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
        except socket.timeout:
            return False
    return True


def main():
    generator = random.Random(3)
    with Cluster(mount=True, chunkservers=3) as cluster:
        targets = {n: p["address"] for n, p in cluster.processes().items() if "address" in p}
        pids = {n: p["pid"] for n, p in cluster.processes().items()}
        writer = Writer(f"{cluster.mnt}/through-it-all", rate=20)
        writer.start()
        leader = f"master-{cluster.leader()}"
        for name, address in targets.items():
            step(f"{name}")
            before = cluster.status()["malformed_frames"]
            for attack, data in attacks(generator):
                check(send(address, data), f"{name}: {attack}: the connection was not closed")
            if name == leader or name.startswith("chunkserver"):  # a follower's count is seen when it leads
                wait_for(lambda b=before: cluster.status()["malformed_frames"] >= b + len(list(attacks(generator))) - 2, 10,
                         f"{name}: malformed frames are not counted in admin status")
            # a frame cut in the middle, then silence and goodbye
            host, port = address.rsplit(":", 1)
            for size in (1, 31, 32, 40):
                with socket.create_connection((host, int(port)), timeout=10) as connection:
                    connection.sendall(frame(message=b"x" * 100)[:size])
            # many connections that say nothing
            silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(100)]
            cluster.granary("put", "-", f"/while-{name}", data=name.encode() * 1000)
            check(cluster.granary("cat", f"/while-{name}") == name.encode() * 1000, f"wrong data during attacks on {name}")
            for connection in silent:
                connection.close()
            for _ in range(50):
                send(address, generator.randbytes(generator.randrange(1, 200)) + bytes(40))
        step("names that try to be something else")
        for name in ("..", "../../etc/passwd", "a\nb", "%s%n", "-rf", "\xff"):
            done = cluster.granary("put", "-", "/dir-" + name.replace("/", "_"), data=b"x")
            check(done == b"", f"{name!r}: {done!r}")
        step("all are still the same processes, nothing was lost")
        check(pids == {n: p["pid"] for n, p in cluster.processes().items()}, "a process was ended or started again")
        check(all(p["state"] == "running" for p in cluster.processes().values()), "not all run")
        writer.progress(10, 30)
        writer.finish()
        writer.verify()
        check(cluster.status()["safe"], "not safe")
    print("done")


if __name__ == "__main__":
    main()
