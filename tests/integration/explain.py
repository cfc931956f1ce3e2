#!/usr/bin/env python3
"""granary explain, admin what-if, and sizes: logical, stored and physical, of hot and cold files and of packs."""
# test: timeout=90
import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import Cluster, check, step, wait_for  # noqa: E402


def explained(cluster, path):
    return json.loads(cluster.granary("explain", "--json", path))


def only_chunk(cluster, path):
    chunks = explained(cluster, path)["chunks"]
    check(len(chunks) == 1, f"one chunk: {chunks}")
    return chunks[0]


def stat(cluster, path):
    return json.loads(cluster.granary("stat", "--json", path))


def what_if(cluster, *servers, status=0):
    return json.loads(cluster.granary("admin", "what-if", "--lose", ",".join(servers), "--names", "--json", status=status))


def fill(cluster):
    step("a cold file that can be compressed, a hot one that cannot, a small one")
    words = b"".join(b"line %d of a text that says the same again and again\n" % i for i in range(100000))
    cluster.granary("mkdir", "-p", "/d/e")
    cluster.granary("put", "-", "/d/cold", data=words)
    cluster.granary("put", "-", "/d/e/hot", data=random.Random(1).randbytes(7 << 20))
    cluster.granary("put", "-", "/d/e/small", data=b"small" * 100)
    cluster.granary("admin", "cool", "--wait", "/d/cold")
    return len(words)


def explain(cluster, size):
    step("explain: cold, hot and small")
    cold = only_chunk(cluster, "/d/cold")
    check(cold["state"] == "cold" and cold["data_shards"] == 4 and cold["parity_shards"] == 2, f"as 4+2 on six hosts: {cold}")
    check([p["role"] for p in cold["places"]] == ["data"] * 4 + ["parity"] * 2, f"its shards: {cold['places']}")
    check(len({p["host"] for p in cold["places"]}) == 6, f"on six hosts: {cold['places']}")
    check(all(p["state"] == "up" and p["found"]["copy"] == "complete" and p["found"]["verified_ms"] == 0 for p in cold["places"]),
          f"they are there: {cold['places']}")
    check(cold["stored_bytes"] < size / 2 and cold["physical_bytes"] < size and cold["logical_bytes"] == size, f"its sizes: {cold}")
    check(sum(p["found"]["bytes"] for p in cold["places"]) >= cold["physical_bytes"], f"on the disks: {cold}")
    hot = only_chunk(cluster, "/d/e/hot")
    check(hot["state"] == "hot" and [p["role"] for p in hot["places"]] == ["copy"] * 3, f"three copies: {hot}")
    check(hot["cool_due_ns"] > 0 and any("becomes cold on" in w for w in hot["why"]), f"it becomes cold some day: {hot}")
    small = explained(cluster, "/d/e/small")
    check(small["slot"] == 1 and small["chunks"][0]["kind"] == "pack" and len(small["chunks"][0]["places"]) == 3, f"in a pack: {small}")
    check(explained(cluster, "/d")["chunks"] == [], "a directory has no chunks")
    cluster.granary("explain", "/none", status=3)
    text = cluster.granary("explain", stat(cluster, "/d/e/hot")["id"]).decode()
    check("class default wants 3 copies" in text and text.count("not scrubbed yet") == 3, f"for people, by id: {text}")


def verified(cluster):
    step("when it was last verified: the cold file is scrubbed, its shards with it")
    cluster.granary("admin", "scrub", "--wait", "/d/cold")
    cold, hot = only_chunk(cluster, "/d/cold"), only_chunk(cluster, "/d/e/hot")
    check(all(p["found"]["verified_ms"] > 0 for p in cold["places"]), f"its shards are verified: {cold['places']}")
    check(all(p["found"]["verified_ms"] == 0 for p in hot["places"]), f"the other file's copies are not: {hot['places']}")
    cluster.granary("admin", "scrub", "--wait")
    check(all(p["found"]["verified_ms"] > 0 for path in ("/d/e/hot", "/d/e/small") for p in only_chunk(cluster, path)["places"]),
          "all are verified")


def sizes(cluster, size):
    step("stat, du, df agree")
    each = {path: stat(cluster, path) for path in ("/d/cold", "/d/e/hot", "/d/e/small")}
    cold, hot, small = each.values()
    check(cold["cold_chunks"] == cold["chunks"] == 1 and cold["stored_bytes"] < size / 2, f"stat: {cold}")
    check(hot["cold_chunks"] == 0 and hot["stored_bytes"] == 7 << 20 and hot["physical_bytes"] == 21 << 20, f"stat: {hot}")
    check(small["stored_bytes"] == 500 and small["physical_bytes"] == 1500, f"stat: {small}")
    sums = {}
    for line in cluster.granary("du", "--sizes", "/d").decode().splitlines():
        *numbers, path = line.split("\t")
        sums[path] = [int(n) for n in numbers]
    keys = ("size", "stored_bytes", "physical_bytes")
    check(sums["/d/e"] == [hot[k] + small[k] for k in keys], f"du: {sums}")
    check(sums["/d"] == [cold[k] + hot[k] + small[k] for k in keys], f"du: {sums}")
    check(cluster.granary("du", "-s", "/d").decode() == f"{sums['/d'][0]}\t/d\n", "du without options is as ever")
    check(cluster.granary("du", "--sizes", "/d/e/small") == b"500\t500\t1500\t/d/e/small\n", "du of a file")
    df = json.loads(cluster.granary("df", "--json"))
    check([df["stored_bytes"], df["physical_bytes"]] == sums["/d"][1:], f"df: {df}")
    check(0 < df["overhead"] < 3 and abs(df["overhead"] - df["physical_bytes"] / df["bytes_used"]) < 0.01, f"df: {df}")
    check(cluster.granary("df").decode().splitlines()[0].split()[-1] == "overhead", "df for people")


def lose(cluster):
    step("what-if: nothing, something, everything")
    hot = only_chunk(cluster, "/d/e/hot")["places"]
    one = what_if(cluster, hot[0]["server"])
    check(one["all"]["chunks"] == 3 and one["lost"]["chunks"] == 0 and one["servers_left"] == 5, f"one: {one}")
    check(one["degraded"]["chunks"] + one["one_failure_from_loss"]["chunks"] >= 2, f"the cold one and the hot one: {one}")
    check(one["too_few_servers"]["chunks"] == 1, f"six shards on five servers: {one}")
    check(one["repair_bytes"] >= 7 << 20 and one["repair_ms"] >= 50, f"repair of the hot one: {one}")
    two = what_if(cluster, hot[0]["host"], hot[1]["address"])
    check(two["lost"]["chunks"] == 0 and two["one_failure_from_loss"]["chunks"] >= 2, f"two: {two}")
    three = what_if(cluster, *(p["server"] for p in hot), status=1)
    check({"/d/cold", "/d/e/hot"} <= set(three["names"]) and three["lost"]["bytes"] >= 12 << 20, f"three: {three}")
    check(stat(cluster, "/d/e/hot")["id"] in [c["inode"] for c in three["first_lost"]], f"by id: {three}")
    everything = what_if(cluster, *(s["host"] for s in cluster.status()["servers"]), status=1)
    check(everything["lost"] == everything["all"] and everything["servers_left"] == 0, f"everything: {everything}")
    check(everything["names"] == ["/d/cold", "/d/e/hot", "/d/e/small"], f"everything: {everything}")
    cluster.granary("admin", "what-if", "--lose", "none", status=3)
    cluster.granary("admin", "what-if", status=2)


def away(cluster):
    step("a server that is away")
    gone = only_chunk(cluster, "/d/e/hot")["places"][0]
    cluster.granary("admin", "set", "repair_delay_ms", "1h")
    cluster.dev("kill", "chunkserver", gone["host"].split("-")[1])
    wait_for(lambda: only_chunk(cluster, "/d/e/hot")["available"] == 2, 20, "that the leader misses it")
    hot = only_chunk(cluster, "/d/e/hot")
    place = next(p for p in hot["places"] if p["server"] == gone["server"])
    check(place["state"] == "away" and not place["asked"] and "found" not in place, f"it is away: {place}")
    check(any("2 of 3 copies are in service" in w and "they may come back" in w for w in hot["why"]), f"why: {hot['why']}")
    check(only_chunk(cluster, "/d/cold")["available"] == 5, "the cold one lacks it, too")
    other = next(p for p in hot["places"] if p["server"] != gone["server"])
    check(what_if(cluster, other["server"])["one_failure_from_loss"]["chunks"] >= 1, "what is away does not count")


def main():
    with Cluster(masters=1, chunkservers=6) as cluster:
        size = fill(cluster)
        explain(cluster, size)
        verified(cluster)
        sizes(cluster, size)
        lose(cluster)
        away(cluster)


main()
