#!/usr/bin/env python3
"""scenarios.py [--list] [NAME]...: scenarios of what a cluster survives, with real processes, each on a host of its own.

Without names all, each in a world of its own (tests/lib/network.py), several at once but for those that measure pauses. A name is a
number or a part of it. Numbers are those of the design; what needs exact schedules is in the simulator (tests/sim). After each: what
was acknowledged is there, the same through every client, and no process has ended that had not to."""
# test: exclusive timeout=600
import concurrent.futures
import inspect
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import network  # noqa: E402

NAMES = [w for w in sys.argv[1:] if not w.startswith("-")]
if __name__ == "__main__" and len(NAMES) == 1 and not {"--help", "--list"} & set(sys.argv):
    network.enter()
import scenarios_chunks  # noqa: E402
import scenarios_clients  # noqa: E402
import scenarios_damage  # noqa: E402
import scenarios_masters  # noqa: E402
from cluster import DIR, step  # noqa: E402

SCENARIOS = dict(sorted((name[len("scenario_"):], function)
                        for module in (scenarios_chunks, scenarios_clients, scenarios_damage, scenarios_masters)
                        for name, function in vars(module).items() if name.startswith("scenario_")))


def run_one(name):
    """As a process of its own, in a world and a folder of its own; what it printed and how it ended."""
    environment = dict(os.environ)
    if "TEST_DIR" in os.environ:
        environment["TEST_DIR"] = os.path.join(os.environ["TEST_DIR"], name)
        os.makedirs(environment["TEST_DIR"])
    started = time.monotonic()
    done = subprocess.run([sys.executable, os.path.abspath(__file__), name], env=environment, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(f"{done.stdout.decode(errors='replace')}{'passed' if done.returncode == 0 else 'FAILED'} {name} "
          f"({time.monotonic() - started:.0f} s)", flush=True)
    return done.returncode


def run_each(names):
    alone = [n for n in names if getattr(SCENARIOS[n], "alone", False)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(run_one, [n for n in names if n not in alone]))
    results += [run_one(n) for n in alone]
    return network.SKIPPED if network.SKIPPED in results else 1 if any(results) else 0


def main():
    if "--list" in sys.argv or "--help" in sys.argv:
        for name, function in SCENARIOS.items():
            print(name, *("    " + line for line in inspect.getdoc(function).split("\n") if line), sep="\n")
        return 0
    chosen = [n for n in SCENARIOS if not NAMES or any(word in n for word in NAMES)]
    if len(NAMES) == 1 and len(chosen) == 1:
        step(chosen[0])
        SCENARIOS[chosen[0]]()
        if "TEST_DIR" not in os.environ:
            subprocess.run(["rm", "-rf", DIR], check=False)
        return 0
    if len(NAMES) == 1:
        print(f"scenarios.py: {NAMES[0]} is {'no scenario' if not chosen else 'more than one'} (see --list)")
        return 2
    return run_each(chosen)


if __name__ == "__main__":
    sys.exit(main())
