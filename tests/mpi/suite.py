# SPDX-License-Identifier: MIT
"""MPICH's own tests (test/mpi of its source tree): built once, run in small parts, each part's results kept.

One build serves every library: ch3:sock and ch3:msock come from one tree and have one ABI, so LD_LIBRARY_PATH decides.
A way is how tests run: `sock`, `msock`, and `storm` and `held` (msock under tests/mpi/storm; held: with --hold).
A part is at most PART_LINES lines of one list file. MPICH's runtests judges each test.
"""
import glob
import hashlib
import json
import os
import re
import subprocess
import time

import jobs

STORM = os.path.join(jobs.HERE, "storm")
MPICH_BUILD = os.path.join(jobs.TOP, "mpich-channel", "build")
HOSTS = "127.0.0.2,127.0.0.3,127.0.0.4"
WAYS = ("sock", "msock", "storm", "held")
MOVED = ("storm", "held")
MOVES_LEAST = 2  # of each rank, for a test to count as run under storm
STORM_PATIENCE = 4  # time limits under storm are so many times as long
PART_LINES = 10
STEP_S = 4 * 3600
REMARKS = {"SKIP": "skipped", "TODO": "xfailed"}
RESULT = re.compile(r"(ok|not ok) +(?:\d+ )?- (\S+) (\d+)(?: +# (.*))?")


def shell(words, log, **options):
    with open(log, "w", encoding="utf-8") as out:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=STEP_S, check=False, **options)
    return done.returncode


def source():
    """The test/mpi directory of the patched tree, or what MSOCK_TEST_SUITE says."""
    if os.environ.get("MSOCK_TEST_SUITE"):
        return os.environ["MSOCK_TEST_SUITE"]
    done = subprocess.run([MPICH_BUILD, "--source"], capture_output=True, text=True, timeout=STEP_S, check=True)
    return os.path.join(done.stdout.split()[-1], "test", "mpi")


def sock_prefix(work):
    """Where ch3:sock is installed: MSOCK_TEST_SOCK, else it is built here."""
    prefix = os.environ.get("MSOCK_TEST_SOCK") or os.path.join(work, "prefix-sock")
    if not os.path.exists(os.path.join(prefix, "bin", "mpiexec")):
        os.makedirs(work, exist_ok=True)
        if shell([MPICH_BUILD, "ch3:sock", prefix], os.path.join(work, "prefix-sock.log")) != 0:
            raise RuntimeError(f"ch3:sock cannot be built: {work}/prefix-sock.log")
    return prefix


class Suite:
    """The tests, configured and built in work/tests; results below work/results/COMMIT."""

    def __init__(self, work, commit, lists=("testlist", "testlist.dtp", "testlist.cvar")):
        self.work, self.lists = work, lists
        self.tests = os.path.join(work, "tests")
        self.results = os.path.join(work, "results", commit)
        self.source = source()
        os.makedirs(self.tests, exist_ok=True)
        os.makedirs(self.results, exist_ok=True)

    def configure(self):
        if os.path.exists(os.path.join(self.tests, "runtests")):
            return
        flags = "-O2 -fallow-argument-mismatch -fallow-invalid-boz"
        env = dict(os.environ, FFLAGS=flags, FCFLAGS=flags)
        words = [os.path.join(self.source, "configure"), f"--with-mpi={jobs.PREFIX}", f"CC={jobs.PREFIX}/bin/mpicc", "--disable-cxx"]
        if shell(words, os.path.join(self.tests, "configure.log"), cwd=self.tests, env=env) != 0:
            raise RuntimeError(f"the tests cannot be configured: {self.tests}/configure.log")

    def build(self, directory):
        """A program that does not build fails where it should run: that runtests says."""
        for name in ("util", "dtpools", directory):
            if not os.path.exists(os.path.join(self.tests, name, ".built")):
                log = os.path.join(self.tests, name.replace("/", "-") + ".log")
                shell(["make", "-s", "-k", f"-j{os.cpu_count()}", "-C", name], log, cwd=self.tests)
                open(os.path.join(self.tests, name, ".built"), "w", encoding="ascii").close()

    def find(self, directory, name):
        for where in (self.tests, self.source):
            path = os.path.join(where, directory, name)
            if os.path.exists(path):
                return path
        return None

    def lines(self, directory, name):
        path = self.find(directory, name)
        if not path:
            return []
        with open(path, encoding="utf-8") as file:
            return [line.split("#")[0].strip() for line in file if line.split("#")[0].strip()]

    def directories(self, above=""):
        """All that the lists name, depth first."""
        found = []
        for line in self.lines(above, "testlist"):
            name = os.path.join(above, line.split()[0])
            if os.path.isdir(os.path.join(self.tests, name)):
                found += [name] + self.directories(name)
        return found

    def parts(self, directories):
        """(directory, name, lines) in a fixed order."""
        found = []
        for directory in directories:
            for name in self.lists:
                lines = [line for line in self.lines(directory, name)
                         if line.startswith("!") or not os.path.isdir(os.path.join(self.tests, directory, line.split()[0]))]
                for at in range(0, len(lines), PART_LINES):
                    found.append((directory, f"{name}.{at // PART_LINES:03d}", lines[at:at + PART_LINES]))
        return found

    def digest(self, directories):
        """Of the lists, so that two runs can be seen to be of the same."""
        total = hashlib.sha256()
        for part in self.parts(directories):
            total.update(json.dumps(part).encode())
        return total.hexdigest()

    def result_path(self, way, part):
        return os.path.join(self.results, f"{way}.{part[0].replace('/', '-')}.{part[1]}.json")

    def mpiexec(self, way, report, hold=MOVES_LEAST):
        """What runtests is given as its mpiexec, and the environment."""
        prefix = sock_prefix(self.work) if way == "sock" else jobs.PREFIX
        env = jobs.clean_environment(LD_LIBRARY_PATH=os.path.join(prefix, "lib"), MSOCK_RUNDIR=os.path.join(self.work, "run"),
                                     MSOCK_TEST_BUILD=jobs.BUILD)
        os.makedirs(env["MSOCK_RUNDIR"], exist_ok=True)
        words = f"{prefix}/bin/mpiexec"
        if way in ("storm", "held"):
            held = f"--hold {hold} " if way == "held" else ""
            words = f"{STORM} {held}--report {report} --keep {self.work}/kept --expect 'No Errors|Test Passed' --hosts {HOSTS} {words}"
            env["MPITEST_TIMEOUT_MULTIPLIER"] = str(STORM_PATIENCE)
        else:
            env["MPITEST_MPIEXECARG"] = f"-launcher {'fork' if way == 'sock' else 'msock'} -hosts {HOSTS}"
        return words, env

    def run(self, way, part, lines=None):
        """Run a part, or some of its lines, unless its result is there already; returns [{test, verdict, seconds, least}]."""
        path = self.result_path(way, part)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        self.build(part[0])
        here = os.path.join(self.tests, part[0])
        base = os.path.join(here, f"{way}.{part[1]}")
        with open(base, "w", encoding="utf-8") as file:
            file.write("\n".join(part[2] if lines is None else lines) + "\n")
        for name in (base + ".tap", base + ".report"):
            if os.path.exists(name):
                os.unlink(name)
        mpiexec, env = self.mpiexec(way, base + ".report")
        up = os.path.relpath(self.tests, here)
        shell(["perl", f"{up}/runtests", f"-srcdir={self.source}/{part[0]}", f"-tests={os.path.basename(base)}", f"-mpiexec={mpiexec}",
               f"-tapfile={base}.tap"], base + ".log", cwd=here, env=env)
        found = read_results(base, part[0])
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(found, file, indent=0)
        os.rename(path + ".new", path)
        return found

    def held_again(self, part, storm):
        """Those of a part that a storm moved too little run once more, their start held."""
        few = [index for index, entry in enumerate(storm) if entry["verdict"] != "skipped" and entry["least"] < MOVES_LEAST]
        first = [line for line in part[2] if line.startswith("!")]  # what must be built before
        tests = [line for line in part[2] if not line.startswith("!")]
        if len(tests) != len(storm):
            raise RuntimeError(f"{part[0]}/{part[1]}: {len(tests)} tests, {len(storm)} results: see {self.tests}/{part[0]}/storm.{part[1]}.log")
        return self.run("held", part, first + [tests[index] for index in few]) if few else []

    def all_results(self):
        """{way: {directory: [entry]}} of all that is there, so that parts run at different times are merged."""
        merged = {way: {} for way in WAYS}
        for path in sorted(glob.glob(os.path.join(self.results, "*.json"))):
            with open(path, encoding="utf-8") as file:
                for entry in json.load(file):
                    merged[os.path.basename(path).split(".")[0]].setdefault(entry["directory"], []).append(entry)
        return merged


def read_results(base, directory):
    """The verdicts of runtests; under storm with the moves of the rank that was moved least."""
    found, reports = [], []
    if os.path.exists(base + ".report"):
        with open(base + ".report", encoding="utf-8") as file:
            reports = [json.loads(line) for line in file]
    if not os.path.exists(base + ".tap"):
        return found
    with open(base + ".tap", encoding="utf-8", errors="replace") as lines:
        for verdict, test, ranks, remark in (match.groups() for match in map(RESULT.match, lines) if match):
            seconds = re.search(r"time=([\d.]+)", remark or "")
            entry = {"directory": directory, "test": f"{test.removeprefix('./')} {ranks}", "least": 0, "moves": 0,
                     "verdict": REMARKS.get((remark or "").split(" ")[0]) or ("passed" if verdict == "ok" else "failed"),
                     "seconds": round(float(seconds.group(1)), 2) if seconds else 0.0}
            if reports and entry["verdict"] != "skipped" and test in reports[0]["command"]:
                report = reports.pop(0)
                entry.update(least=report["least"], moves=report["moves"], refused=report["refused"], seed=report["seed"])
            found.append(entry)
    return found


def numbered(entries):
    """{name #n: entry}: a test is its directory, name, ranks, and how many times it was seen before."""
    seen, found = {}, {}
    for entry in entries:
        name = f"{entry['directory']}/{entry['test']}"
        seen[name] = seen.get(name, 0) + 1
        found[f"{name} #{seen[name]}"] = entry
    return found


def worse(reference, results):
    """What passes there and fails, is skipped or is missing here, of what was run here at all."""
    there, here = numbered(reference), numbered(results)
    return [f"{name}: {here[name]['verdict'] if name in here else 'missing'}" for name, entry in there.items()
            if entry["verdict"] == "passed" and (name not in here or here[name]["verdict"] != "passed")]


def table(merged):
    """Markdown, a line for each directory and way.

    A test under storm of which a rank was moved less than twice counts as `few`, never as passed, and is run again with
    its start held.
    """
    lines = ["| directory | way | run | pass | few | fail | skip | seconds | moves |", "|---|---|---|---|---|---|---|---|---|"]
    for directory in sorted({name for way in merged.values() for name in way}):
        for way in WAYS:
            entries = merged[way].get(directory)
            if entries:
                count = lambda verdict: sum(1 for entry in entries if entry["verdict"] == verdict)
                few = sum(1 for entry in entries if entry["verdict"] == "passed" and way in MOVED and entry["least"] < MOVES_LEAST)
                lines.append(f"| {directory} | {way} | {len(entries)} | {count('passed') - few} | {few if way in MOVED else ''} | "
                             f"{count('failed')} | {count('skipped')} | "
                             f"{sum(entry['seconds'] for entry in entries):.0f} | {sum(entry['moves'] for entry in entries) or ''} |")
    return lines


def commit_id():
    """Of the tree that is tested; with the time when it differs from any commit."""
    git = lambda *words: subprocess.run(["git", "-C", jobs.TOP, *words], capture_output=True, text=True, check=False).stdout.strip()
    head = git("rev-parse", "--short=12", "HEAD") or "no-commit"
    return head if not git("status", "--porcelain", "--untracked-files=no") else f"{head}-changed-{time.strftime('%Y%m%d')}"
