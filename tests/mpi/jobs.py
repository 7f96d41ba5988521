# SPDX-License-Identifier: MIT
"""Jobs under test: where they run, starting and watching them, moving their ranks, counting what they leave.

A place is a set of hosts and a way to start programs on the launch host: Lab (namespaces, root) or User (127.0.0.2 to
4, an ordinary user with no_new_privs). Everything that waits has a bound.
"""
import atexit
import ctypes
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
TOP = os.path.dirname(TESTS)
sys.path.insert(0, TESTS)
import tap  # noqa: E402

BUILD = os.environ.get("MSOCK_TEST_BUILD") or os.getcwd()
PREFIX = os.environ.get("MSOCK_TEST_PREFIX") or os.path.join(TOP, "_install")
LONG = bool(os.environ.get("MSOCK_TEST_LONG"))
LAB = os.path.join(TESTS, "lab", "lab")
LIMIT_S = 300  # no job or command of a test lives longer
PR_SET_CHILD_SUBREAPER = 36

# Orphans of the jobs become this process's children, so that what is left can be counted.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def program(name):
    """An example or test program: built by `make check`."""
    for path in (os.path.join(BUILD, "examples", name), os.path.join(BUILD, "tests", "mpi", name),
                 os.path.join(PREFIX, "libexec", "msock", "examples", name)):
        if os.path.exists(path):
            return path
    raise FileNotFoundError(name)


def command(name):
    return os.path.join(PREFIX, "bin", name)


def clean_environment(**more):
    env = {name: value for name, value in os.environ.items()
           if name not in ("TMPDIR", "XDG_RUNTIME_DIR") and not name.startswith(("MSOCK_TEST", "HYDRA_", "MPIEXEC_"))}
    env.update(more)
    return env


class Place:
    """Subclasses set name, hosts, shared (a directory all hosts and the driver see) and prefix (before each command)."""
    mpiexec_options = []

    def environment(self):
        return clean_environment()

    def start(self, words, **options):
        return subprocess.Popen(self.prefix + words, env=self.environment(), start_new_session=True, **options)

    def call(self, words, seconds=60):
        """Run a command to its end: (exit status, stdout, stderr)."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = self.start(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                status = "timeout"
                end_group(child)
            out.seek(0)
            err.seek(0)
            return status, out.read(), err.read()

    def mpiexec(self, ranks, launcher="msock", hosts=None):
        options = self.mpiexec_options if launcher == "msock" else []
        return [command("mpiexec"), "-launcher", launcher, *options, "-hosts", ",".join(hosts or self.hosts), "-n", str(ranks)]


class User(Place):
    """127.0.0.2 to 4 without any right; the job directory lies in a directory of the test's own."""
    name = "ordinary user"
    hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]

    def __init__(self):
        self.shared = tempfile.mkdtemp(prefix="msock-user-")
        if os.geteuid() == 0:
            os.chown(self.shared, pwd.getpwnam("nobody").pw_uid, -1)
        self.rundir = os.path.join(self.shared, "run")
        self.prefix = [os.path.join(HERE, "asuser"), ":".join([TOP, BUILD, PREFIX, self.shared])]
        self.call(["mkdir", self.rundir])

    def environment(self):
        return clean_environment(MSOCK_RUNDIR=self.rundir, HOME=self.shared)

    def jobs(self):
        """The ids of the jobs that run now."""
        return {name for _, names, _ in os.walk(self.rundir) for name in names if not name.startswith("msock-")}

    def leftovers(self):
        """Processes and files that a job left."""
        tap.until(lambda: not descendants(), 5)
        files = [os.path.join(where, name) for where, _, names in os.walk(self.rundir) for name in names]
        return [f"{pid} {describe(pid)}" for pid in descendants()] + files

    def close(self):
        shutil.rmtree(self.shared, ignore_errors=True)


class Lab(Place):
    """Hosts h1 .. hN of a lab of this test's own; mpiexec runs on h0."""
    name = "lab"
    mpiexec_options = ["-launcher-exec", os.path.join(TESTS, "lab", "ssh")]

    def __init__(self, count=3):
        made = subprocess.run([LAB, "up", "--share", PREFIX, "--share", BUILD, str(count)], capture_output=True, text=True,
                              timeout=60, check=False)
        if made.returncode != 0:
            raise RuntimeError(made.stderr)
        self.directory = made.stdout.strip()
        self.hosts = [f"h{n}" for n in range(1, count + 1)]
        self.shared = os.path.join(self.directory, "shared")
        self.prefix = [LAB, "run", "h0"]
        self.dead = set()
        self.before = self.state()

    def environment(self):
        return clean_environment(MSOCK_LAB=self.directory, HOME="/root")

    def lab(self, *words):
        return subprocess.run([LAB, *words], env=self.environment(), capture_output=True, text=True, timeout=60, check=True).stdout

    def off(self, host):
        self.lab("off", host)
        self.dead.add(host)

    def state(self):
        found = []
        for host in ["h0"] + self.hosts:
            if host not in getattr(self, "dead", ()):
                found += [f"{host}: process {line}" for line in self.lab("ps", host).splitlines()]
                found += [f"{host}: file {line}" for line in self.lab("files", host).splitlines()]
        return found

    def leftovers(self):
        more = lambda: [line for line in self.state() if line not in self.before]
        tap.until(lambda: not more(), 5, 0.1)
        return more()

    def close(self):
        self.lab("down")


def places(*kinds):
    """The places that can be had here; a missing one is a skipped result."""
    for kind in kinds:
        if issubclass(kind, Lab) and os.geteuid() != 0:
            tap.skip("the lab", "needs root")
            continue
        place = kind()
        try:
            tap.note(f"place: {place.name}")
            yield place
        finally:
            place.close()


def parents():
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    state, parent = file.read().rsplit(")", 1)[1].split()[:2]
            except OSError:
                continue
            if state not in "ZX":
                found[int(entry)] = int(parent)
    return found


def descendants(of=None):
    """Live processes below this one (or another)."""
    tree, found, more = parents(), set(), {of or os.getpid()}
    while more:
        more = {pid for pid, parent in tree.items() if parent in more} - found
        found |= more
    reap()
    return sorted(found)


def reap():
    """Take the exit status of orphans; jobs' own are left for their Popen."""
    known = {job.child.pid for job in Job.alive}
    for pid in set(zombies()) - known:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # another thread of the test was first
            pass


def zombies():
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    state, parent = file.read().rsplit(")", 1)[1].split()[:2]
            except OSError:
                continue
            if state == "Z" and int(parent) == os.getpid():
                yield int(entry)


def describe(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "gone"


def end_group(child):
    """End a command of ours and what it started in its session, for good."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            continue
    child.wait(5)


@atexit.register
def end_everything():
    """A test that dies, or is told to end, takes its jobs with it."""
    for job in list(Job.alive):
        job.kill()
    for pid in descendants():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


class Job:
    """One mpiexec with its output, line by line as it comes."""
    alive = set()

    def __init__(self, place, words, ranks, hosts=None, launcher="msock", stdin=subprocess.DEVNULL, seconds=LIMIT_S):
        self.place = place
        self.out, self.err = [], []
        self.name = []  # the words that name it to tools; needed where the place has several
        self.changed = threading.Condition()
        self.end = time.monotonic() + seconds
        self.started = time.monotonic()
        self.child = place.start(place.mpiexec(ranks, launcher, hosts) + words, stdin=stdin, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        Job.alive.add(self)
        self.readers = [threading.Thread(target=self.collect, args=pair, daemon=True)
                        for pair in ((self.child.stdout, self.out), (self.child.stderr, self.err))]
        for reader in self.readers:
            reader.start()

    def collect(self, stream, lines):
        for line in stream:
            with self.changed:
                lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def wait_line(self, pattern, seconds=60, count=1):
        """Wait until that many lines of stdout match; False when the job ended before or the time is over."""
        end = min(self.end, time.monotonic() + seconds)
        matches = lambda: sum(1 for line in self.out if re.search(pattern, line)) >= count
        with self.changed:
            while not matches():
                left = end - time.monotonic()
                if left <= 0 or not any(reader.is_alive() for reader in self.readers):
                    return False
                self.changed.wait(min(left, 0.5))
        return True

    def wait_output(self, seconds):
        """Let the job run for a while; True when it has ended."""
        end = time.monotonic() + seconds
        while self.child.poll() is None and time.monotonic() < end:
            time.sleep(min(0.02, max(0.0, end - time.monotonic())))
        return self.child.poll() is not None

    def wait(self):
        """The exit status, or "timeout" after the job was ended by force."""
        try:
            status = self.child.wait(max(1, self.end - time.monotonic()))
        except subprocess.TimeoutExpired:
            tap.note("the job did not end; its processes:")
            for pid in descendants():
                tap.note(f"  {pid} {describe(pid)}")
            self.kill()
            status = "timeout"
        for reader in self.readers:
            reader.join(10)
        Job.alive.discard(self)
        self.seconds = time.monotonic() - self.started
        return status

    def kill(self):
        end_group(self.child)
        Job.alive.discard(self)

    def interrupt(self):
        """Ctrl-C: SIGINT to the foreground process group."""
        os.killpg(self.child.pid, signal.SIGINT)

    def ps(self):
        """Ranks as msrank-ps reports them, {} when it does not know the job."""
        status, out, _ = self.place.call([command("msrank-ps"), "--json", *self.name[1:]], 20)
        return {entry["rank"]: entry for entry in json.loads(out)["ranks"]} if status == 0 and out.strip() else {}

    def where(self, rank):
        return self.ps()[rank]["host"]

    def move(self, ranks, host, *options, seconds=120):
        """Returns (exit status, list of reports, stderr)."""
        status, out, err = self.place.call([command("msrank-move"), "--json", *self.name, *options, str(ranks), host], seconds)
        reports = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return status, reports, err

    def checksum(self):
        lines = [line for line in self.out if line.startswith("checksum ")]
        return lines[-1].split()[1] if len(lines) == 1 else f"no single checksum line: {lines}"

    def by_rank(self):
        """Lines of each rank in the order they came; what names no rank is rank 0's."""
        lines = {}
        for line in self.out:
            match = re.match(r"rank (\d+):", line)
            lines.setdefault(int(match.group(1)) if match else 0, []).append(line)
        return lines

    def story(self):
        """What a failed test shows."""
        return "\n".join(["stdout:", *self.out[-15:], "stderr:", *self.err[-25:]])


def report_line(report):
    streams = report.get("streams") or {}
    return (f"rank {report.get('rank')} {report.get('from')} -> {report.get('to')}: freeze {report.get('freeze_ms')} ms, "
            f"stall {report.get('stall_ms')} ms, total {report.get('total_ms')} ms, {report.get('image_bytes')} bytes, "
            f"drained {streams.get('drained')}, mirrored {streams.get('mirrored')}")


class Mover:
    """Moves random ranks to random other hosts at random times while a job runs."""

    def __init__(self, job, ranks, rng, vias=("auto",), pause=0.3):
        self.job, self.ranks, self.rng, self.vias, self.pause = job, ranks, rng, vias, pause
        self.done, self.failures, self.reports, self.ways = 0, [], [], set()

    def one(self):
        """One move; False when the job has ended."""
        rank = self.rng.randrange(self.ranks)
        via = self.vias[self.done % len(self.vias)]
        try:
            here = self.job.where(rank)
        except KeyError:
            here = None
        host = self.rng.choice([h for h in self.job.place.hosts if h != here])
        if self.job.wait_output(self.rng.uniform(0, self.pause)):
            return False
        status, reports, err = self.job.move(rank, host, "--via", via)
        if status != 0 and self.job.wait_output(0.5):
            return False
        self.done += 1
        if status != 0 or len(reports) != 1 or not reports[0]["committed"]:
            self.failures.append(f"move {self.done}, rank {rank} {here} -> {host} via {via}: exit {status}: {reports} {err.strip()}")
        else:
            self.reports.append(reports[0])
            self.ways.add((here, host))
        return True

    def run_all_ways(self):
        """Moves until each host has sent and got a rank from each other: all daemons know each other then."""
        hosts = len(self.job.place.hosts)
        while len(self.ways) < hosts * (hosts - 1) and len(self.failures) < 5 and self.one():
            pass

    def run(self, moves):
        while self.done < moves and len(self.failures) < 5 and self.one():
            pass
        for name in ("freeze_ms", "stall_ms", "total_ms"):
            values = sorted(r[name] for r in self.reports if isinstance(r.get(name), (int, float)))
            if values:
                tap.note(f"{name}: median {values[len(values) // 2]:.1f}, worst {values[-1]:.1f} of {len(values)} moves")
        streams = [r["streams"] for r in self.reports if r.get("streams")]
        tap.note(f"streams drained {sum(s['drained'] for s in streams)}, mirrored {sum(s['mirrored'] for s in streams)}")


def job_ended(job, status, want=0, what="the job"):
    return tap.ok(status == want, f"{what} ends with {want}", f"got {status}\n{job.story()}")
