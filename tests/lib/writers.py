"""Who works on a cluster under test and knows what must be there: one thread each, all bytes checked (model.py).

    FileWriter    files in a folder of its own through one mount: create, overwrite, append, truncate, rename, unlink, fsync, read
    Reader        what writers on other mounts have closed, through this one
    Counter       two of them, one a mount: a number in a file, raised under a lock
    BlobClient    blobs by name and by id with the program `granary`
    Operator      who looks after the cluster: makes all data cold, or hot again, whoever is using it

A wrong byte or a lost file is a line in `wrong`; an operation that fails is counted and leaves what it touched in doubt."""
import errno
import fcntl
import hashlib
import multiprocessing
import os
import random
import subprocess
import threading
import time

from model import SETTLED_S, File, describe, pattern

KEPT_MAX = 14          # files of one writer that are in use
RETIRED_MAX = 40       # and that are in doubt
FILE_BYTES_MAX = 12 << 20
LATE_S = 8
HANGS_S = 100          # an operation that takes longer hangs: the mount gives up after 30 s, and an operation has up to three waits


class Worker(threading.Thread):
    def __init__(self, name, seed, pace):
        super().__init__(daemon=True, name=name)
        self.random, self.pace = random.Random(f"{seed}/{name}"), pace
        self.ending, self.wrong = threading.Event(), []
        self.counts, self.errors, self.longest = {}, {}, {}
        self.under_way = None  # (kind, since)

    def timed(self, kind, function, *arguments):
        """One operation, its time noted; errors of the system go on to the caller."""
        started = time.monotonic()
        self.under_way = kind, started
        try:
            result = function(*arguments)
            self.counts[kind] = self.counts.get(kind, 0) + 1
            return result
        except OSError as error:
            name = f"{kind} {errno.errorcode.get(error.errno, error.errno)}"
            self.errors[name] = self.errors.get(name, 0) + 1
            raise
        finally:
            took = time.monotonic() - started
            self.under_way = None
            if took > self.longest.get(kind, (0, 0))[0]:
                self.longest[kind] = took, started

    def hangs(self):
        now = self.under_way
        return f"{self.name}: {now[0]} hangs for {time.monotonic() - now[1]:.0f} s" if now and time.monotonic() - now[1] > HANGS_S else None

    def run(self):
        while not self.ending.is_set() and not self.wrong:
            try:
                self.step()
            except Exception as error:  # pylint: disable=broad-except
                self.wrong.append(f"{self.name}: {type(error).__name__}: {error}")
            self.ending.wait(self.random.uniform(0, 2 * self.pace))


class Descriptor:
    """An open file whose close is not forgotten; an error of close is an error of the operation."""

    def __init__(self, path, flags):
        self.number = os.open(path, flags, 0o644)

    def __enter__(self):
        return self.number

    def __exit__(self, kind, value, trace):
        try:
            os.close(self.number)
        except OSError:
            if kind is None:
                raise


def read_file(path):
    with open(path, "rb", buffering=0) as file:
        return file.read()


def read_on(mount, path):
    """None: there is no such file. Where the mount has gone meanwhile there is none either, and that says nothing: ENOTCONN."""
    troubles = len(mount.troubles)
    try:
        return read_file(path)
    except FileNotFoundError:
        if len(mount.troubles) > troubles or not mount.is_mounted():
            raise OSError(errno.ENOTCONN, "unmounted meanwhile", path) from None
        return None


class FileWriter(Worker):
    def __init__(self, name, mount, seed, pace=0.03):
        super().__init__(name, seed, pace)
        self.mount, self.files, self.retired, self.removed, self.purged, self.serial = mount, [], [], [], set(), 0
        self.folder = os.path.join(mount.path, name)
        self.lock = threading.Lock()  # of the lists
        self.ready = False

    def path(self, name):
        return os.path.join(self.folder, name)

    def prepare(self):
        for folder in ("", "a", "b"):
            if not os.path.isdir(self.path(folder)):
                os.mkdir(self.path(folder))
        for folder in (self.folder, self.mount.path):
            with Descriptor(folder, os.O_RDONLY) as directory:
                os.fsync(directory)
        self.ready = True

    def new_name(self):
        self.serial += 1
        return self.random.choice(["", "a/", "b/"]) + f"f{self.serial}"

    def content(self, file, offset, size):
        file.version += 1
        return pattern(f"{self.name} f{file.serial} v{file.version} @{offset >> 12}", offset, size)

    def size(self):
        return self.random.choice([1, 100, 4096, 5000, 65536, 200_000, 262_144, 300_000, 1 << 20, 3_000_001])

    def step(self):
        if not self.mount.is_mounted():
            return
        try:
            if not self.ready:
                self.timed("mkdir", self.prepare)
                return
            with self.lock:
                for file in [f for f in self.files if f.in_doubt(self.mount.troubles)]:
                    file.retire("the mount was in trouble")
                    self.set_aside(file)
            if len(self.files) < 3 or len(self.files) < KEPT_MAX and self.random.random() < 0.25:
                self.create()
                return
            file = self.random.choice(self.files)
            kind = self.random.choices(["overwrite", "append", "truncate", "rename", "replace", "unlink", "verify", "sync"],
                                       [30, 15, 7, 10, 5, 6, 20, 7])[0]
            if file.lock.acquire(timeout=0.5):  # a reader whose mount hangs may have it
                try:
                    getattr(self, kind)(file)
                finally:
                    file.lock.release()
            if len(self.retired) > RETIRED_MAX:
                self.purge(self.retired.pop(0))
        except OSError:
            pass  # counted; what was touched is in doubt

    def set_aside(self, file):
        if file in self.files:
            self.files.remove(file)
            self.retired.append(file)

    def attempt(self, kind, files, function):
        """An operation on files that are in doubt if it fails."""
        for file in files:
            file.note(f"{kind} of {len(file.data)}")
        try:
            self.timed(kind, function)
            for file in files:
                file.note(f"now {len(file.data)} as {file.name}{'' if file.unsynced_since else ' synced'}")
        except OSError as error:
            with self.lock:
                for file in files:
                    file.note(f"failed: {error.strerror}")
                    file.retire(f"{kind}: {error.strerror}")
                    self.set_aside(file)
            raise

    def write_out(self, file, flags, pieces, sync):
        with Descriptor(self.path(file.name), flags | os.O_WRONLY) as number:
            for offset, size in pieces:
                data = self.content(file, offset, size)
                file.write(offset, data)
                done = 0
                while done < size:
                    done += os.pwrite(number, data[done:], offset + done)
            if sync:
                os.fsync(number)
                file.synced()

    def create(self):
        file = File(self.serial + 1, self.new_name())
        file.changing()
        file.absent = True
        size, sync = self.size(), self.random.random() < 0.5
        with file.lock:
            with self.lock:
                self.files.append(file)
            self.attempt("create", [file], lambda: self.write_out(file, os.O_CREAT | os.O_EXCL, [(0, size)], sync))

    def overwrite(self, file):
        length = max(1, len(file.data))
        pieces = []
        for _ in range(self.random.randint(1, 4)):
            offset = self.random.randrange(length)
            if self.random.random() < 0.5:
                offset &= ~4095
            pieces.append((offset, min(self.size(), length - offset)))
        sync = self.random.random() < 0.5
        self.attempt("overwrite", [file], lambda: self.write_out(file, 0, pieces, sync))

    def append(self, file):
        size = self.size()
        if len(file.data) + size > FILE_BYTES_MAX:
            return
        sync = self.random.random() < 0.5
        self.attempt("append", [file], lambda: self.write_out(file, 0, [(len(file.data), size)], sync))

    def truncate(self, file):
        size = self.random.randrange(len(file.data) * 5 // 4 + 2)

        def cut():
            file.truncate(size)
            os.truncate(self.path(file.name), size)
        self.attempt("truncate", [file], cut)

    def rename(self, file):
        name = self.new_name()
        old = file.name

        def move():
            file.rename(name)
            os.rename(self.path(old), self.path(name))
        self.attempt("rename", [file], move)

    def replace(self, file):
        """Over another file: after it one of the two is gone; without an answer, it may be either way."""
        others = [f for f in self.files if f is not file]
        if not others:
            return
        other = self.random.choice(others)
        if not other.lock.acquire(blocking=False):
            return
        try:
            old = file.name
            other.changing()
            other.absent = True

            def move():
                file.rename(other.name)
                os.rename(self.path(old), self.path(other.name))
            self.attempt("replace", [file, other], move)
            self.gone(other)
        finally:
            other.lock.release()

    def unlink(self, file):
        file.changing()
        file.absent = True
        self.attempt("unlink", [file], lambda: os.unlink(self.path(file.name)))
        self.gone(file)

    def gone(self, file):
        """Its removal is not on disk yet: it may come back if the mount comes to harm soon."""
        with self.lock:
            if file in self.files:
                self.files.remove(file)
                self.removed.append(file)
            for old in [f for f in self.removed if time.monotonic() - f.changed_at > 2 * SETTLED_S]:
                self.removed.remove(old)
                if old.may_be_lost(self.mount.troubles):
                    old.retire("its removal may be lost")
                    self.retired.append(old)

    def purge(self, file):
        """One of too many in doubt: looked at once more, removed, forgotten."""
        contents = [self.timed("read in doubt", read_on, self.mount, self.path(name)) for name in file.names]
        contents = [c for c in contents if c is not None]
        if not file.absent and all(file.wrong(c) for c in contents):
            self.wrong.append(f"{self.folder}/{file.names}: {[file.wrong(c) for c in contents]} (in doubt: {file.retired})")
        with self.lock:
            self.purged.update(n for n in file.names if not any(n in f.names for f in self.files))
        for name in file.names:
            if name in self.purged and os.path.exists(self.path(name)):
                self.timed("unlink", os.unlink, self.path(name))

    def sync(self, file):
        def out():
            with Descriptor(self.path(file.name), os.O_RDONLY) as number:
                os.fsync(number)
            file.synced()
        self.attempt("fsync", [file], out)

    def verify(self, file):
        seen = self.timed("read", read_on, self.mount, self.path(file.name))
        wrong = "is gone" if seen is None else file.wrong(seen)
        if wrong and not file.in_doubt(self.mount.troubles):
            self.wrong.append(f"{self.path(file.name)}: {wrong}")

    # ---- in the end

    def check(self, mount, doubtful):
        """All files as `mount` shows them (those in doubt, too?): what is wrong, and what was seen."""
        root = os.path.join(mount.path, self.name)
        if not self.ready and not os.path.isdir(root):
            return [], {}
        seen = {}
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                seen[os.path.relpath(path, root)] = read_file(path)
        for file in self.files + self.removed:
            if file.may_be_lost(self.mount.troubles):
                file.retire("the mount was in trouble")
        files, wrong = self.files + self.retired + [f for f in self.removed if f.retired], []
        for name, data in seen.items():
            owners = [f for f in files if name in f.names]
            complaints = [f.wrong(data) for f in owners]
            if name in self.purged or not doubtful and any(f.retired for f in owners):
                continue
            if not owners:
                wrong.append(f"{root}/{name}: nobody made it")
            elif all(complaints):
                last = owners[-1]
                wrong.append(f"{root}/{name}: {'; '.join(complaints)} (retired: {last.retired}, unsynced: {last.unsynced_since})")
        for file in files if doubtful else [f for f in self.files if not f.retired]:
            if not file.absent and not any(n in seen and file.wrong(seen[n]) is None for n in file.names):
                wrong.append(f"{root}/{file.names}: missing (in doubt: {file.retired})")
        return wrong, seen


    def differences(self, mount, first, second):
        """What is in doubt may be old or new, but is the same for all."""
        wrong = []
        for name in sorted(set(first) | set(second)):
            one, two = first.get(name), second.get(name)
            if one == two:
                continue
            why = [f"{f.retired}, {time.monotonic() - f.changed_at:.1f} s ago" for f in self.files + self.retired if name in f.names]
            lengths = [None if d is None else len(d) for d in (one, two)]
            at = next((i for i in range(0, min(len(one or b""), len(two or b"")), 4096) if one[i:i + 4096] != two[i:i + 4096]), 0)
            blocks = [describe(at, d[at:at + 4096], [d[at:at + 4096]]) for d in (one, two) if d]
            wrong.append(f"{self.name}/{name} (written on {self.mount.name}, in doubt: {why}) differs: {lengths} bytes, on {mount.name} "
                         f"the second; {blocks}")
        return wrong


class Reader(Worker):
    """What was closed on one mount is there on another at the next open."""

    def __init__(self, name, mount, writers, seed, pace=0.05):
        super().__init__(name, seed, pace)
        self.mount, self.writers, self.late = mount, writers, []

    def step(self):
        writer = self.random.choice(self.writers)
        with writer.lock:
            file = self.random.choice(writer.files) if writer.files else None
        if file is None or not self.mount.is_mounted() or not file.lock.acquire(blocking=False):
            return
        try:
            if file in writer.files and not file.in_doubt(writer.mount.troubles):
                self.look(writer, file)
        finally:
            file.lock.release()

    def look(self, writer, file):
        """What another mount has closed may be seen late, for up to LATE_S, while a chunkserver does not answer: counted."""
        path = os.path.join(self.mount.path, writer.name, file.name)
        started = time.monotonic()
        try:
            first = wrong = self.judge(file, path)
            while wrong and not file.in_doubt(writer.mount.troubles) and time.monotonic() < started + LATE_S:
                time.sleep(0.02)
                wrong = self.judge(file, path)
        except OSError:
            return  # counted; this mount is in trouble itself
        if first and not file.in_doubt(writer.mount.troubles):
            line = f"{path}: {first}, {'for good' if wrong else f'for {time.monotonic() - started:.2f} s'}; {file.past()}"
            (self.wrong if wrong else self.late).append(line)

    def judge(self, file, path):
        seen = self.timed("read elsewhere", read_on, self.mount, path)
        return "not there" if seen is None else file.wrong(seen)


class Counter(Worker):
    """Raises the number in a file under a lock, synced before the lock is given back: no number is given out twice."""

    def __init__(self, name, mount, path, taken, seed, pace=0.1):
        super().__init__(name, seed, pace)
        self.mount, self.path, self.taken = mount, path, taken  # taken: number -> who, shared by all that count there

    def raise_number(self):
        with Descriptor(os.path.join(self.mount.path, self.path), os.O_RDWR | os.O_CREAT) as number:
            fcntl.lockf(number, fcntl.LOCK_EX)
            value = int(os.pread(number, 32, 0) or b"0") + 1
            os.pwrite(number, b"%020d" % value, 0)
            os.fsync(number)
            fcntl.lockf(number, fcntl.LOCK_UN)
        return value

    def step(self):
        if not self.mount.is_mounted():
            return
        troubles = len(self.mount.troubles)
        try:
            value = self.timed("locked count", self.raise_number)
        except OSError:
            return
        if len(self.mount.troubles) > troubles:
            return  # the lock may have been lost in between
        if value in self.taken:
            self.wrong.append(f"{self.path}: {self.name} got {value}, which {self.taken[value]} had before")
        self.taken[value] = self.name


class Operator(Worker):
    """What it asks for may fail, as the cluster is; what the others see must not change."""
    WISHES = (["cool", "/"], ["warm", "/"], ["cool", "/"])

    def __init__(self, cluster, seed, pace=2):
        super().__init__("operator", seed, pace)
        self.cluster = cluster

    def step(self):
        wish = self.random.choice(self.WISHES)
        try:
            code, _, _ = self.timed(" ".join(wish), lambda: self.cluster.granary("--timeout", "10s", "admin", *wish))
        except subprocess.TimeoutExpired:
            self.wrong.append(f"{self.name}: granary admin {' '.join(wish)} hangs")
            return
        if code:
            self.errors[f"{wish[0]} {code}"] = self.errors.get(f"{wish[0]} {code}", 0) + 1

    def check(self):
        return self.wrong


class BlobClient(Worker):
    """Blobs by name and by id. A name in doubt is not used again."""

    def __init__(self, name, cluster, seed, pace=0.1):
        super().__init__(name, seed, pace)
        self.cluster, self.serial, self.live, self.doubtful = cluster, 0, {}, {}

    def granary(self, kind, *words, data=None, wanted=(0,)):
        def go():
            try:
                return self.cluster.granary(*words, data=data)
            except subprocess.TimeoutExpired:
                return 4, b"", "hangs"
        code, out, complaint = self.timed(kind, go)
        if code not in wanted:
            self.errors[f"{kind} {code}"] = self.errors.get(f"{kind} {code}", 0) + 1
            if complaint == "hangs":
                self.wrong.append(f"{self.name}: granary {' '.join(words)} hangs")
        return code, out, complaint

    def step(self):
        if len(self.live) < 4 or len(self.live) < 30 and self.random.random() < 0.4:
            self.put()
        elif self.random.random() < 0.7:
            self.get(self.random.choice(sorted(self.live)))
        else:
            self.remove(self.random.choice(sorted(self.live)))

    def put(self):
        self.serial += 1
        size = self.random.choice([0, 1, 100, 4096, 70_000, 262_144, 262_145, 900_000, 5_000_000])
        data = pattern(f"{self.name} b{self.serial}", 0, size)
        if self.random.random() < 0.3:
            code, out, _ = self.granary("put --id", "put", "--id", "-", data=data)
            if code == 0:
                self.live[out.decode().strip()] = data
            return
        name = f"/{self.name}-{self.serial}"
        code, _, _ = self.granary("put", "put", "-", name, data=data)
        if code == 0:
            self.live[name] = data
        else:
            self.doubtful[name] = data

    def get(self, name):
        code, out, _ = self.granary("get", "get", name, "-")
        if code == 3:
            self.wrong.append(f"{name}: is gone")
        elif code == 0 and out != self.live[name]:
            self.wrong.append(f"{name}: got {len(out)} bytes that are not the {len(self.live[name])} that were put")

    def remove(self, name):
        data = self.live.pop(name)
        code, _, _ = self.granary("rm", "rm", name)
        if code != 0:
            self.doubtful[name] = data
        else:
            code, _, _ = self.granary("get", "get", name, "-", wanted=(3,))
            if code == 0:
                self.wrong.append(f"{name}: is there after its removal")

    def check(self):
        wrong = []
        for name, data in list(self.live.items()) + list(self.doubtful.items()):
            code, out, complaint = self.granary("get", "get", name, "-", wanted=(0, 3))
            if not (code == 0 and out == data or code == 3 and name in self.doubtful):
                wrong.append(f"{name}: {'in doubt, ' if name in self.doubtful else ''}get: {code}, {len(out)} of {len(data)} bytes {complaint}")
        return wrong


class Office:
    """The workers that use mounts, in a process of their own.

    Whoever starts a program while it has files of a mount open waits for that mount: the child closes its copies, which is a
    request to the mount. So the process that has such files starts nothing, and the one that starts programs has none."""

    def __init__(self, cluster, seed):
        context = multiprocessing.get_context("fork")
        self.cluster, self.seed = cluster, seed
        self.ours, self.theirs = context.Pipe()
        self.process = context.Process(target=self.serve, daemon=True)
        self.process.start()

    def ask(self, word, *arguments, patience=300):
        self.ours.send((word, arguments))
        if not self.ours.poll(patience):
            raise AssertionError(f"the writers' process does not answer to {word}")
        answer = self.ours.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def serve(self):
        mounts, taken = self.cluster.mounts, {}
        files = [FileWriter(f"files-{m.name[-1]}{n}", m, self.seed) for m in mounts for n in range(2)]
        self.workers = files + [Reader(f"reader-{m.name[-1]}", m, [f for f in files if f.mount is not m], self.seed) for m in mounts]
        self.workers += [Counter(f"counter-{m.name[-1]}", m, "counter", taken, self.seed) for m in mounts]
        for worker in self.workers:
            worker.start()
        while True:
            word, arguments = self.theirs.recv()
            try:
                self.theirs.send(getattr(self, "do_" + word)(*arguments))
            except Exception as error:  # pylint: disable=broad-except
                self.theirs.send(AssertionError(f"{word}: {type(error).__name__}: {error}"))

    def do_troubles(self, name, troubles):
        self.cluster.processes[name].troubles[:] = troubles

    def do_wrong(self):
        return [w for worker in self.workers for w in worker.wrong] + [h for h in (worker.hangs() for worker in self.workers) if h]

    def do_end(self):
        for worker in self.workers:
            worker.ending.set()

    def do_alive(self):
        return [f"{worker.name} {worker.under_way}" for worker in self.workers if worker.is_alive()]

    def do_late(self):
        return [line for worker in self.workers if isinstance(worker, Reader) for line in worker.late]

    def do_figures(self):
        return [(w.name, w.counts, w.errors, w.longest) for w in self.workers]

    def do_verify(self, doubtful):
        """Everything on all mounts, and some of it past them: what is wrong, a digest for each mount, how many files. What is in doubt
        only when the mounts are new: whoever has been told that his write failed may still have it, or others what was before, in
        the pages of the kernel."""
        wrong, digests, count, first = [], [], 0, {}
        for mount in self.cluster.mounts:
            digest = hashlib.sha256()
            for worker in [w for w in self.workers if isinstance(w, FileWriter)]:
                complaints, seen = worker.check(mount, doubtful)
                wrong += complaints
                count += len(seen)
                for name in sorted(seen):
                    digest.update(f"{worker.name}/{name} {len(seen[name])}\n".encode() + seen[name])
                if not doubtful:
                    continue
                if mount is self.cluster.mounts[0]:
                    wrong += self.compare_by_get(worker, seen)
                    first[worker.name] = seen
                else:
                    wrong += worker.differences(mount, first[worker.name], seen)
            digests.append(digest.hexdigest())
        for worker in [w for w in self.workers if isinstance(w, Counter) and w.taken]:
            last = int(read_file(os.path.join(worker.mount.path, worker.path)))
            if last < max(worker.taken):
                wrong.append(f"the counter is {last} on {worker.mount.name}; {max(worker.taken)} was given out")
        return wrong, digests, count

    def compare_by_get(self, worker, seen):
        wrong = []
        for name in sorted(seen)[::4]:
            code, out, complaint = self.cluster.granary("get", f"/{worker.name}/{name}", "-")
            if code != 0 or out != seen[name]:
                wrong.append(f"get /{worker.name}/{name}: {code} {complaint}: {len(out)} bytes are not the {len(seen[name])} of the mount")
        return wrong
