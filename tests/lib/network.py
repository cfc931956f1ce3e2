"""Hosts of a test that can be cut off from each other: network namespaces on one bridge.

    network.enter()                 # first of all: the script goes on in a world of its own, or is skipped
    net = Network(); a = net.host("a"); b = net.host("b")
    a.cut(b)                        # what a sends to b is lost; what b sends to a arrives

The world is a mount, network and process namespace: whatever the test leaves behind (mounts, loop devices, bridges, processes)
is gone when its first process is, however that ends. Needs root and iproute2, nothing else: packets are lost by giving the
neighbour a hardware address that nobody has, so that neither side is told, as with a cable that was pulled."""
import os
import shutil
import subprocess
import sys

SKIPPED = 77
INSIDE = "GRANARY_TEST_WORLD"
NOBODY = "02:ff:ff:ff:ff:ff"


def skip(why):
    print(why)
    sys.exit(SKIPPED)


def run(*words, **options):
    done = subprocess.run(words, capture_output=True, check=False, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


def enter():
    """Runs this script again inside of namespaces of its own; returns there."""
    if os.environ.get(INSIDE):
        os.makedirs("/run/netns", exist_ok=True)
        run("mount", "-t", "tmpfs", "none", "/run/netns")
        run("ip", "link", "set", "lo", "up")
        return
    if os.geteuid() != 0:
        skip("needs root: network namespaces, mounts")
    for program in ("ip", "nsenter", "unshare"):
        if not shutil.which(program):
            skip(f"needs the program `{program}` (iproute2, util-linux)")
    world = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    probe = subprocess.run(world + ["sh", "-c", "ip link add name veth0 type veth peer name veth1 && ip link add name bridge0 type bridge"],
                           capture_output=True, check=False)
    if probe.returncode != 0:
        skip(f"no network namespaces here: {probe.stderr.decode(errors='replace').strip()}")
    sys.stdout.flush()
    os.execvpe("unshare", world + [sys.executable, os.path.abspath(sys.argv[0])] + sys.argv[1:], dict(os.environ, **{INSIDE: "1"}))


class Host:
    def __init__(self, network, name, number):
        self.network, self.name, self.number = network, name, number
        self.address = f"10.77.0.{number}"
        self.hardware = f"02:00:00:00:00:{number:02x}"
        self.lost = set()  # hosts that what we send does not reach

    def command(self, *words):
        """`words` run as a process of this host: same pid as the command."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    def neighbours(self, others, reached):
        lines = "".join(f"neigh replace {o.address} lladdr {o.hardware if reached else NOBODY} dev eth0 nud permanent\n" for o in others)
        if lines:
            run("ip", "-n", self.name, "-batch", "-", input=lines.encode())

    def cut(self, *others):
        """One way: what this host sends to the others is lost."""
        self.lost.update(others)
        self.neighbours(others, False)

    def cut_off(self, *others):
        """Both ways; from all others if none is named."""
        others = [o for o in (others or self.network.hosts.values()) if o is not self]
        self.cut(*others)
        for other in others:
            other.cut(self)

    def limit(self, rate):
        """All that goes in and out, e.g. "1mbit"; None: no limit."""
        for where in (("-n", self.name, "qdisc", "{}", "dev", "eth0"), ("qdisc", "{}", "dev", f"v{self.number}")):
            words = [w.format("replace" if rate else "del") for w in where] + ["root"]
            run("tc", *words, *(["tbf", "rate", rate, "burst", "32kb", "latency", "2s"] if rate else []))


class Network:
    """The machine itself is the host `here`, 10.77.0.1."""

    def __init__(self):
        self.hosts = {}
        run("ip", "link", "add", "name", "br0", "type", "bridge")
        run("ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")

    def host(self, name):
        host = Host(self, name, 10 + len(self.hosts))
        run("ip", "netns", "add", name)
        run("ip", "link", "add", "name", f"v{host.number}", "type", "veth", "peer", "name", "eth0", "address", host.hardware, "netns", name)
        run("ip", "link", "set", f"v{host.number}", "master", "br0", "up")
        run("ip", "-n", name, "-batch", "-", input=f"addr add {host.address}/24 dev eth0\nlink set lo up\nlink set eth0 up\n".encode())
        for other in self.hosts.values():
            other.neighbours([host], True)
        host.neighbours(self.hosts.values(), True)
        self.hosts[name] = host
        return host

    def heal(self):
        for host in self.hosts.values():
            host.neighbours(host.lost, True)
            host.lost = set()
