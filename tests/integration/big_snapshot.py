#!/usr/bin/env python3
"""A master with an empty disk pulls a state of 300,000 files; its source is killed at 10, 50 and 99 percent, and names are made meanwhile."""
# test: timeout=240
import glob
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import BIN, DIR, Cluster, check, step, wait_for  # noqa: E402

FILES = 300000


def raft(cluster):
    try:
        return json.loads(cluster.granary("admin", "raft", "status", "--json", "--timeout", "5s"))
    except AssertionError:
        return {"members": [], "leader": 0, "log_last": 0}


def whole(cluster):
    state = raft(cluster)
    voters = [m for m in state["members"] if not m["learner"] and m["match"] + 200 > state["log_last"] and m["contact_ms"] < 1000]
    return len(voters) == 3


def bytes_in(folders):
    total = 0
    for folder in folders:
        for path in glob.glob(os.path.join(folder, "*")):
            try:
                total += os.path.getsize(path)
            except OSError:
                pass
    return total


def states(cluster, number):
    return glob.glob(os.path.join(cluster.path, f"data/master-{number}/state*"))


def restarted(cluster, number):
    """Not before the killed process has given its lock back."""
    try:
        cluster.dev("restart", "master", str(number))
    except AssertionError:
        return False
    return True


def broken_pulls(cluster):
    """Begun and not completed."""
    count = 0
    for path in glob.glob(os.path.join(cluster.path, "log/master-*.log")):
        with open(path, errors="replace", encoding="utf-8") as file:
            text = file.read()
        count += text.count(" install_begins ") - text.count(" master_installed ")
    return count


def interrupted(cluster, percent):
    leader = cluster.leader()
    victim = leader % 3 + 1
    step(f"master {victim} gets an empty disk; its source, master {leader}, is killed at {percent}%")
    size = bytes_in(states(cluster, leader))
    cluster.dev("replace", "master", str(victim))
    wait_for(lambda: bytes_in(states(cluster, victim)) > size * percent // 120, 60, "the pull to get so far")
    cluster.dev("kill", "master", str(leader))
    wait_for(lambda: restarted(cluster, leader), 20, "it to start again")
    cluster.granary("mkdir", f"/during-{percent}")
    wait_for(lambda: whole(cluster), 90, "three voters that have caught up")
    cluster.granary("admin", "raft", "transfer", str(victim), status=0 if cluster.leader() != victim else 1)
    wait_for(lambda: cluster.leader() == victim, 20, "the new one to lead")
    for number in (0, 77, 299):
        check(len(cluster.granary("ls", f"/d{number:08d}").split()) == 1000, "all files of a directory")
    check(len(cluster.granary("ls", f"/during-{percent}").split()) == 0, "what was made meanwhile")


def main():
    with Cluster(masters=3, chunkservers=1) as cluster:
        cluster.dev("kill", "chunkserver", "1")
        backup = os.path.join(DIR, "made")
        subprocess.run([os.path.join(BIN, "make_backup"), backup, str(FILES)], check=True)
        step(f"{FILES} files")
        cluster.granary("admin", "restore", backup)
        for percent in 10, 50, 99:
            interrupted(cluster, percent)
        check(broken_pulls(cluster) > 0, "no pull was ever interrupted")
        text = cluster.granary("admin", "backup", backup).decode()
        check(int(text.split()[0]) > 2 * FILES, text)
    print("done")


if __name__ == "__main__":
    main()
