"""Bad disks and clocks for one process of a HostCluster: the control file of tests/shim/faults.c.

    shim = Shim(process)        # before it is started
    shim.set(delay_us=2_000_000, path="/chunks/")"""
import mmap
import os
import struct

from cluster import BIN

FIELDS = {"sync_failures": 0, "write_failures": 8, "error": 16, "delay_us": 24, "wall_offset_ms": 32, "rate_permille": 40, "injected": 48}
PATH, BYTES = 256, 4096
LIBRARY = os.path.join(BIN, "libgranary-faults.so")


class Shim:
    def __init__(self, process):
        path = os.path.join(process.cluster.path, f"{process.name}.shim")
        with open(path, "wb+") as file:
            file.truncate(BYTES)
            self.map = mmap.mmap(file.fileno(), BYTES)
        process.environment.update(LD_PRELOAD=LIBRARY, GRANARY_SHIM=path)
        self.set(error=5)

    def set(self, path=None, **fields):
        """The path first: what is counted and delayed from now on is on it."""
        if path is not None:
            self.map[PATH:PATH + 256] = path.encode().ljust(256, b"\0")
        for name, value in fields.items():
            self.map[FIELDS[name]:FIELDS[name] + 8] = struct.pack("<q", value)

    def get(self, name):
        return struct.unpack("<q", self.map[FIELDS[name]:FIELDS[name] + 8])[0]

    def clear(self):
        self.set(path="", sync_failures=0, write_failures=0, delay_us=0, wall_offset_ms=0)
