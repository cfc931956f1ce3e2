"""What a file must hold: the newest content, and what else may be seen where an operation had no answer or was lost unsynced.

A block (4 KiB) is old or new as a whole. A file whose last operations are in doubt is never written again: it is retired, and
looked at in the end (and then by all in the same way), so that an operation that takes effect late harms no other check."""
import collections
import threading
import time

BLOCK = 4096
# A change that was closed but not synced is the mount's alone for some milliseconds; while masters are away, for longer.
SETTLED_S = 12.0


def pattern(label, offset, size):
    """Bytes that say whose they are: a tag of 32 bytes over and over, cut to [offset, offset + size) of an endless stream."""
    tag = (label.encode() + b"." * 32)[:31] + b"\n"
    start = offset % 32
    return (tag * ((start + size) // 32 + 1))[start:start + size]


def pad(data):
    return bytes(data) + b"\0" * (BLOCK - len(data))


class File:
    """`names`: where it may be, the newest first; `absent`: it may be nowhere. Guarded by `lock`."""

    def __init__(self, serial, name):
        self.serial, self.names, self.absent, self.retired = serial, [name], False, None
        self.data, self.old, self.low, self.high = bytearray(), {}, 0, 0
        self.version, self.unsynced_since, self.changed_at = 0, None, 0.0
        self.lock = threading.Lock()
        self.history = collections.deque(maxlen=8)  # what was done last

    def note(self, what):
        self.history.append((time.monotonic(), what))

    def past(self):
        return ", ".join(f"{what} {time.monotonic() - at:.3f} s ago" for at, what in self.history)

    @property
    def name(self):
        return self.names[0]

    def changing(self):
        """Something is about to be changed: until it is synced, what was before may be seen again after a failure."""
        self.changed_at = time.monotonic()
        self.unsynced_since = self.unsynced_since or self.changed_at

    def remember(self, first, last):
        for block in range(first // BLOCK, (last + BLOCK - 1) // BLOCK):
            value = pad(self.data[block * BLOCK:(block + 1) * BLOCK])
            values = self.old.setdefault(block, [])
            if value not in values:
                values.append(value)

    def write(self, offset, data):
        self.changing()
        if offset > len(self.data):
            self.remember(len(self.data), offset)
            self.data.extend(b"\0" * (offset - len(self.data)))
        self.remember(offset, offset + len(data))
        self.data[offset:offset + len(data)] = data
        self.high = max(self.high, len(self.data))

    def truncate(self, size):
        self.changing()
        self.remember(min(size, len(self.data)), max(size, len(self.data)))
        if size < len(self.data):
            del self.data[size:]
        else:
            self.data.extend(b"\0" * (size - len(self.data)))
        self.low, self.high = min(self.low, size), max(self.high, size)

    def rename(self, name):
        self.changing()
        self.names.insert(0, name)

    def synced(self):
        """Content and name are on disk: nothing else may be seen any more."""
        self.old, self.low, self.high = {}, len(self.data), len(self.data)
        self.names, self.absent, self.unsynced_since = self.names[:1], False, None

    def in_doubt(self, troubles):
        """troubles: times [from, to] within which the mount may have lost what was not synced."""
        return self.retired is not None or self.may_be_lost(troubles)

    def may_be_lost(self, troubles):
        return self.unsynced_since is not None and any(self.unsynced_since <= end and self.changed_at >= start - SETTLED_S
                                                       for start, end in troubles)

    def retire(self, why):
        self.retired = self.retired or why

    def wrong(self, seen):
        """None if `seen` may be the content; otherwise what is wrong with it."""
        if seen == self.data:
            return None
        if not self.retired:
            low = high = len(self.data)
        else:
            low, high = self.low, self.high
        if not low <= len(seen) <= high:
            return f"{len(seen)} bytes, {low} to {high} were expected"
        for at in range(0, len(seen), BLOCK):
            block = seen[at:at + BLOCK]
            values = [pad(self.data[at:at + BLOCK])] + (self.old.get(at // BLOCK, []) if self.retired else [])
            if not any(v[:len(block)] == block for v in values):
                return describe(at, block, [v[:len(block)] for v in values])
        return None


def tags(block):
    """What a block says about itself, in short."""
    seen = []
    for at in range(0, len(block), 512):
        tag = bytes(block[at:at + 40]).split(b"\n")[-1 if at else 0].rstrip(b".")[:31]
        text = "zeros" if not any(block[at:at + 512]) else tag.decode(errors="backslashreplace")
        if not seen or seen[-1] != text:
            seen.append(text)
    return seen[:6]


def describe(at, block, values):
    first = next((i for i in range(len(block)) if block[i] != values[0][i]), 0)
    return f"block at {at}: {tags(block)} from byte {first} of it, {len(values)} contents were allowed, the newest {tags(values[0])}"
