#!/usr/bin/env python3
"""Cold chunks: a tree and large files become cold, by themselves and on demand, take the space that the code says, are read with m of their
servers gone, with shards damaged or removed, which are found and made anew; who writes to one makes it hot again, and no process killed
on the way loses anything or leaves anything behind."""
# test: exclusive timeout=300
import glob
import itertools
import json
import os
import random
import subprocess
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from cluster import DIR, Cluster, check, read, step, wait_for, write  # noqa: E402

MIB = 1 << 20
DATA_OFFSET = 68 * 1024  # in a chunk's file
TREE = "/usr/share/doc"
TREE_FILES = 700
CODE_FILES = 800


def sources(rng):
    """Small files that begin alike and say the same things, each in an order of its own: hard to compress one by one."""
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randrange(3, 9))) for _ in range(800)]
    licence = " ".join(rng.choices(words, k=200))
    phrases = [" ".join(rng.choices(words, k=6)) for _ in range(150)]
    return {f"code/{number}.c": (licence + "".join(f"\n{rng.choice(phrases)} = {rng.randrange(1000)};" for _ in range(rng.randrange(5, 70)))).encode()
            for number in range(CODE_FILES)}


def made(cluster):
    """Files of all kinds: large ones that can and cannot be compressed, one with holes, one that ends oddly, a tree of small ones."""
    rng = random.Random(4)
    words = [rng.randbytes(rng.randrange(2, 9)) for _ in range(500)]
    files = {
        "random": rng.randbytes(70 * MIB),
        "text": b" ".join(rng.choice(words) for _ in range(6 * MIB))[:40 * MIB + 1234],
        "odd": rng.randbytes(3 * MIB + 1),
        "medium": rng.randbytes(300000),
    }
    os.makedirs(os.path.join(cluster.mnt, "cold"))
    for name, data in files.items():
        write(os.path.join(cluster.mnt, "cold", name), data)
    holes = os.path.join(cluster.mnt, "cold", "holes")
    with open(holes, "wb") as file:
        for place in (0, 5 * MIB + 77, 66 * MIB):
            file.seek(place)
            file.write(b"island" * 1000)
    data = bytearray(66 * MIB + 6000)
    for place in (0, 5 * MIB + 77, 66 * MIB):
        data[place:place + 6000] = b"island" * 1000
    files["holes"] = bytes(data)
    listed = subprocess.run(["find", TREE, "-type", "f", "-size", "-200k", "-readable"], capture_output=True, check=False).stdout.split(b"\n")
    for number, path in enumerate(p for p in sorted(listed)[:TREE_FILES] if p):
        files[f"small-{number}"] = read(path)
        write(os.path.join(cluster.mnt, "cold", f"small-{number}"), files[f"small-{number}"])
    cluster.granary("admin", "class", "set", "code", "compression=auto")
    cluster.granary("mkdir", "--class", "code", "/cold/code")  # its files get packs of their own
    for name, data in sources(rng).items():
        write(os.path.join(cluster.mnt, "cold", name), data)
        files[name] = data
    os.sync()
    return files


def verify(cluster, files, where):
    """As a new client sees them, through a mount and by the program."""
    mount = os.path.join(DIR, "mnt-" + where)
    process = cluster.mount_again(mount)
    for name, data in files.items():
        check(read(os.path.join(mount, "cold", name)) == data, f"{name}, read {where}: not what was written")
    rng = random.Random(5)
    for name in ("random", "text", "holes"):
        with open(os.path.join(mount, "cold", name), "rb") as file:
            for _ in range(60):
                place, size = rng.randrange(len(files[name])), rng.randrange(1, 400000)
                file.seek(place)
                check(file.read(size) == files[name][place:place + size], f"{name} at {place}, {size} bytes, read {where}")
    cluster.unmount(mount, process)
    for name in ("random", "odd", "small-1", "code/1.c"):
        check(cluster.granary("get", f"/cold/{name}", "-") == files[name], f"{name}, got {where}: not what was put")
    place = len(files["text"]) // 2
    check(cluster.granary("get", "--range", f"{place}-{place + 99}", "/cold/text", "-") == files["text"][place:place + 100], f"a range {where}")


def shards_of(cluster, server):
    """Chunk files of a server: after all is cold that is shards."""
    return sorted(glob.glob(os.path.join(cluster.path, "data", f"chunkserver-{server}", "chunks", "*", "*", "*.chunk")))


def physical(cluster):
    done = subprocess.run(f"du -sc --block-size=1 {cluster.path}/data/chunkserver-*/chunks | tail -1", shell=True, capture_output=True, check=True)
    return int(done.stdout.split()[0])


def packs_have_dictionaries(cluster, files):
    """What is stored is much less than each file takes alone."""
    alone = sum(len(zlib.compress(data, 9)) for name, data in files.items() if name.startswith("code/"))
    size, stored = (int(n) for n in cluster.granary("du", "-s", "--sizes", "/cold/code").split()[:2])
    print(f"   {CODE_FILES} files alike, {size / MIB:.2f} MiB, each by itself {alone / MIB:.2f}, stored {stored / MIB:.2f}", flush=True)
    check(stored < 0.6 * alone, f"{stored} bytes are stored of what takes {alone} without a dictionary")


def cools(cluster):
    cluster.granary("admin", "cool", "--wait", "/cold")
    status = wait_for(lambda: (s := cluster.status())["garbage"] == 0 and s, 30, "the copies to be deleted")
    check(status["safe"] and status["chunks_cold"] > 5, status)
    used, stored = physical(cluster), status["cold_stored_bytes"]
    print(f"   {status['chunks_cold']} chunks, {status['cold_raw_bytes'] / MIB:.1f} MiB, compressed {stored / MIB:.1f}, on disks {used / MIB:.1f}: "
          f"{used / stored:.3f} times", flush=True)
    check(used <= 1.55 * stored, f"{used} bytes on the disks for {stored}")


def damages(cluster):
    """Two shards of each of some chunks: bits, a file that is cut, one that is gone."""
    step("damaged shards are read around, found by a scrub, and made anew")
    rng = random.Random(6)
    for server in (1, 2):
        for path in shards_of(cluster, server)[:4]:
            size = os.path.getsize(path)
            with open(path, "r+b") as file:
                file.seek(rng.randrange(68 * 1024, size))
                file.write(rng.randbytes(64))
    with open(shards_of(cluster, 1)[5], "r+b") as file:
        file.truncate(70 * 1024)
    subprocess.run("echo 3 > /proc/sys/vm/drop_caches", shell=True, check=False)


def mends(cluster):
    """What is damaged by its own checksums may be found by the readers, or by this; what is cut off only by this."""
    cluster.granary("admin", "scrub", "--wait")
    wait_for(lambda: is_whole(cluster) and sum(s["disk"]["damage_lost"] for s in servers(cluster)) == 0, 60, "the damaged shards to be made anew")
    check(not [path for path in shards_of(cluster, 1) if os.path.getsize(path) <= 70 * 1024], "a shard is still cut off")


def sets_of(cluster):
    """Of each cold chunk: the server and the file of each of its shards, by place."""
    sets = {}
    for server in range(1, 7):
        for path in shards_of(cluster, server):
            with open(path, "rb") as file:
                file.seek(DATA_OFFSET)
                head = file.read(52)
            if head[:8] == b"GRNCODE1":
                sets.setdefault(int.from_bytes(head[16:24], "little"), {})[head[14]] = (server, path)
    return {chunk: places for chunk, places in sets.items() if len(places) == 6}


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def forge(path, rng):
    """Other bytes in a block of the shard's data, and the checksum of those in the file's table (chunkserver/chunk_format.h)."""
    with open(path, "r+b") as file:
        file.seek(DATA_OFFSET)
        head = file.read(52)
        begin = (52 + head[12] * 4 + 4 + int.from_bytes(head[44:48], "little") + 4095) // 4096
        block = rng.randrange(begin, (os.path.getsize(path) - DATA_OFFSET) // 4096)
        data = rng.randbytes(4096)
        file.seek(DATA_OFFSET + block * 4096)
        file.write(data)
        file.seek(4096 + block * 4)
        file.write((crc32c(data) ^ crc32c(bytes(4096))).to_bytes(4, "little"))


def chosen(sets):
    """Two servers, and of three sets: the parity shard that the second one has, the data shard of the first one, and both."""
    def has(chunk, server, parity):
        return next((path for place, (on, path) in sets[chunk].items() if on == server and (place >= 4) == parity), None)

    for first, second in itertools.permutations(range(1, 7), 2):
        both = [chunk for chunk in sorted(sets) if has(chunk, first, False) and has(chunk, second, True)]
        parity = [chunk for chunk in sorted(sets) if has(chunk, second, True) and chunk not in both[:1]]
        data = [chunk for chunk in sorted(sets) if has(chunk, first, False) and chunk not in both[:1] + parity[:1]]
        if both and parity and data:
            return (first, second), [has(parity[0], second, True), has(data[0], first, False), has(both[0], first, False), has(both[0], second, True)]
    raise AssertionError("no such sets")


def forges(cluster):
    step("shards that are sound and not what they should be are found by a scrub, and made anew")
    rng = random.Random(8)
    wait_for(lambda: is_whole(cluster) and cluster.status()["garbage"] == 0, 30, "what is not wanted any more to be deleted")
    down, forged = chosen(sets_of(cluster))
    for server in down:
        cluster.dev("kill", "chunkserver", str(server))
    before = {}
    for path in forged:
        forge(path, rng)
        before[path] = read(path)
    for server in down:
        cluster.dev("restart", "chunkserver", str(server))
    wait_for(lambda: is_whole(cluster), 30, "the servers to be back")
    found = json.loads(cluster.granary("admin", "scrub", "--wait", "--json"))
    check(found["damaged"] == found["repaired"] == len(forged), found)
    for path in forged:
        check(not os.path.exists(path) or read(path) != before[path], f"{path}: still as it was forged")


def is_whole(cluster):
    status = cluster.status()
    return status["safe"] and status["chunks_under_replicated"] == 0


def servers(cluster):
    return json.loads(cluster.granary("admin", "servers", "--json"))["servers"]


def kills(cluster, files):
    step("two of six servers killed: all is read, and made anew when a third one comes")
    cluster.dev("kill", "chunkserver", "2")
    cluster.dev("kill", "chunkserver", "5")
    verify(cluster, files, "degraded")
    cluster.dev("restart", "chunkserver", "2")
    cluster.up(*cluster.options[:2], "--chunkservers", "7", *cluster.options[4:])
    cluster.dev("kill", "chunkserver", "5")
    wait_for(lambda: is_whole(cluster), 90, "the lost shards to be made anew")
    verify(cluster, files, "rebuilt")
    cluster.dev("restart", "chunkserver", "5")
    wait_for(lambda: is_whole(cluster) and cluster.status()["garbage"] == 0, 60, "what is not wanted any more to be deleted")


def unplugs(cluster, data):
    step("two of seven are drained: too few are left for 4 + 2, it becomes 2 + 2")
    for number in (6, 7):
        address = next(s["address"] for s in servers(cluster) if s["host"] == f"chunkserver-{number}")
        check(b"may be unplugged" in cluster.granary("admin", "drain", "--wait", address), f"drain of {number}")
        cluster.dev("kill", "chunkserver", str(number))
    wait_for(lambda: cluster.status()["chunks_cold"] == 1, 30, "what was hot on the way to be cold again")
    places = json.loads(cluster.granary("explain", "--json", "/soon"))["chunks"][0]["places"]
    check(len(places) == 4, f"on four: {places}")
    check(cluster.granary("get", "/soon", "-") == data, "after two were unplugged: not what was put")


def main():
    sets = ["repair-delay-ms=3000"]
    with Cluster(mount=True, chunkservers=6) as cluster:
        for setting in sets:
            cluster.granary("admin", "set", *setting.split("="))
        step("a tree and large files become cold")
        files = made(cluster)
        cools(cluster)
        packs_have_dictionaries(cluster, files)
        verify(cluster, files, "cold")
        damages(cluster)
        verify(cluster, files, "damaged")
        mends(cluster)
        damages(cluster)
        mends(cluster)
        forges(cluster)
        kills(cluster, files)
        step("who writes to a cold file makes its chunk hot, and that alone")
        cold = cluster.status()["chunks_cold"]
        changed = bytearray(files["random"])
        changed[1000:1010] = b"0123456789"
        with open(os.path.join(cluster.mnt, "cold", "random"), "r+b") as file:
            file.seek(1000)
            file.write(b"0123456789")
        os.sync()
        files["random"] = bytes(changed)
        check(cluster.status()["chunks_cold"] == cold - 1, f"{cluster.status()['chunks_cold']} of {cold} chunks are cold")
        os.remove(os.path.join(cluster.mnt, "cold", "small-0"))
        os.truncate(os.path.join(cluster.mnt, "cold", "text"), 1000)
        del files["small-0"]
        files["text"] = files["text"][:1000]
        cluster.granary("admin", "warm", "--wait", "/cold")
        check(cluster.status()["chunks_cold"] == 0, "warmed, and yet cold")
        files_now = {name: data for name, data in files.items()}
        for name, data in files_now.items():
            check(read(os.path.join(cluster.mnt, "cold", name)) == data, f"{name}, warmed: not what was written")
        step("by itself, when its class says so; and nothing is left behind")
        cluster.granary("admin", "class", "set", "soon", "cool=2s")
        cluster.granary("put", "--class", "soon", "-", "/soon", data=files["odd"])
        wait_for(lambda: cluster.status()["chunks_cold"] == 1, 60, "a file of a class that cools soon to be cold")
        check(cluster.granary("get", "/soon", "-") == files["odd"], "cold by itself: not what was put")
        unplugs(cluster, files["odd"])
        cluster.granary("rm", "-r", "/cold", "/soon")
        cluster.granary("admin", "trash", "empty")
        wait_for(lambda: cluster.status()["chunks"] <= 1 and cluster.status()["garbage"] == 0, 60, "all chunks to go")
        cluster.granary("admin", "fsck")
        left = [path for server in range(1, 8) for path in shards_of(cluster, server)]
        check(not left, f"left behind: {left}")


main()
