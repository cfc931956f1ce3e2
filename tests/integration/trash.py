#!/usr/bin/env python3
"""The trash: a removed tree comes back byte for byte and attribute for attribute, what is due goes and gives its space back."""
# test: timeout=180
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, fails, read, step, wait_for, write  # noqa: E402

import errno  # noqa: E402


def make_tree(root):
    """Some hundred files of all kinds, sizes, modes and times."""
    generator = random.Random(11)
    os.makedirs(root)
    for d in range(12):
        folder = os.path.join(root, f"d{d % 4}", f"e{d}") if d % 3 else os.path.join(root, f"d{d % 4}")
        os.makedirs(folder, exist_ok=True)
        for f in range(18):
            path = os.path.join(folder, f"f{d}-{f}")
            write(path, generator.randbytes(int(2 ** generator.uniform(0, 17))))
            os.chmod(path, generator.choice([0o600, 0o644, 0o4755, 0o400, 0o000]))
            os.utime(path, ns=(10**18 + f, 10**18 + 12345 * d + f))
    write(os.path.join(root, "large"), generator.randbytes(9 << 20))
    write(os.path.join(root, "empty-file"), b"")
    write(os.path.join(root, "naïve ☃ name"), b"utf")
    os.chown(os.path.join(root, "naïve ☃ name"), 1000, 1001)
    os.mkdir(os.path.join(root, "empty-directory"))
    os.symlink("../large", os.path.join(root, "d0", "link"))
    os.symlink("/nowhere", os.path.join(root, "dangling"))
    os.mkfifo(os.path.join(root, "fifo"))
    for folder, _, _ in os.walk(root, topdown=False):
        os.utime(folder, ns=(10**18, 10**18 + len(folder)))


def looked_at(root):
    """All that a user sees of a tree but ctime and inode numbers."""
    seen = {}
    for folder, folders, files in os.walk(root):
        for name in [""] + folders + files:
            path = os.path.join(folder, name) if name else folder
            info = os.lstat(path)
            content = None
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(read(path)).hexdigest()
            xattrs = {}
            if not stat.S_ISLNK(info.st_mode):
                xattrs = {n: os.getxattr(path, n) for n in os.listxattr(path) if n.startswith("user.")}
            seen[os.path.relpath(path, root)] = (info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, content, xattrs)
    return seen


def same(before, after):
    for path in sorted(set(before) | set(after)):
        check(before.get(path) == after.get(path), f"{path}: was {before.get(path)}, is {after.get(path)}")


def entries(cluster, *path):
    return json.loads(cluster.granary("admin", "trash", "list", "--json", *path))["trash"]


def df(cluster):
    return json.loads(cluster.granary("df", "--json"))


def whole_tree(cluster):
    step("rm -r of a tree through the mount, and back")
    tree = f"{cluster.mnt}/tree"
    make_tree(os.path.join(DIR, "tree"))
    subprocess.run(["cp", "-a", os.path.join(DIR, "tree"), tree], check=True)
    os.setxattr(f"{tree}/large", "user.colour", b"blue")
    os.setxattr(f"{tree}/d1", "user.of-directory", b"1")
    before = looked_at(tree)
    names = len(before)
    subprocess.run(["rm", "-r", tree], check=True)
    fails(errno.ENOENT, os.lstat, tree)
    check(len(entries(cluster)) == names, f"{len(entries(cluster))} of {names} names are in the trash")
    space = df(cluster)
    check(space["trash_files"] == names and space["trash_bytes"] > 9 << 20, f"df says {space}")
    listed = cluster.granary("undelete", "--list", "-r", "/tree").decode()
    check("/tree/d0/link\n" in listed and len(listed.splitlines()) == names, f"undelete --list: {listed}")
    cluster.granary("undelete", "/tree", status=1)  # not without -r
    cluster.granary("undelete", "-r", "/tree")
    same(before, looked_at(tree))
    check(entries(cluster) == [], f"still in the trash: {entries(cluster)}")

    step("what was removed from a directory that is still there")
    for name in os.listdir(tree):
        path = f"{tree}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    cluster.granary("undelete", "/tree", status=1)
    cluster.granary("undelete", "-r", "/tree")
    after = looked_at(tree)
    after.pop("."), before.pop(".")
    same(before, after)

    step("one file brings its directories along; the rest follows")
    subprocess.run(["rm", "-r", tree], check=True)
    cluster.granary("undelete", "/tree/d1/e1/f1-3")
    check(sorted(os.listdir(tree)) == ["d1"] and os.listdir(f"{tree}/d1") == ["e1"], f"came along: {os.listdir(tree)}")
    cluster.granary("undelete", "-r", "/tree")
    after = looked_at(tree)
    after.pop(".")
    same({p: v[:4] + v[5:] for p, v in before.items()}, {p: v[:4] + v[5:] for p, v in after.items()})
    shutil.rmtree(tree)


def versions(cluster):
    step("files that were replaced; --id, --to; names that are taken")
    path = f"{cluster.mnt}/note"
    for i in range(3):
        write(path + ".new", b"version %d" % i)
        os.rename(path + ".new", path)
    found = entries(cluster, "/note")
    check(len(found) == 2 and all(e["path"] == "/note" for e in found), f"replaced versions: {found}")
    cluster.granary("undelete", "/note", status=1)
    cluster.granary("undelete", "--to", "/note-1", "/note")
    cluster.granary("undelete", "--to", "/old/note", "--id", found[0]["id"], "/note", status=3)
    os.mkdir(f"{cluster.mnt}/old")
    cluster.granary("undelete", "--to", "/old/note", "--id", found[0]["id"], "/note")
    check(read(f"{cluster.mnt}/note-1") == b"version 1" and read(f"{cluster.mnt}/old/note") == b"version 0", "the wrong version came back")
    check(read(path) == b"version 2", "what was there has changed")
    cluster.granary("undelete", "/never-there", status=3)

    step("open while it is removed; only the last of several links")
    write(path, b"0123456789")
    with open(path, "r+b") as file:
        os.link(path, path + "-link")
        os.unlink(path + "-link")
        check(entries(cluster, "/note-link") == [], "a file with a link left is in the trash")
        os.unlink(path)
        file.write(b"abc")
        file.flush()
        file.seek(0)
        check(file.read() == b"abc3456789", "an open file after its removal")
    cluster.granary("undelete", "/note")
    check(read(path) == b"abc3456789", "what was written to it after its removal")
    with open(path, "r+b") as file:
        os.unlink(path)
        cluster.granary("undelete", "/note")
        file.write(b"def")
    check(read(path) == b"def3456789", "what was written through a handle from before it was removed and brought back")
    check(cluster.granary("cat", "/note") == b"def3456789", "the same, seen by another client")

    step("blobs by id; for good")
    blob = cluster.granary("put", "--id", "-", data=b"blob").decode().strip()
    cluster.granary("rm", blob)
    cluster.granary("get", blob, "-", status=3)
    cluster.granary("undelete", blob)
    check(cluster.granary("get", blob, "-") == b"blob", "a blob after undelete")
    cluster.granary("rm", "--now", blob, "/note")
    cluster.granary("undelete", blob, status=3)
    cluster.granary("undelete", "/note", status=3)


def time_is_over(cluster):
    step("a new leader knows it, too")
    write(f"{cluster.mnt}/kept", random.Random(5).randbytes(3 << 20))
    content = read(f"{cluster.mnt}/kept")
    os.unlink(f"{cluster.mnt}/kept")
    old = cluster.leader()
    cluster.dev("kill", "master", str(old))
    wait_for(lambda: cluster.leader() not in (0, old), 15, "another leader")
    cluster.granary("undelete", "/kept")
    check(read(f"{cluster.mnt}/kept") == content, "after a change of leaders")
    cluster.up()

    step("older than; by path; all")
    write(f"{cluster.mnt}/old/a", b"a")
    write(f"{cluster.mnt}/b", b"b")
    os.unlink(f"{cluster.mnt}/old/a")
    os.unlink(f"{cluster.mnt}/b")
    cluster.granary("admin", "trash", "empty", "--older-than", "1h")
    check({"/old/a"} <= {e["path"] for e in entries(cluster, "/old")}, f"after an empty --older-than: {entries(cluster)}")
    cluster.granary("admin", "trash", "empty", "/old")
    check(entries(cluster, "/old") == [] and entries(cluster, "/b") != [], f"after an empty of a path: {entries(cluster)}")
    cluster.granary("admin", "trash", "empty")
    check(entries(cluster) == [], "after an empty")

    step("what is due goes, and gives its space back")
    wait_for(lambda: cluster.status()["garbage"] == 0, 30, "deletion of what was emptied")
    os.unlink(f"{cluster.mnt}/kept")
    check(len(entries(cluster)) == 1, f"in the trash: {entries(cluster)}")
    chunks = cluster.status()["chunks"]
    cluster.granary("admin", "set", "trash_seconds", "1s")
    wait_for(lambda: entries(cluster) == [], 15, "the end of a second in the trash")
    wait_for(lambda: cluster.status()["chunks"] < chunks and cluster.status()["garbage"] == 0, 30, "its chunk's deletion")
    cluster.granary("undelete", "/kept", status=3)
    cluster.granary("admin", "set", "trash_seconds", "off")
    write(f"{cluster.mnt}/gone", b"x")
    os.unlink(f"{cluster.mnt}/gone")
    check(entries(cluster) == [], "the trash is off")


def main():
    with Cluster(mount=True) as cluster:
        whole_tree(cluster)
        versions(cluster)
        time_is_over(cluster)


main()
