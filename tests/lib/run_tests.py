#!/usr/bin/env python3
"""What tools/test does once the packages are there.

  tools/test [unit|sim|integration|fuzz|tidy|lint|NAME]... [--asan] [--keep] [--no-deps] [--jobs N]

Without words: tidy, the build with gcc, unit tests, simulations, integration, the build with clang, unit tests under address +
undefined and (for the threads of common/sys) thread sanitizer, fuzz targets ten seconds each. NAME is one test: test_buf,
sim_raft, cli. --asan runs what is asked for with that build. --keep keeps the working folders of integration tests. Logs are
in build/test-logs. A test that exits with 77 is skipped; the last line of its output says why.

An integration test is an executable script under tests/integration. It finds the programs in $GRANARY_BIN and an empty folder of its own in
$TEST_DIR. A line `# test: exclusive timeout=N` near its top asks to run alone (it measures time) or longer than 120 s.
"""
import concurrent.futures
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
LOGS = os.path.join(ROOT, "build/test-logs")
SKIPPED = 77
FUZZ_SECONDS = 10
SLOWEST = 6  # tests of a stage whose times are shown
THREADED = "unit/common/test_*.c"  # nothing above common/sys has threads
PROGRAMS = ["granary", "granary-master", "granary-chunkserver", "granary-mount"]  # some unit tests start them
WORDS = ["tidy", "unit", "sim", "integration", "fuzz", "lint"]
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class Test:
    def __init__(self, name, command, timeout=120, exclusive=False, environment=None, clean=None):
        self.name, self.command, self.timeout, self.exclusive = name, command, timeout, exclusive
        self.environment, self.clean = environment or {}, clean
        self.log = os.path.join(LOGS, name.replace("/", "-") + ".log")

    def run(self):
        """Returns "passed", "failed" or "skipped"."""
        started = time.monotonic()
        environment = dict(os.environ, **SANITIZER_ENVIRONMENT, **self.environment)
        with open(self.log, "wb") as log:
            process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       env=environment, start_new_session=True)
            try:
                status = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                log.write(f"\ntools/test: stopped after {self.timeout} s\n".encode())
                status = "timeout"
            finally:
                stop_group(process)
        self.seconds = time.monotonic() - started
        if self.clean:
            self.clean(status == 0 or status == SKIPPED)
        return "passed" if status == 0 else "skipped" if status == SKIPPED else "failed"

    def tail(self, lines):
        with open(self.log, errors="replace") as log:
            return "".join("    " + line for line in log.readlines()[-lines:])


def stop_group(process):
    """Ends what is left of a test's own process group: politely, so that its traps run, then not."""
    for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            pass


class Run:
    def __init__(self, jobs):
        self.jobs, self.counts = jobs, {"passed": 0, "failed": 0, "skipped": 0}
        self.started = time.monotonic()

    def note(self, text):
        if sys.stdout.isatty():
            print(f"\r\033[K{text}"[:110], end="", flush=True)

    def stage(self, title, tests):
        """Runs the tests of one stage, those that are exclusive after the others and alone. True if none failed."""
        started, results, finished = time.monotonic(), {}, 0
        for group, jobs in ([t for t in tests if not t.exclusive], self.jobs), ([t for t in tests if t.exclusive], 1):
            with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
                futures = {pool.submit(t.run): t for t in group}
                for future in concurrent.futures.as_completed(futures):
                    results[futures[future]] = future.result()
                    finished += 1
                    self.note(f"{title}: {finished} of {len(tests)}")
        count = {kind: sum(r == kind for r in results.values()) for kind in self.counts}
        for kind in count:
            self.counts[kind] += count[kind]
        self.note("")
        print(f"{title:<34} {count['passed']:>4} passed {count['failed']:>3} failed {count['skipped']:>3} skipped"
              f" {time.monotonic() - started:>7.1f} s", flush=True)
        slowest = sorted(tests, key=lambda t: -t.seconds)[:SLOWEST]
        if len(tests) > SLOWEST:
            print(f"  slowest: {', '.join(f'{t.name} {t.seconds:.0f} s' for t in slowest)}", flush=True)
        for test, result in results.items():
            if result == "failed":
                print(f"  FAILED {test.name}: {os.path.relpath(test.log, ROOT)}\n{test.tail(20)}", end="", flush=True)
            elif result == "skipped":
                print(f"  skipped {test.name}: {test.tail(1).strip()}", flush=True)
        return count["failed"] == 0

    def build(self, preset, targets=()):
        compiler = {"clang": "clang", "fuzz": "clang"}.get(preset, "gcc")
        ccache = "ccache " if shutil.which("ccache") else ""
        script = f'cmake --preset {preset} && ninja -C build/{preset} {" ".join(targets)}'
        return self.stage(f"build {preset} ({compiler})", [
            Test(f"build-{preset}", ["sh", "-c", script], timeout=900, environment={"CC": ccache + compiler})])

    def close(self):
        c = self.counts
        print(f"{c['passed']} passed, {c['failed']} failed, {c['skipped']} skipped"
              f" ({time.monotonic() - self.started:.0f} s, logs in build/test-logs)")
        return 1 if c["failed"] or not c["passed"] else 0


def binary(preset, name):
    return os.path.join(ROOT, "build", preset, "bin", name)


def sources(pattern):
    return sorted(glob.glob(os.path.join(ROOT, "tests", pattern), recursive=True))


def scripts():
    """Integration tests: what can be run in their folder."""
    return [s for s in sources("integration/*") if os.access(s, os.X_OK)]


def base(path):
    return os.path.splitext(os.path.basename(path))[0]


def wanted(names, chosen):
    return [n for n in names if not chosen or base(n) in chosen]


def ctest_tests(preset, label, chosen=()):
    """What CMake knows under this label: its command, its time limit."""
    listing = json.loads(subprocess.run(["ctest", "--test-dir", f"build/{preset}", "--show-only=json-v1"], cwd=ROOT,
                                        capture_output=True, check=True).stdout)
    tests = []
    for test in listing["tests"]:
        properties = {p["name"]: p["value"] for p in test["properties"]}
        if label in properties.get("LABELS", []) and (not chosen or test["name"] in chosen):
            name = test["name"] + ("" if preset == "dev" else f"-{preset}")
            tests.append(Test(name, test["command"], int(properties.get("TIMEOUT", 120))))
    return tests


def fuzz_tests(chosen=()):
    tests = []
    for source in wanted(sources("fuzz/fuzz_*.c"), chosen):
        work = os.path.join(LOGS, "corpus", base(source))
        os.makedirs(work, exist_ok=True)
        seeds = os.path.join(ROOT, "tests/fuzz/corpus", base(source))
        command = [binary("fuzz", base(source)), f"-max_total_time={FUZZ_SECONDS}", "-rss_limit_mb=2048", "-timeout=10",
                   f"-artifact_prefix={LOGS}/", work] + ([seeds] if os.path.isdir(seeds) else [])
        tests.append(Test(base(source), command, timeout=FUZZ_SECONDS + 60))
    return tests


def integration_tests(preset, keep, chosen=()):
    tests = []
    for script in wanted(scripts(), chosen):
        with open(script) as f:
            asked = re.search(r"^# test:(.*)$", f.read(4096), flags=re.M)
        asked = asked.group(1) if asked else ""
        timeout = re.search(r"timeout=(\d+)", asked)
        folder = tempfile.mkdtemp(prefix=f"granary-{base(script)}-")
        os.chmod(folder, 0o755)  # tests look at the mount in it as other users, too

        def clean(passed, folder=folder):
            for pids in glob.glob(folder + "/**/pids", recursive=True):
                subprocess.run([binary(preset, "granary"), "dev", "down", os.path.dirname(pids)], timeout=60, check=False,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if passed and not keep:
                shutil.rmtree(folder, ignore_errors=True)
            elif not passed:
                for log in glob.glob(folder + "/**/log/*.log", recursive=True):
                    shutil.copy(log, os.path.join(LOGS, f"{os.path.basename(folder)}-{os.path.basename(log)}"))
                if not keep:
                    shutil.rmtree(folder, ignore_errors=True)
        tests.append(Test(base(script), [script], int(timeout.group(1)) if timeout else 120, "exclusive" in asked,
                          {"GRANARY_BIN": os.path.dirname(binary(preset, "x")), "TEST_DIR": folder, "GRANARY_ROOT": ROOT}, clean))
    return tests


def tidy_tests():
    scripts = sources("**/*.sh") + [os.path.join(ROOT, s) for s in ("tools/quickstart", "tools/deps", "tools/test", "tools/man/make")]
    return [Test("tidy-self-test", ["tests/tidy/tidy", "--self-test"]), Test("tidy", ["tests/tidy/tidy"]),
            Test("shell-syntax", ["sh", "-c", 'for f; do bash -n "$f" || exit 1; done', "sh"] + scripts)]


def lint_tests():
    script = "find common master chunkserver client fuse tools -name '*.c' | xargs -P $(nproc) -n 4 clang-tidy --quiet -p build/clang"
    return [Test("clang-tidy", ["sh", "-c", script], timeout=1200)]


def everything(run, keep):
    run.stage("tidy", tidy_tests())
    if run.build("dev"):
        run.stage("unit tests", ctest_tests("dev", "unit"))
        run.stage("simulations", ctest_tests("dev", "sim"))
        run.stage("integration", integration_tests("dev", keep))
    run.build("clang")
    units = [base(s) for s in sources("unit/**/test_*.c")]
    if run.build("asan", units + PROGRAMS):
        run.stage("unit tests, address + undefined", ctest_tests("asan", "unit"))
    threads = [base(s) for s in sources(THREADED)]
    if run.build("tsan", threads):
        run.stage("unit tests of common, thread", ctest_tests("tsan", "unit", threads))
    fuzzers = [base(s) for s in sources("fuzz/fuzz_*.c")]
    if run.build("fuzz", fuzzers):
        run.stage("fuzz targets", fuzz_tests())


def some(run, words, preset, keep):
    """The kinds and the single tests that were named."""
    fuzzers = {base(s) for s in sources("fuzz/fuzz_*.c")}
    integration = {base(s) for s in scripts()}
    chosen = set(words) - set(WORDS)
    if "tidy" in words:
        run.stage("tidy", tidy_tests())
    if "lint" in words and run.build("clang"):
        run.stage("clang-tidy", lint_tests())
    if ("fuzz" in words or chosen & fuzzers) and run.build("fuzz", fuzzers):
        run.stage("fuzz targets", fuzz_tests(() if "fuzz" in words else chosen))
    named = chosen - fuzzers
    if not named and not set(words) & {"unit", "sim", "integration"}:
        return
    if not run.build(preset):
        return
    for label, title in ("unit", "unit tests"), ("sim", "simulations"):
        tests = ctest_tests(preset, label, () if label in words else named) if label in words or named else []
        named -= {re.sub(f"-{preset}$", "", t.name) for t in tests}
        if tests:
            run.stage(title, tests)
    if "integration" in words or named & integration:
        run.stage("integration", integration_tests(preset, keep, () if "integration" in words else named))
    for name in sorted(named - integration):
        print(f"tools/test: no test is called {name} (there are {', '.join(WORDS)}, and the names of the files in tests/)")
        run.counts["failed"] += 1


def main():
    words, preset, keep, jobs = [], "dev", False, os.cpu_count() or 1
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument == "--asan":
            preset = "asan"
        elif argument == "--keep":
            keep = True
        elif argument == "--jobs":
            jobs = max(1, int(next(arguments, "1")))
        elif argument == "--help":
            print(__doc__)
            return 0
        elif argument.startswith("-") and argument != "--no-deps":
            print(f"tools/test: unknown option {argument} (see --help)", file=sys.stderr)
            return 2
        elif argument != "--no-deps":
            words.append(argument)
    os.makedirs(LOGS, exist_ok=True)
    lock = open(os.path.join(ROOT, "build/.test-lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("tools/test: another run is under way in this tree", file=sys.stderr)
        return 1
    run = Run(jobs)
    if words or preset != "dev":
        some(run, words or ["unit", "integration"], preset, keep)
    else:
        everything(run, keep)
    return run.close()


if __name__ == "__main__":
    sys.exit(main())
