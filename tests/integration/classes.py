#!/usr/bin/env python3
"""Storage classes: who inherits them, what follows a change in the background, through a change of leaders; their trash; delayed tasks."""
# test: timeout=120
import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, check, read, step, wait_for, write  # noqa: E402


def classes(cluster):
    return {c["name"]: c for c in json.loads(cluster.granary("admin", "class", "list", "--json"))}


def class_of(cluster, *paths):
    lines = cluster.granary("stat", "--json", *paths).decode().splitlines()
    found = [json.loads(line)["class"] for line in lines]
    return found[0] if len(paths) == 1 else found


def tasks(cluster, count=1000):
    return json.loads(cluster.granary("admin", "tasks", "--json", "-n", str(count)))


def idle(cluster):
    counts = tasks(cluster)["counts"]
    return counts["assign"] == counts["class"] == counts["move"] == 0


def table(cluster):
    step("the table: defaults, bounds, names")
    check(classes(cluster) == {"default": {"name": "default", "copies": 3, "cold": "auto", "cool_seconds": 604800,
                                           "compression": "auto", "trash_seconds": 86400}}, f"classes at first: {classes(cluster)}")
    cluster.granary("admin", "class", "set", "archive", "copies=2", "cold=10+4", "cool=30d", "compression=high", "trash=off")
    cluster.granary("admin", "class", "set", "archive", "cool=1h", "compression=default")
    check(classes(cluster)["archive"] == {"name": "archive", "copies": 2, "cold": "10+4", "cool_seconds": 3600,
                                          "compression": "auto", "trash_seconds": 0}, f"the class: {classes(cluster)}")
    for wrong in ("copies=6", "copies=0", "cold=33+2", "cold=4+9", "cold=4", "cool=0", "cool=1ms", "compression=gzip", "size=3", "copies"):
        cluster.granary("admin", "class", "set", "archive", wrong, status=2)
    cluster.granary("admin", "class", "set", "Archive", "copies=2", status=2)
    cluster.granary("admin", "class", "remove", "default", status=1)
    cluster.granary("admin", "class", "remove", "none", status=1)
    cluster.granary("admin", "class", "set", "fleeting", "trash=1s")
    three = os.statvfs(cluster.mnt).f_blocks
    cluster.granary("admin", "class", "set", "default", "copies=1")
    wait_for(lambda: 2.9 < os.statvfs(cluster.mnt).f_blocks / three < 3.1, 10, "df to say what a file can take in one copy")
    cluster.granary("admin", "class", "set", "default", "copies=default")


def inherited(cluster):
    step("made in a directory, through the mount and otherwise")
    cluster.granary("mkdir", "--class", "archive", "/a")
    cluster.granary("mkdir", "--class", "none", "/b", status=1)
    os.makedirs(f"{cluster.mnt}/a/below")
    write(f"{cluster.mnt}/a/below/small", b"small")
    write(f"{cluster.mnt}/a/large", random.Random(3).randbytes(1 << 20))
    cluster.granary("put", "-", "/a/put", data=b"blob")
    cluster.granary("put", "-", "/a/put-large", data=bytes(6 << 20))
    cluster.granary("put", "--class", "default", "-", "/a/put-default", data=b"blob")
    cluster.granary("put", "--class", "archive", "-", "/put", data=b"blob")
    found = class_of(cluster, "/a", "/a/below", "/a/below/small", "/a/large", "/a/put", "/a/put-large", "/put", "/a/put-default", "/")
    check(found == ["archive"] * 7 + ["default"] * 2, f"classes: {found}")
    cool = [t for t in tasks(cluster)["first"] if t["kind"] == "cool"]
    check(len(cool) == 2, f"each chunk has its task: {cool}")
    # Two copies are enough for it.
    wait_for(lambda: json.loads(cluster.granary("admin", "status", "--json"))["safe"], 20, "all copies that are wanted")


def assigned(cluster):
    step("a tree follows, whoever leads; the later assignment counts")
    for d in range(6):
        os.makedirs(f"{cluster.mnt}/tree/d{d}/e")
        for f in range(100):
            write(f"{cluster.mnt}/tree/d{d}/e/f{f}", b"%d" % f)
    old = cluster.leader()
    cluster.granary("admin", "class", "assign", "archive", "/tree")
    cluster.granary("admin", "class", "assign", "fleeting", "/tree/d5")
    cluster.dev("kill", "master", str(old))
    wait_for(lambda: cluster.leader() not in (0, old), 15, "another leader")
    wait_for(lambda: idle(cluster), 20, "the end of what is done in the background")
    paths = [f"/tree/d{d}/e/f{f}" for d in range(6) for f in range(100)]
    found = class_of(cluster, *paths)
    check(found == ["archive"] * 500 + ["fleeting"] * 100, f"classes of the tree: {found}")
    cluster.up()
    cluster.granary("admin", "class", "assign", "--new-only", "default", "/tree/d0/e")
    write(f"{cluster.mnt}/tree/d0/e/new", b"new")
    found = class_of(cluster, "/tree/d0/e", "/tree/d0/e/new", "/tree/d0/e/f0")
    check(found == ["default", "default", "archive"], f"new ones only: {found}")
    cluster.granary("admin", "class", "assign", "none", "/tree", status=1)


def changed(cluster):
    step("chunks follow a change of their class: when they may become cold, how many copies they have")
    before = {t["target"]: t["due_ns"] for t in tasks(cluster)["first"] if t["kind"] == "cool"}
    cluster.granary("admin", "class", "set", "archive", "cool=2h", "copies=4")
    wait_for(lambda: idle(cluster), 20, "the end of what is done in the background")
    after = {t["target"]: t["due_ns"] for t in tasks(cluster)["first"] if t["kind"] == "cool"}
    check(all(3500 * 10**9 < after[chunk] - due < 3700 * 10**9 for chunk, due in before.items()), f"due: {before}, then {after}")
    wait_for(lambda: json.loads(cluster.granary("admin", "status", "--json"))["safe"], 60, "four copies of everything in that class")
    check(sum(s["chunks"] for s in cluster.status()["servers"]) >= 4 * len(after), "copies")
    cluster.granary("admin", "class", "set", "archive", "cold=off")
    wait_for(lambda: tasks(cluster)["counts"]["cool"] == 0, 20, "the end of tasks that are not wanted any more")


def pack_of(cluster, path):
    chunks = json.loads(cluster.granary("explain", "--json", path))["chunks"]
    check([c["kind"] for c in chunks] == ["pack"], f"chunks of {path}: {chunks}")
    return chunks[0]["class"]


def moved(cluster):
    step("small files move to packs of their class, while some are rewritten, one is open, and a chunkserver dies")
    cluster.granary("admin", "class", "set", "pair", "copies=2", "cold=off")
    rng = random.Random(5)
    expected = {f"f{f}": rng.randbytes(rng.randrange(1, 20000)) for f in range(200)}
    os.makedirs(f"{cluster.mnt}/m/below")
    for name, data in expected.items():
        write(f"{cluster.mnt}/m/below/{name}", data)
    check(pack_of(cluster, "/m/below/f0") == "default", "where it is at first")
    held = os.open(f"{cluster.mnt}/m/below/f0", os.O_RDWR)
    check(os.pread(held, 1 << 20, 0) == expected["f0"], "before")
    cluster.granary("admin", "class", "assign", "pair", "/m")
    cluster.dev("kill", "chunkserver", "2")
    for f in range(1, 200, 7):
        expected[f"f{f}"] = rng.randbytes(1000)
        write(f"{cluster.mnt}/m/below/f{f}", expected[f"f{f}"])
    wait_for(lambda: idle(cluster), 60, "the end of the moves")
    os.fsync(held)
    check(os.pread(held, 1 << 20, 0) == expected["f0"], "of who has had it open")
    os.pwrite(held, b"changed", 0)
    expected["f0"] = b"changed" + expected["f0"][7:]
    os.close(held)
    for name, data in expected.items():
        check(read(f"{cluster.mnt}/m/below/{name}") == data, f"content of {name}")
    for f in (1, 2, 3, 50, 99, 150, 199):
        check(pack_of(cluster, f"/m/below/f{f}") == "pair", f"the pack of f{f}")
        check(cluster.granary("get", f"/m/below/f{f}", "-") == expected[f"f{f}"], f"f{f}, got")
    cluster.up()
    step("... and from cold packs")
    cluster.granary("admin", "class", "set", "chill", "copies=2", "cold=2+2")
    cluster.granary("mkdir", "--class", "chill", "/c")
    expected = {f"/c/f{f}": rng.randbytes(rng.randrange(1, 20000)) for f in range(20)}
    for name, data in expected.items():
        cluster.granary("put", "-", name, data=data)
    cluster.granary("admin", "cool", "--wait", "/c")
    state = json.loads(cluster.granary("explain", "--json", "/c/f0"))["chunks"][0]["state"]
    check(state == "cold", f"the pack is {state}")
    cluster.granary("admin", "class", "assign", "pair", "/c")
    wait_for(lambda: idle(cluster), 60, "the end of the moves")
    for name, data in expected.items():
        check(cluster.granary("get", name, "-") == data, f"content of {name}")
    check({pack_of(cluster, name) for name in expected} == {"pair"}, "their packs")


def trash(cluster):
    step("the trash keeps what is removed as long as its class says")
    def names():
        return sorted(e["name"] for e in json.loads(cluster.granary("admin", "trash", "list", "--json"))["trash"])
    write(f"{cluster.mnt}/kept", b"kept")
    for path in ("kept", "tree/d5/e/f1", "tree/d5/e/f2", "tree/d1/e/f1"):
        os.unlink(f"{cluster.mnt}/{path}")
    check("kept" in names() and names().count("f1") < 2, f"in the trash: {names()}")
    wait_for(lambda: names() == ["kept"], 15, "the end of a second in the trash")
    step("a class that is removed stands for the default one")
    cluster.granary("admin", "class", "remove", "fleeting")
    os.unlink(f"{cluster.mnt}/tree/d5/e/f3")
    check(names() == ["f3", "kept"], f"in the trash: {names()}")
    check(read(f"{cluster.mnt}/tree/d5/e/f4") == b"4", "its files")
    check(json.loads(cluster.granary("admin", "fsck", "--json"))["found"] == 0, "fsck")


def main():
    with Cluster(mount=True) as cluster:
        table(cluster)
        inherited(cluster)
        assigned(cluster)
        changed(cluster)
        moved(cluster)
        trash(cluster)


main()
