#!/usr/bin/env python3
"""Two mounts of one cluster: what one closes the other opens, names, locks, deletion while open."""
# test: timeout=180
import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, fails, read, step, wait_for, write  # noqa: E402


def close_to_open(a, b):
    for size in (0, 1, 4096, 5000, 262144, 262145, 3 << 20):
        data = os.urandom(size)
        write(f"{a}/file", data)
        check(read(f"{b}/file") == data, f"{size} bytes written by one are not what the other reads")
        write(f"{b}/file", data[::-1] + b"x")
        check(read(f"{a}/file") == data[::-1] + b"x", f"{size} bytes written back are not what the first reads")
    for number in range(200):
        here, there = (a, b) if number % 2 else (b, a)
        write(f"{here}/counter", str(number).encode())
        check(read(f"{there}/counter") == str(number).encode(), f"a stale counter at {number}")
        check(os.stat(f"{there}/counter").st_size == len(str(number)), f"a stale size at {number}")
    for number in range(50):
        write(f"{(a, b)[number % 2]}/log", f"{number}\n".encode(), "ab")
    check(read(f"{a}/log") == b"".join(f"{n}\n".encode() for n in range(50)), "appends of two in turn are lost")


def names(a, b):
    fails(errno.ENOENT, os.stat, f"{b}/new")  # remembered as absent
    write(f"{a}/new", b"1")
    check(read(f"{b}/new") == b"1", "a new file is not seen")
    os.rename(f"{a}/new", f"{a}/renamed")
    fails(errno.ENOENT, os.stat, f"{b}/new")
    check(read(f"{b}/renamed") == b"1", "the new name is not seen")
    os.unlink(f"{b}/renamed")
    fails(errno.ENOENT, os.stat, f"{a}/renamed")
    os.mkdir(f"{a}/dir")
    for number in range(300):
        write(f"{(a, b)[number % 2]}/dir/{number}", b"")
    check(len(os.listdir(f"{a}/dir")) == len(os.listdir(f"{b}/dir")) == 300, "listings differ")
    fails(errno.ENOTEMPTY, os.rmdir, f"{b}/dir")
    for number in range(300):
        os.unlink(f"{(b, a)[number % 2]}/dir/{number}")
    check(os.listdir(f"{a}/dir") == os.listdir(f"{b}/dir") == [], "deleted names are still listed")
    os.rmdir(f"{a}/dir")
    fails(errno.ENOENT, os.listdir, f"{b}/dir")
    write(f"{a}/mode", b"")
    os.stat(f"{b}/mode")
    os.chmod(f"{a}/mode", 0o640)
    check(os.stat(f"{b}/mode").st_mode & 0o777 == 0o640, "a stale mode")
    created = []

    def create(mount):
        try:
            os.close(os.open(f"{mount}/exclusive", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            created.append(mount)
        except FileExistsError:
            pass
    for _ in range(20):
        created.clear()
        threads = [threading.Thread(target=create, args=(m,)) for m in (a, b)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(len(created) == 1, f"O_EXCL succeeded {len(created)} times")
        os.unlink(f"{a}/exclusive")


def looked_up_ahead(a, b):
    """Who looks up many names of a directory gets them ahead: what others change meanwhile is seen nevertheless."""
    os.mkdir(f"{b}/many")
    for number in range(1500):
        write(f"{b}/many/{number:04}", b"x" * number)
    for first in (0, 700):
        sizes = [os.stat(f"{a}/many/{number:04}").st_size for number in range(first, first + 400)]
        check(sizes == list(range(first, first + 400)), "sizes")
    for number in range(0, 300, 10):
        path = f"{number + 400:04}"
        for near in range(number + 391, number + 400):
            os.stat(f"{a}/many/{near:04}")
        os.unlink(f"{b}/many/{path}")
        fails(errno.ENOENT, os.stat, f"{a}/many/{path}")
        write(f"{b}/many/{path}", b"another")
        check(read(f"{a}/many/{path}") == b"another", "the file that took the place")
        os.chmod(f"{b}/many/{path}", 0o600)
        check(os.stat(f"{a}/many/{path}").st_mode & 0o777 == 0o600, "mode")
        os.rename(f"{b}/many/{path}", f"{b}/many/moved{path}")
        check(os.stat(f"{a}/many/moved{path}").st_size == 7, "renamed")
        fails(errno.ENOENT, os.stat, f"{a}/many/{path}")


def open_but_deleted(a, b):
    data = os.urandom(500000)
    for size in (1000, 500000):
        write(f"{a}/doomed", data[:size])
        with open(f"{a}/doomed", "rb") as file:
            os.unlink(f"{b}/doomed")
            fails(errno.ENOENT, os.stat, f"{b}/doomed")
            check(file.read() == data[:size], f"an open file of {size} bytes lost its data when the other deleted it")
        write(f"{a}/old", data[:size])
        write(f"{b}/over", b"new")
        with open(f"{a}/old", "rb") as file:
            os.rename(f"{b}/over", f"{b}/old")
            check(file.read() == data[:size], "an open file lost its data when the other renamed over it")
        check(read(f"{a}/old") == b"new", "the file renamed into place is not seen")


def opened_without_asking(a, b):
    """A mount that knows a directory's files opens them by itself. What the other one deletes, replaces or changes meanwhile is for
    those who have it open what it was, and for those who open it then what it is."""
    data = [os.urandom(500 + number) for number in range(100)]
    os.mkdir(f"{b}/known")
    for number in range(100):
        write(f"{b}/known/{number}", data[number])
        write(f"{b}/known/closed{number}", data[number])

    def look():
        for number in range(100):
            os.stat(f"{a}/known/{number}")
            os.stat(f"{a}/known/closed{number}")

    def inodes():
        info = os.statvfs(b)
        return info.f_files - info.f_ffree

    def named():
        return 1 + sum(len(directories) + len(files) for _, directories, files in os.walk(b))

    wait_for(lambda: inodes() == named(), 30, "what was deleted before is gone")
    look()
    files = [open(f"{a}/known/{number}", "rb") for number in range(100)]
    for number in range(0, 50):
        check(files[number].read(100) == data[number][:100], "the beginning of a file")
    for number in range(100):
        os.unlink(f"{b}/known/{number}")
        os.unlink(f"{b}/known/closed{number}")
    wait_for(lambda: inodes() <= named() + 100, 30, "the files that nobody has open are gone for good")
    for number in range(100):
        files[number].seek(0)
        check(files[number].read() == data[number], f"an open file lost its data when the other deleted it: {number}")
        files[number].close()
    wait_for(lambda: inodes() == named(), 30, "the files that were open are gone for good")
    for number in range(100):
        write(f"{b}/known/{number}", data[number])
    for number in range(0, 100, 2):
        if number % 30 == 0:
            sizes = [os.stat(f"{a}/known/{near}").st_size for near in range(100)]
            check(sizes == [len(content) for content in data], "sizes")
            check(read(f"{a}/known/{number}") == data[number], "content")
        write(f"{b}/known/{number}", data[number][::-1])
        check(read(f"{a}/known/{number}") == data[number][::-1], f"what the other has written is not what is read: {number}")
        write(f"{b}/known/{number}", data[number])
        os.rename(f"{b}/known/{number}", f"{b}/known/{(number + 1) % 100}")
        check(read(f"{a}/known/{(number + 1) % 100}") == data[number], f"the file renamed into place is not what is read: {number}")
        fails(errno.ENOENT, read, f"{a}/known/{number}")
        write(f"{b}/known/{(number + 1) % 100}", data[(number + 1) % 100])
        write(f"{b}/known/{number}", data[number])


def copied_by_the_cluster(a, b):
    """copy_file_range of a file that has been open for longer than a lease lasts, and that the other one has changed since."""
    old, new = os.urandom(1000), os.urandom(1000)
    for number in range(8):
        write(f"{a}/source{number}", old)
    sources = [os.open(f"{b}/source{number}", os.O_RDONLY) for number in range(8)]
    opened = time.monotonic()
    wait_for(lambda: time.monotonic() - opened > 1.5, 10, "the lease on the files has run out")
    for number, source in enumerate(sources):
        write(f"{a}/source{number}", new)
        with open(f"{b}/target{number}", "wb") as target:
            check(os.copy_file_range(source, target.fileno(), 1000, 0, 0) == 1000, "copied in part")
        check(read(f"{b}/target{number}") == new, "what was copied is what the file was before")
        os.close(source)


def locks(a, b):
    write(f"{a}/locked", b"0" * 100)
    with open(f"{a}/locked", "r+b") as one, open(f"{b}/locked", "r+b") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        fails(errno.EWOULDBLOCK, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = threading.Event()
        waiter = threading.Thread(target=lambda: (fcntl.flock(two, fcntl.LOCK_EX), taken.set()), daemon=True)
        waiter.start()
        check(not taken.wait(0.3), "flock was given to both")
        fcntl.flock(one, fcntl.LOCK_UN)
        check(taken.wait(10), "the waiter never got the flock")
        fcntl.flock(two, fcntl.LOCK_UN)
        fcntl.lockf(one, fcntl.LOCK_EX, 10, 0)
        fails(errno.EAGAIN, fcntl.lockf, two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
        fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
        fcntl.lockf(one, fcntl.LOCK_UN, 10, 0)
        fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    # a counter, raised by both under a lock: nothing is lost
    write(f"{a}/sum", b"0")

    def raise_it(mount):
        for _ in range(50):
            with open(f"{mount}/sum", "r+b") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
                number = int(file.read())
                file.seek(0)
                file.write(str(number + 1).encode())
                file.flush()
                os.fsync(file.fileno())
    threads = [threading.Thread(target=raise_it, args=(m,)) for m in (a, b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(read(f"{a}/sum") == b"100", f"{read(f'{a}/sum')} of 100 increments under a lock are left")


def main():
    with Cluster(mount=True, chunkservers=3) as cluster:
        a, b = cluster.mnt, os.path.join(DIR, "mnt2")
        process = cluster.mount_again(b)
        cluster.granary("admin", "set", "trash_seconds", "off")  # what nobody has open is to be gone
        for part in close_to_open, names, looked_up_ahead, open_but_deleted, opened_without_asking, copied_by_the_cluster, locks:
            step(part.__name__.replace("_", " "))
            part(a, b)
        step("a killed mount gives its locks back")
        cluster.granary("admin", "set", "session_timeout_ms", "5s")
        held = os.open(f"{b}/locked", os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        with open(f"{a}/locked", "r+b") as mine:
            fails(errno.EWOULDBLOCK, fcntl.flock, mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):
                os.close(held)

            def free():
                try:
                    fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                except BlockingIOError:
                    return False
            wait_for(free, 30, "the lock of a killed mount (its session lasts 5 s)")
        check(subprocess.run(["umount", "-l", b], check=False).returncode == 0, "the dead mount cannot be taken away")
    print("done")


if __name__ == "__main__":
    main()
