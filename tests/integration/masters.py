#!/usr/bin/env python3
"""The masters themselves: added, removed, replaced by an empty disk, while files are made; and all metadata to a
backup and back."""
# test: timeout=300
import glob
import json
import os
import shutil
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, step, wait_for, write  # noqa: E402


class Maker(threading.Thread):
    """Makes named files through the mount, syncs each, and knows them."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.names, self.ending, self.error = folder, [], threading.Event(), None
        os.makedirs(folder)

    def run(self):
        number = 0
        try:
            while not self.ending.is_set():
                name = f"f{number:06d}"
                descriptor = os.open(os.path.join(self.folder, name), os.O_CREAT | os.O_WRONLY, 0o644)
                os.write(descriptor, name.encode())
                os.fsync(descriptor)
                os.close(descriptor)
                self.names.append(name)
                number += 1
                self.ending.wait(0.002)
        except OSError as error:
            self.error = error

    def progress(self, count):
        goal = len(self.names) + count
        wait_for(lambda: len(self.names) >= goal or self.error, 60, f"{count} more files")
        check(not self.error, f"making files: {self.error}")

    def finish(self):
        self.ending.set()
        self.join(60)
        check(not self.is_alive() and not self.error, f"making files: {self.error}")

    def verify(self, folder):
        there = set(os.listdir(folder))
        missing = [name for name in self.names if name not in there]
        check(not missing, f"{len(missing)} of {len(self.names)} synced files are gone: {missing[:5]}")


def raft(cluster):
    return json.loads(cluster.granary("admin", "raft", "status", "--json"))


def voters(cluster):
    return sorted(m["id"] for m in raft(cluster)["members"] if not m["learner"])


def caught_up(cluster, ids):
    """All of them vote and hold nearly all of the log."""
    state = raft(cluster)
    return (sorted(m["id"] for m in state["members"] if not m["learner"]) == ids and
            all(m["match"] + 200 > state["log_last"] and m["contact_ms"] < 1000 for m in state["members"]))


def data(cluster, number):
    return os.path.join(cluster.path, f"data/master-{number}")


def change(cluster, maker):
    step("a fourth and a fifth master, while files are made")
    cluster.up("--masters", "5")
    check(voters(cluster) == [1, 2, 3, 4, 5], raft(cluster))
    maker.progress(50)
    step("leadership is handed over")
    target = next(i for i in (4, 5) if i != cluster.leader())
    cluster.granary("admin", "raft", "transfer", str(target))
    wait_for(lambda: cluster.leader() == target, 10, "the chosen leader")
    maker.progress(50)
    step("the leader is removed, then another one; errors are told")
    cluster.granary("admin", "raft", "remove", str(target))
    wait_for(lambda: target not in voters(cluster), 10, "one voter less")
    other = 9 - target
    cluster.granary("admin", "raft", "remove", str(other))
    check(voters(cluster) == [1, 2, 3], raft(cluster))
    cluster.granary("admin", "raft", "remove", "7", status=1)
    cluster.granary("admin", "raft", "add", "7=127.0.0.1:9", status=1)
    cluster.granary("admin", "raft", "add", "7", status=2)
    cluster.dev("kill", "master", "4")
    cluster.dev("kill", "master", "5")
    maker.progress(50)


def replace(cluster, maker):
    victim = next(i for i in (1, 2, 3) if i != cluster.leader())
    step(f"master {victim} gets an empty disk, and comes back by itself")
    before = {m["id"]: m["node"] for m in raft(cluster)["members"]}
    cluster.dev("replace", "master", str(victim))
    wait_for(lambda: {m["id"]: m["node"] for m in raft(cluster)["members"]}.get(victim) != before[victim], 30, "its new node")
    wait_for(lambda: caught_up(cluster, [1, 2, 3]), 30, "three voters that have caught up")
    maker.progress(50)


def restore(cluster, backup, names):
    step("restore into new masters: the chunkservers of before are theirs")
    identity = cluster.status()["cluster"]
    cluster.dev("down")
    with open(os.path.join(cluster.path, "dev.conf"), encoding="utf-8") as file:
        lines = file.readlines()
    with open(os.path.join(cluster.path, "dev.conf"), "w", encoding="utf-8") as file:
        file.writelines("masters = 3\n" if line.startswith("masters") else line
                        for line in lines if not line.startswith(("address.master-4", "address.master-5")))
    for number in range(1, 6):
        shutil.rmtree(data(cluster, number), ignore_errors=True)
    for number in range(1, 4):
        cluster.dev("restart", "master", str(number))
    check(cluster.status()["cluster"] != identity, "a new cluster")
    cluster.granary("admin", "restore", backup)
    check(cluster.status()["cluster"] == identity, "the cluster of the backup")
    cluster.granary("admin", "restore", backup, status=1)
    cluster.up()
    folder = os.path.join(cluster.mnt, "made")
    check(set(names) <= set(os.listdir(folder)), "the files of the backup")
    for name in names[::17]:
        with open(os.path.join(folder, name), encoding="ascii") as file:
            check(file.read() == name, f"content of {name}")
    write(os.path.join(folder, "new"), b"after")
    cluster.granary("admin", "backup", backup)
    for number in range(1, 4):
        cluster.dev("restart", "master", str(number))
    check(cluster.granary("cat", "/made/new") == b"after", "what was written after the restore")


def alone():
    step("a master alone, with a damaged database: made again from the log, which is whole")
    shutil.rmtree(os.path.join(DIR, "cluster"))
    with Cluster(masters=1, chunkservers=3) as cluster:
        for number in range(20):
            cluster.granary("mkdir", f"/d{number}")
        cluster.dev("kill", "master", "1")
        for path in glob.glob(os.path.join(data(cluster, 1), "state/MANIFEST-*")):
            write(path, b"nothing of use")
        cluster.up()
        check(len(cluster.granary("ls", "/").split()) == 20, "all directories")
        check(glob.glob(os.path.join(data(cluster, 1), "quarantine-state-*")), "the damaged one is kept")


def main():
    with Cluster(mount=True, chunkservers=3) as cluster:
        maker = Maker(os.path.join(cluster.mnt, "made"))
        maker.start()
        maker.progress(200)
        change(cluster, maker)
        replace(cluster, maker)
        step("backup while files are made; damaged ones are refused")
        backup = os.path.join(os.path.dirname(cluster.path), "backup")
        at_backup = list(maker.names)
        cluster.granary("admin", "backup", backup)
        maker.progress(20)
        maker.finish()
        maker.verify(maker.folder)
        with open(backup, "rb") as file:
            content = file.read()
        write(backup + ".cut", content[:-30])
        write(backup + ".bad", content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
        cluster.granary("admin", "restore", backup, status=1)
        for kind in ".cut", ".bad":
            cluster.granary("admin", "restore", backup + kind, status=1)
        restore(cluster, backup, at_backup)
    alone()
    print("done")


if __name__ == "__main__":
    main()
