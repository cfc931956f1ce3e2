"""Scenarios of the masters: elections, partitions, members. See scene.py."""
import json
import os
import subprocess
import threading
import time

from cluster import BIN, DIR, check, read, wait_for, write
from scene import CLOCK, PAUSE_S, Scene, log_text, measures, pass_time, wal_entries
from shim import Shim


def scenario_02_leader_killed_in_an_operation():
    """Leader killed at each step of an operation (before append, after local sync, after majority, before reply) while the client retries:
    applied exactly once.

    The leader dies before its entry is out, before a majority has it, before the answer is out: the client's retry counts once."""
    with Scene(mounts=1) as scene:
        cluster = scene.cluster
        for number, where in enumerate(["nobody has it", "the leader alone has it", "the answer is lost"]):
            leader = cluster.leader()
            others = [m for m in cluster.masters if m is not leader]
            scene.granary("mkdir", f"/from-{number}")
            if number == 0:
                leader.host.cut(*[m.host for m in others])
            elif number == 1:
                for other in others:
                    other.freeze()
            else:
                leader.host.cut(cluster.client)
            results = {}

            def change(key, words, results=results):
                results[key] = cluster.granary(*words)
            # neither can be done twice without being noticed: the second would say "no such name" or "exists"
            threads = [threading.Thread(target=change, args=("mv", ("mv", f"/from-{number}", f"/to-{number}"))),
                       threading.Thread(target=change, args=("mkdir", ("mkdir", f"/made-{number}")))]
            for thread in threads:
                thread.start()
            pass_time(0.2)
            leader.kill()
            for other in others:
                other.thaw()
            cluster.network.heal()
            for thread in threads:
                thread.join(60)
            print(f"   {where}: {({k: v[0] for k, v in results.items()})}", flush=True)
            check(all(v[0] == 0 for v in results.values()), f"{where}: {results}")
            scene.granary("stat", f"/from-{number}", status=3)
            scene.granary("stat", f"/to-{number}", f"/made-{number}")
            leader.start()
            cluster.wait_ready(30)


@measures
def scenario_07_partitions():
    """One-way and bridge partitions: never two leaders acknowledging, no stale read, no endless elections.

    One-way cuts and bridges between masters: writers go on, no endless elections, nothing stale is read."""
    with Scene() as scene:
        cluster = scene.cluster
        writer = scene.writer("written")
        for kind in ("bridge", "leader is not heard", "leader does not hear", "follower is not heard", "follower does not hear"):
            leader = cluster.leader()
            others = [m for m in cluster.masters if m is not leader]
            term, since = cluster.status()["term"], time.monotonic()
            if kind == "bridge":
                leader.host.cut_off(others[0].host)
            elif kind == "leader is not heard":
                leader.host.cut(*[m.host for m in others])
            elif kind == "leader does not hear":
                for other in others:
                    other.host.cut(leader.host)
            elif kind == "follower is not heard":
                others[0].host.cut(leader.host, others[1].host)
            else:
                for master in (leader, others[1]):
                    master.host.cut(others[0].host)
            for number in range(20):
                data = f"{kind} {number}".encode()
                write(os.path.join(cluster.mounts[number % 2].path, "latest"), data)
                check(read(os.path.join(cluster.mounts[1 - number % 2].path, "latest")) == data, f"{kind}: stale through the other mount")
            pass_time(max(0, since + 2.5 - time.monotonic()))
            cluster.network.heal()
            cluster.wait_ready(30)
            raised = cluster.status()["term"] - term
            scene.goes_on(writer, since, PAUSE_S, f"{kind}, terms raised by {raised}")
            check(raised <= 4, f"{kind}: {raised} elections in 2.5 s")


def scenario_08_leader_paused():
    """Leader paused past lease and election with reads and chunk grants in flight: nothing stale when it wakes.

    A leader frozen past its lease and an election while others write on: when it wakes it answers nothing stale."""
    with Scene() as scene:
        cluster = scene.cluster
        for number in range(3):
            leader = cluster.leader()
            address = f"{leader.host.address}:7001"
            scene.granary("put", "-", "/value", data=b"old")
            others = ",".join(f"{m.host.address}:7001" for m in cluster.masters if m is not leader)
            results = []

            def ask(results=results, address=address):
                results.append(cluster.granary("--cluster", address, "cat", "/value"))
            leader.freeze()
            # some of these reach it while it is frozen and are answered, or not, when it wakes
            threads = [threading.Thread(target=ask) for _ in range(6)]
            for thread in threads[:3]:
                thread.start()
            new = f"new {number}".encode()
            code, _, complaint = cluster.granary("--cluster", others, "put", "-", "/value", data=new)
            check(code == 0, f"put while the leader is frozen: {complaint}")
            leader.thaw()
            for thread in threads[3:]:
                thread.start()
            for thread in threads:
                thread.join(60)
            wrong = [r for r in results if r[0] == 0 and r[1] != new]
            check(not wrong and len(results) == 6, f"the leader that was frozen answered {wrong}; all: {results}")
            cluster.wait_ready(30)


def scenario_03_figure_8():
    """Figure 8, the exact schedule and its neighbours.

    Five masters, step by step. The first leader's last entries reach one more; both die; another leads, alone with its first entry, and
    dies. Then the two are back with a third: once they die before it has their entries, and the later leader writes over them; once it
    has them with an entry of their new term, and they stay. Who wins an election is not in our hands: what came out is said, and it has
    to fit. The state between, where the third has only the old entries, cannot be held with real processes; tests/sim has it."""
    shims = {}

    def prepare(cluster):
        shims.update({m.name: Shim(m) for m in cluster.masters})
    with Scene(prepare, masters=5, chunkservers=1, mounts=0) as scene:
        for number, wanted in enumerate(["overwritten", "kept"]):
            scene.granary("mkdir", f"/acknowledged-{number}")
            figure_8(scene, shims, wanted)
        there = scene.granary("ls", "/").decode().split()
        check({f"acknowledged-{n}" for n in range(2)} <= set(there), f"there is {there}")


def last_index(master):
    """Of what it wrote last; further entries of before may be in the file still."""
    return list(wal_entries(master))[-1][1]


SLOW_LOG_US = 50_000


def figure_8(scene, shims, wanted):
    """Whatever comes out, the masters' logs are the same in the end."""
    cluster = scene.cluster
    first = cluster.leader()
    second, later, third, fourth = [m for m in cluster.masters if m is not first]
    rest = [later, third, fourth]
    wait_for(lambda: len({last_index(m) for m in cluster.masters}) == 1, 20, "all masters to have the log")
    end = max(offset for offset, _, _, _ in wal_entries(first))
    old = len(list(wal_entries(first, end)))
    first.host.cut(*[m.host for m in rest])  # and at once: it leads only as long as it hears three of five
    client = subprocess.Popen(cluster.client.command(os.path.join(BIN, "granary"), "--cluster", f"{first.host.address}:7001", "mkdir", "/old"),
                              stderr=subprocess.DEVNULL)
    condition_within(lambda: len(list(wal_entries(second, end))) > old, 0.25)
    for process in [first, second, client]:
        process.kill()
    client.wait()
    term = max(t for _, _, t, _ in wal_entries(first, end))
    entry = last_index(later) + 1
    prepared = last_index(first) == last_index(second) == entry

    # A later leader, with its first entry on its own disk alone: the others' are slow, and they die before it is there.
    for master in (third, fourth):
        shims[master.name].set(path="/log/wal-", delay_us=SLOW_LOG_US)
    end_later = max(offset for offset, _, _, _ in wal_entries(later))
    condition_within(lambda: any(t > term for _, _, t, _ in wal_entries(later, end_later)), 5)
    for master in (third, fourth, later):
        master.kill()
    alone = [m for m in rest if any(t > term for _, _, t, _ in wal_entries(m))] == [later]

    # The two are back, with the third.
    cluster.network.heal()
    shims[third.name].clear()
    begun = log_text(third).count(" master_begins ")
    third.start()
    wait_for(lambda: log_text(third).count(" master_begins ") > begun, 10, "the third to have read its log")
    shims[third.name].set(path="/log/wal-", delay_us=SLOW_LOG_US if wanted == "overwritten" else 0)
    watched = [first, second] if wanted == "overwritten" else [third]
    ends = {m: max(offset for offset, _, _, _ in wal_entries(m)) for m in watched}
    first.start()
    second.start()
    condition_within(lambda: any(t > term for m in watched for _, _, t, _ in wal_entries(m, ends[m])), 5)
    for master in (third, first, second):
        master.kill()
    reached = any(i == entry for _, i, _, _ in wal_entries(third))

    # The later leader is back, without the two.
    for shim in shims.values():
        shim.clear()
    for master in rest:
        master.start()
    cluster.wait_ready(30)
    first.start()
    second.start()

    def terms_now():
        return {{i: t for _, i, t, _ in wal_entries(m)}.get(entry) for m in cluster.masters}
    wait_for(lambda: scene.caught_up(1, 2, 3, 4, 5) and len(terms_now()) == 1, 20, "all masters to have the same log")
    terms = terms_now()
    print(f"   entry {entry} of term {term} on two of five: {prepared}; a later leader alone with its own: {alone}; the third has the old one: "
          f"{reached}; its term now: {terms}", flush=True)
    if prepared and alone:  # the third's log is older than the later leader's, or newer
        check((terms == {term}) == reached, f"the entry is of {terms}")


def scenario_06_empty_disk_while_another_lags():
    """A master's disk replaced by an empty one while another lags: no vote and no commit from it until it has caught up.

    The one master that lacks nothing is left alone with an empty one; then the empty one is left with the one that lags: neither
    acknowledges anything, nobody leads without what was acknowledged. With all three it mends by itself."""
    with Scene(mounts=0, chunkservers=3) as scene:
        cluster = scene.cluster
        whole = cluster.leader()
        empty, lagging = [m for m in cluster.masters if m is not whole]
        lagging.host.cut_off()
        names = [f"/kept-{n}" for n in range(20)]
        scene.granary("mkdir", *names)
        empty.kill()
        empty.wipe()
        empty.start()
        pass_time(1)  # an election, if there were one to be won
        code, _, _ = cluster.granary("--timeout", "1s", "mkdir", "/by-one-of-three")
        check(code != 0, "acknowledged with one copy: the empty one's does not count")
        whole.kill()
        cluster.network.heal()
        pass_time(2)
        code, _, _ = cluster.granary("--timeout", "1s", "mkdir", "/by-the-forgetful")
        check(code != 0, "acknowledged by an empty master and one that lags")
        check(not any("master_leading" in log_text(m).rsplit("master_identity", 1)[-1] for m in (empty,)), "the empty one led")
        whole.start()
        cluster.wait_ready(30)
        wait_for(lambda: scene.caught_up(1, 2, 3), 30, "three voters that have caught up")
        whole.kill()  # what it alone had then has the others
        cluster.wait_ready(30)
        there = scene.granary("ls", "/").decode().split()
        missing = [n for n in names if n[1:] not in there]
        check(not missing, f"missing: {missing}")
        check("by-the-forgetful" not in there, "what failed was carried out after all by those who could not")


def scenario_16_snapshot_install():
    """Snapshot install larger than memory, source killed at 10, 50, 99%, another snapshot meanwhile, membership change inside.

    An empty master pulls the state of 300,000 files. Its source is killed at 10, 50, 99%; a backup reads another snapshot meanwhile;
    one member is removed within a pull and added again within the next."""
    with Scene(mounts=0, chunkservers=0, masters=4) as scene:
        cluster = scene.cluster
        made = os.path.join(DIR, "made")
        subprocess.run([os.path.join(BIN, "make_backup"), made, str(SNAPSHOT_FILES)], check=True, stdout=subprocess.DEVNULL)
        scene.granary("admin", "restore", made)
        for percent in 10, 50, 99:
            pull_interrupted(scene, percent)
        broken = sum(log_text(m).count(" install_begins ") - log_text(m).count(" master_installed ") for m in cluster.masters)
        check(broken > 0, "no pull was ever interrupted")
        text = scene.granary("admin", "backup", made + "-again").decode()
        check(int(text.split()[0]) > 2 * SNAPSHOT_FILES, text)


SNAPSHOT_FILES = 300_000
PULL_MEMORY_MAX = 80 << 20  # some 40 MiB, however many files there are; all of these at once would be 100 MiB more


def bytes_of_state(master):
    return sum(os.path.getsize(path) for path in master.files(r"^state") if os.path.exists(path))


def pull_interrupted(scene, percent):
    cluster = scene.cluster
    source = cluster.leader()
    # the fourth comes and goes
    victim = next(m for m in cluster.masters[:3] if m is not source)
    voters = [1, 2, 3] if percent == 50 else [1, 2, 3, 4]
    size = bytes_of_state(source)
    victim.kill()
    victim.wipe()
    victim.start()
    wait_for(lambda: bytes_of_state(victim) > size * percent // 120, 60, "the pull to get so far")
    backup = None
    if percent == 10:
        backup = subprocess.Popen(cluster.client.command(os.path.join(BIN, "granary"), "--cluster", cluster.addresses, "admin", "backup",
                                                         os.path.join(DIR, "meanwhile")), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    elif percent == 50:
        change_members(scene, "remove", "4")
    else:
        change_members(scene, "add", f"4={cluster.masters[3].host.address}:7001")
    source.kill()
    source.start()
    scene.granary("mkdir", f"/during-{percent}")
    wait_for(lambda: scene.caught_up(*voters), 90, f"the voters {voters}, caught up")
    if backup:
        backup.wait(60)  # it may fail with its source; what it must not do is to disturb
    number = int(victim.name[-1])
    scene.granary("admin", "raft", "transfer", str(number), status=0 if cluster.leader() is not victim else 1)
    wait_for(lambda: cluster.leader() is victim, 20, "the new one to lead")
    for folder in (0, 77, 299):
        check(len(scene.granary("ls", f"/d{folder:08d}").split()) == 1000, "all files of a directory")
    check(scene.granary("ls", f"/during-{percent}") == b"", "what was made meanwhile")
    peak = memory_peak(victim)
    print(f"   interrupted at {percent}%: voters {voters}; a state of {size >> 20} MiB, at most {peak >> 20} MiB of memory to pull it", flush=True)
    check(peak < PULL_MEMORY_MAX, f"{victim.name} took {peak} bytes of memory to pull the state")


def memory_peak(process):
    """Bytes, since it was started."""
    with open(f"/proc/{process.popen.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) << 10


def change_members(scene, *words):
    """Refused while another change is under way: the empty one's."""
    wait_for(lambda: scene.cluster.granary("admin", "raft", *words)[0] == 0, 20, f"raft {words}")


def scenario_18_membership_in_a_partition():
    """Membership change during a partition; the removed master comes back.

    Five masters. The leader, cut off with one more, is told to remove a member, and cannot; the other three choose a leader and remove
    one of those two, which comes back and disturbs nobody. Afterwards it counts for nothing."""
    with Scene(mounts=0, chunkservers=3, masters=5) as scene:
        cluster = scene.cluster
        wait_for(lambda: scene.caught_up(1, 2, 3, 4, 5), 20, "five voters")
        old = cluster.leader()
        removed, *rest = [m for m in cluster.masters if m is not old]
        minority = f"{old.host.address}:7001,{removed.host.address}:7001"
        majority = ",".join(f"{m.host.address}:7001" for m in rest)
        hosts = [m.host for m in rest]
        old.host.cut_off(*hosts)
        removed.host.cut_off(*hosts)
        code, _, _ = cluster.granary("--cluster", minority, "--timeout", "2s", "admin", "raft", "remove", rest[0].name[-1])
        check(code != 0, "two of five removed a member")
        code, _, complaint = cluster.granary("--cluster", majority, "admin", "raft", "remove", removed.name[-1])
        check(code == 0, f"three of five cannot remove a member: {complaint}")
        code, _, complaint = cluster.granary("--cluster", majority, "mkdir", "/by-three")
        check(code == 0, f"mkdir with three of five: {complaint}")
        voters = [int(m.name[-1]) for m in [old, *rest]]
        term = cluster.granary("--cluster", majority, "admin", "status", "--json")[1]
        term = json.loads(term)["term"]
        cluster.network.heal()
        wait_for(lambda: scene.caught_up(*voters), 20, "four voters that have caught up")
        removed.kill()
        removed.start()
        for number in range(10):
            scene.granary("mkdir", f"/after-{number}")
            pass_time(0.15)
        check(cluster.status()["term"] == term, f"the removed one disturbs: term {cluster.status()['term']}, it was {term}")
        check(scene.voters() == sorted(voters), f"{scene.raft()}")
        # Three of four are needed now: of two and the removed one nothing may come.
        for master in rest[:2]:
            master.kill()
        code, _, _ = cluster.granary("--timeout", "2s", "mkdir", "/by-two-of-four")
        check(code != 0, "the removed one was counted")
        rest[0].start()
        cluster.wait_ready(30)
        there = scene.granary("ls", "/").decode().split()
        check({"by-three", *(f"after-{n}" for n in range(10))} <= set(there), f"there is {there}")


def condition_within(condition, seconds):
    """Whether it came true; for what may fail."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        CLOCK.wait(0.002)
    return False
