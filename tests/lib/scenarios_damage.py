"""Scenarios of damaged disks: masters' logs and databases, chunkservers' files. See scene.py."""
import hashlib
import json
import os
import random
import re
import shutil

from cluster import check, read, wait_for
from scene import Scene, log_text, wal_entries

HEADER, TABLE, BLOCK = 4096, 65536, 4096  # of a chunk's file
DATA = HEADER + TABLE


def flip(path, offset, count=1):
    """Where the page cache does not hide it from nor show it to the process: it is the file's content either way."""
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(count)
        file.seek(offset)
        file.write(bytes(b ^ 0x55 for b in old))
        file.flush()
        os.fsync(file.fileno())


def scenario_05_damaged_master():
    """A flipped, cut or zeroed block in a committed log entry, snapshot, LevelDB table, MANIFEST, CURRENT of one master, then different
    ones on each of three: repaired while one good copy of each exists, else refusal; never a shorter history.

    One with a damaged entry that it has to read again; MANIFEST and CURRENT of one each while names are made; another entry on each of
    three; then an entry on one, the table files of another, the CURRENT of the third. Nothing is lost, nobody needs help, and the
    damage is gone for good. Last the same entry on all three, and no database: nothing is answered, until one has a good copy again."""
    with Scene(mounts=0, chunkservers=1) as scene:
        names = make(scene, 0, 20)
        damaged_entry(scene, names)
        damaged_state(scene, names, r"MANIFEST-", leader=False)
        damaged_state(scene, names, r"CURRENT$", leader=True)
        damaged_on_each(scene, names)
        damaged_differently(scene, names)
        damaged_everywhere(scene, names)


def make(scene, first, last):
    names = [f"/name-{number:04d}" for number in range(first, last)]
    for name in names:
        scene.granary("mkdir", name)
    return names


def check_names(scene, names):
    there = set(scene.granary("ls", "/").decode().split())
    missing = [name for name in names if name[1:] not in there]
    check(not missing, f"missing: {missing[:5]} of {len(missing)}")


def all_hold(scene):
    members = scene.raft()["members"]
    return len(members) == 3 and all(member["match"] == members[0]["match"] > 0 and member["contact_ms"] < 500 for member in members)


def starts(master):
    """What each start of the master found damaged in its log."""
    return [int(count) for count in re.findall(r"master_restored .*damaged=(\d+)", log_text(master))]


def restart(master):
    """How many damaged entries the start finds."""
    before = len(starts(master))
    master.kill()
    master.start()
    return wait_for(lambda: starts(master)[before:], 20, f"{master.name} to have read its log")[0]


def damage_entries(master, text):
    """Flips a bit of each entry in the master's log that says `text`."""
    places = [(path, match.start()) for path in master.files(r"^log/wal-") for match in re.finditer(re.escape(text.encode()), read(path))]
    check(places, f"no entry of {master.name} says {text}")
    for path, offset in places:
        flip(path, offset)


def state_folder(master):
    """The database in use."""
    store = os.path.join(master.data, "store")
    number = int(read(store).decode().split("state = ")[1].split("\n")[0]) if os.path.exists(store) else 0
    return os.path.join(master.data, f"state-{number}" if number else "state")


def damage_state(master, pattern):
    paths = [p for p in master.files(r"^state") if re.search(pattern, os.path.basename(p)) and os.path.dirname(p) == state_folder(master)]
    check(paths, f"no {pattern} in {os.listdir(state_folder(master))}")
    for path in paths:
        flip(path, 0, min(os.path.getsize(path), 4096))


def damaged_entry(scene, names):
    leader = scene.cluster.leader()
    victim = next(m for m in scene.cluster.masters if m is not leader)
    wait_for(lambda: all_hold(scene), 20, "all to hold the log")
    victim.kill()
    offset = max(wal_entries(victim), key=lambda entry: entry[1])[0]  # the others still have that in memory, as it is away
    flip(victim.files(r"^log/wal-")[-1], offset + 16)
    for folder in {os.path.dirname(p) for p in victim.files(r"^state")}:  # which would not need it
        shutil.rmtree(folder)
    names += make(scene, len(names), len(names) + 5)
    check(restart(victim) == 1, "the damage was not seen")
    wait_for(lambda: all_hold(scene), 20, "all to hold the log")
    check(restart(victim) == 0, "the entry was not made good on the disk")
    wait_for(lambda: all_hold(scene), 20, "all to hold the log")


def quarantined(master):
    return [n for n in os.listdir(master.data) if n.startswith("quarantine-state-")]


def damaged_state(scene, names, pattern, leader):
    now = scene.cluster.leader()
    victim = now if leader else next(m for m in scene.cluster.masters if m is not now)
    victim.kill()
    damage_state(victim, pattern)
    names += make(scene, len(names), len(names) + 5)
    victim.start()
    wait_for(lambda: quarantined(victim), 20, "the damaged one to be put aside")
    check("master_state_damaged" in log_text(victim), "it is not named in the log")
    wait_for(lambda: scene.caught_up(1, 2, 3), 20, "three voters that have caught up")
    for folder in quarantined(victim):
        shutil.rmtree(os.path.join(victim.data, folder))


def damaged_on_each(scene, names):
    masters = scene.cluster.masters
    for master in masters:
        master.kill()
    for number, master in enumerate(masters):
        damage_entries(master, names[12 + number][1:])
    for master in masters:
        check(restart(master) > 0, f"{master.name} did not see the damage")
    scene.cluster.wait_ready(30)
    names += make(scene, len(names), len(names) + 5)
    check_names(scene, names)


def damaged_differently(scene, names):
    masters = scene.cluster.masters
    wait_for(lambda: all_hold(scene), 20, "all to hold the log")
    for master in masters:
        master.kill()
    damage_entries(masters[0], names[15][1:])
    damage_state(masters[1], r"\.(ldb|log)$")
    damage_state(masters[2], r"CURRENT$")
    for master in masters:
        master.start()
    scene.cluster.wait_ready(30)
    names += make(scene, len(names), len(names) + 5)
    check_names(scene, names)
    wait_for(lambda: scene.caught_up(1, 2, 3), 20, "three voters that have caught up")
    for master in masters:  # each alone with one other
        master.kill()
        check_names(scene, names)
        master.start()
        wait_for(lambda: scene.caught_up(1, 2, 3), 20, "three voters that have caught up")


def damaged_everywhere(scene, names):
    cluster, masters = scene.cluster, scene.cluster.masters
    image = os.path.join(cluster.path, "good-log")
    wait_for(lambda: all_hold(scene), 20, "all to hold the log")
    for master in masters:
        master.kill()
    shutil.copytree(os.path.join(masters[1].data, "log"), image)
    for master in masters:
        damage_entries(master, names[16][1:])
        shutil.rmtree(state_folder(master))
    for master in masters:
        check(restart(master) > 0, f"{master.name} did not see the damage")
    for words in ("ls", "/"), ("mkdir", "/on-a-shorter-history"):
        code, out, complaint = cluster.granary("--timeout", "3s", *words)
        check(code != 0 and not out, f"granary {words} on a history with a hole: {code} {out} {complaint}")
    print(f"   the same entry damaged on all three: {complaint}", flush=True)
    masters[1].kill()
    shutil.rmtree(os.path.join(masters[1].data, "log"))
    shutil.copytree(image, os.path.join(masters[1].data, "log"))
    masters[1].start()
    cluster.wait_ready(30)
    check_names(scene, names)
    scene.granary("stat", "/on-a-shorter-history", status=3)
    names += make(scene, len(names), len(names) + 5)
    wait_for(lambda: scene.caught_up(1, 2, 3), 20, "three voters that have caught up")


def scenario_11_rot():
    """Rot: data, checksums, a cut file, two chunk files swapped, a disk of zeros: reads right, found within one scrub, repaired; beyond
    the code's reach EIO on just those ranges.

    Flipped bits, holes, cut, swapped, removed and zeroed files, on chunkservers that run and on such that are stopped; readers never
    see a wrong byte, one scrub finds all, it is repaired; also a copy that is sound and not like the two others. Then three that are all
    different, which is told; and a block damaged in all copies: an error for just that range, and status says so."""
    with Scene(mounts=0, chunkservers=4) as scene:
        digests = put_files(scene)
        check(scrub(scene)["damaged"] == 0, "damage without a cause")
        rot_while_running(scene, digests)
        rot_while_stopped(scene, digests)
        scrub_of_one(scene, digests)
        sound_and_wrong(scene, digests)
        nobody_knows(scene)
        lost_everywhere(scene)


def copies(server, kind="chunk"):
    return sorted(server.files(rf"^chunks/.*\.{kind}$"), key=os.path.getsize, reverse=True)


def disks(scene):
    return [s["disk"] for s in json.loads(scene.granary("admin", "servers", "--json"))["servers"]]


def scrub(scene, *words):
    result = json.loads(scene.granary("admin", "scrub", "--wait", "--json", *words))
    print(f"   scrub: {result}", flush=True)
    check(result["damaged"] == result["repaired"] and result["lost"] == 0, f"not all was repaired: {result}")
    return result


def put_files(scene):
    generator = random.Random(7)
    digests = {}
    for number, size in enumerate([9 << 20, 5 << 20, 3 << 20, 2 << 20, 3 << 20, 1 << 20, 1 << 20, 70000, 1234, 200000, 31]):
        data = generator.randbytes(size)
        scene.granary("put", "-", f"/file-{number}", data=data)
        digests[f"/file-{number}"] = hashlib.sha256(data).hexdigest()
    return digests


def verify(scene, digests):
    for path, digest in digests.items():
        check(hashlib.sha256(scene.granary("cat", path)).hexdigest() == digest, f"{path} is wrong")


def check_sound(scene, digests):
    """Nothing is damaged, and every copy of a chunk has the same content, header and table included."""
    check(scrub(scene)["damaged"] == 0, "damage after the repair")
    verify(scene, digests)
    seen = {}
    for server in scene.cluster.chunkservers:
        for path in copies(server):
            seen.setdefault(os.path.basename(path), set()).add(hashlib.sha256(read(path)).hexdigest())
    check(all(len(contents) == 1 for contents in seen.values()), "copies differ")


def made_again(scene):
    scene.granary("admin", "scrub", "--wait")
    wait_for(lambda: all(d["uncertain"] == 0 for d in disks(scene)), 30, "the copies to be made again")


def swap(first, second):
    os.rename(first, first + ".aside")
    os.rename(second, first)
    os.rename(first + ".aside", second)


def rot_while_running(scene, digests):
    one, two, three, _ = scene.cluster.chunkservers
    large = copies(one)
    flip(large[0], DATA + 10 * BLOCK + 17)
    flip(large[0], DATA + 300 * BLOCK, 3 * BLOCK)
    flip(large[0], HEADER + 4 * 40, 4)
    flip(large[0], 20)
    flip(copies(two, "pack")[0], 4096 + 40)
    os.truncate(copies(three)[0], DATA + 100 * BLOCK)
    verify(scene, digests)
    result = scrub(scene)
    check(result["damaged"] >= 8, f"found only {result['damaged']}")
    check_sound(scene, digests)
    counts = [sum(d[name] for d in disks(scene)) for name in ("damage_found", "damage_repaired")]
    check(counts[0] == counts[1], f"found and repaired: {counts}")

    first, second, third = copies(two)[:3]
    swap(first, second)
    os.unlink(third)
    verify(scene, digests)
    made_again(scene)
    check_sound(scene, digests)


def rot_while_stopped(scene, digests):
    one, _, three, _ = scene.cluster.chunkservers
    one.kill()
    three.kill()
    flip(copies(one, "pack")[0], 4096 + 50)
    damaged = copies(one)
    for path in damaged:
        flip(path, DATA + 5 * BLOCK + 100)
    os.truncate(damaged[0], DATA + 50 * BLOCK)
    if len(damaged) >= 3:
        swap(damaged[1], damaged[2])
    for path in copies(three)[:2]:
        with open(path, "r+b") as file:
            file.write(bytes(os.path.getsize(path)))
    one.start()
    three.start()
    scene.cluster.wait_ready(30)
    verify(scene, digests)
    made_again(scene)
    check_sound(scene, digests)


def scrub_of_one(scene, digests):
    server = json.loads(scene.granary("admin", "servers", "--json"))["servers"][0]
    check(scrub(scene, server["id"])["servers"] == 1, "one server")
    result = scrub(scene, "/file-0")
    check(result["chunks"] == 3, f"three copies of one chunk: {result}")
    check(scrub(scene, "/file-8")["chunks"] == 3, "of a pack")
    scene.granary("admin", "scrub", "nowhere", status=3)
    scene.granary("admin", "scrub", "/nothing", status=3)
    scene.granary("admin", "scrub")
    verify(scene, digests)


def misplace(path, source, block):
    """A block and its checksum in the place of another's: the copy is sound, and wrong."""
    content = read(path)
    with open(path, "r+b") as file:
        for base, size in (DATA, BLOCK), (HEADER, 4):
            file.seek(base + size * block)
            file.write(content[base + size * source:base + size * (source + 1)])


def sound_and_wrong(scene, digests):
    servers = scene.cluster.chunkservers
    for server in servers:
        server.terminate()
    victim = copies(servers[1])[0]
    for block in 7, 9, 700:
        misplace(victim, 100, block)
    for server in servers:
        server.start()
    scene.cluster.wait_ready(30)
    check(scrub(scene)["damaged"] == 3, "three blocks of one copy are not like the others'")
    check_sound(scene, digests)


def nobody_knows(scene):
    data = random.randbytes(2 << 20)
    scene.granary("put", "-", "/differs", data=data)
    holders = [(server, path) for server in scene.cluster.chunkservers for path in copies(server)
               if data[33 * BLOCK:34 * BLOCK] in read(path)]
    check(len(holders) == 3, f"{len(holders)} copies")
    first = read(holders[0][1]).find(data[:BLOCK]) - DATA
    for server, _ in holders:
        server.terminate()
    for number, (_, path) in enumerate(holders):
        misplace(path, first // BLOCK + number, first // BLOCK + 20)
    for server, _ in holders:
        server.start()
    scene.cluster.wait_ready(30)
    check(scrub(scene)["damaged"] == 0, "nothing is taken for damage on a guess")
    check(sum(d["copies_differ"] for d in disks(scene)) == 1, f"{disks(scene)}")
    check(b"COPIES DIFFER: 4.0K" in scene.granary("admin", "status"), "status")
    scene.granary("rm", "/differs")


def lost_everywhere(scene):
    data = random.randbytes(2 << 20)
    scene.granary("put", "-", "/lost", data=data)
    needle = data[33 * BLOCK:34 * BLOCK]
    damaged = 0
    for path in (p for server in scene.cluster.chunkservers for p in copies(server)):
        at = read(path).find(needle)
        if at >= 0:
            flip(path, at + 7)
            damaged += 1
    check(damaged == 3, f"{damaged} copies")
    scene.granary("admin", "scrub", "--wait", "/lost", status=1)
    check(sum(d["damage_lost"] for d in disks(scene)) == 1, f"{disks(scene)}")
    check(b"LOST: 4.0K" in scene.granary("admin", "status"), "status")
    scene.granary("get", "/lost", "-", status=1)
    check(scene.granary("get", "--range", "0-100000", "/lost", "-") == data[:100001], "what is before it")
    check(scene.granary("get", "--range", "200000-2097151", "/lost", "-") == data[200000:], "what is behind it")
    scene.granary("rm", "/lost")
