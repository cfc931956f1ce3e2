#!/usr/bin/env python3
"""Many clients and greedy ones: a thousand connections at once at the master and at a chunkserver, one client with thousands of requests
outstanding beside one with a single request, processes with few descriptors. Nobody is starved, nothing dies, all is right afterwards."""
# test: timeout=200
import json
import os
import resource
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, check, step  # noqa: E402

DATA = os.urandom(1 << 20)
OUTSTANDING = 2500  # of each of four connections of the greedy client


def crowd(cluster, what, connections, outstanding, seconds):
    """A running crowd; result() waits for its end."""
    leader = cluster.processes()[f"master-{cluster.leader()}"]["address"]
    words = [cluster.program("crowd"), leader, "data", what, str(connections), str(outstanding), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def result(process, status=0):
    said = process.communicate(timeout=120)[0]
    check(process.returncode == status, f"crowd exited with {process.returncode}: {said}")
    seen = json.loads(said.splitlines()[-1])
    print({key: seen[key] for key in ("done", "errors", "least", "most", "p50_ms", "p99_ms", "max_ms")})
    return seen


def thousand(cluster):
    for what in ("meta", "read"):
        step(f"a thousand connections: {what}")
        seen = result(crowd(cluster, what, 1000, 1, 2))
        check(seen["errors"] == 0 and seen["least"] > 0, f"every one of them is served: {seen}")


def shares(cluster):
    for what in ("meta", "read"):
        step(f"greedy and light: {what}")
        greedy = crowd(cluster, what, 4, OUTSTANDING, 3)
        check(greedy.stdout.readline() == "running\n", "the greedy client does not begin")
        light = result(crowd(cluster, what, 1, 1, 1))
        heavy = result(greedy)
        check(light["done"] > 0 and light["p50_ms"] * 5 < heavy["p50_ms"], f"one request waits behind {4 * OUTSTANDING}: {light} {heavy}")



def few_descriptors(cluster):
    step("processes that may have few descriptors")
    few = 150

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))

    # All of them start anew with the limit.
    cluster.dev("down")
    done = subprocess.run([cluster.program("granary"), "dev", "up", cluster.path, *cluster.options], preexec_fn=limit, capture_output=True,
                          timeout=90, check=False)
    check(done.returncode == 0, f"dev up with {few} descriptors: {done.stderr}")
    processes = cluster.processes()
    with open(f"/proc/{processes['chunkserver-1']['pid']}/limits", encoding="ascii") as file:
        check(any(line.split()[3] == str(few) for line in file if line.startswith("Max open files")), "the limit is not there")
    # More clients than there are places: those that find none say so, the servers go on.
    many = crowd(cluster, "read", 150, 1, 1)
    many.wait(60)
    check(many.returncode != 0, "there was room for all of them: the limit does nothing")
    for kind in ("master", "chunkserver"):
        for name, process in cluster.processes().items():
            check(not name.startswith(kind) or process["pid"] == processes[name]["pid"], f"{name} did not survive")
    # More chunks than may be open at once.
    for i in range(40):
        cluster.granary("put", "-", f"/many{i}", data=DATA)
    for i in range(40):
        check(cluster.granary("get", f"/many{i}", "-") == DATA, f"/many{i}")
    seen = result(crowd(cluster, "read", 4, 4, 1))
    check(seen["errors"] == 0, f"it does not go on: {seen}")


def right(cluster):
    check(cluster.granary("get", "/data", "-") == DATA, "the data afterwards")
    check(all(p["state"] == "running" for p in cluster.processes().values()), f"processes: {cluster.processes()}")


with Cluster() as cluster:
    cluster.granary("put", "-", "/data", data=DATA)
    thousand(cluster)
    shares(cluster)
    right(cluster)
    few_descriptors(cluster)
    right(cluster)
