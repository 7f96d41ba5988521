# SPDX-License-Identifier: MIT
"""A job without MPI: the test stands in for mpiexec and Hydra's proxies, from the build tree."""
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import tap  # noqa: E402

BUILD = os.environ.get("MSOCK_TEST_BUILD") or os.getcwd()
LIMIT_S = int(os.environ.get("MSOCK_TEST_LIMIT_S") or 60)
PR_SET_CHILD_SUBREAPER = 36

ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def program(name):
    return os.path.join(BUILD, name)


def environment(top, **more):
    """Ours, with a directory for jobs and the programs of the build tree."""
    return dict(os.environ, MSOCK_RUNDIR=top, MSOCK_HELPERDIR=f"{BUILD}:{BUILD}/msock/image",
                MSOCK_LIBDIR=os.path.join(BUILD, ".libs"), **more)


def children():
    """Live descendants of this test: orphans become its children."""
    found, tree = set(), {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    state, parent = file.read().rsplit(")", 1)[1].split()[:2]
            except OSError:
                continue
            if state == "Z" and int(parent) == os.getpid():
                try:
                    os.waitpid(int(entry), os.WNOHANG)
                except ChildProcessError:
                    pass
            elif state not in "ZX":
                tree[int(entry)] = int(parent)
    more = {os.getpid()}
    while more:
        more = {pid for pid, parent in tree.items() if parent in more} - found
        found |= more
    return sorted(found)


def named(name):
    """Our processes of that name."""
    found = []
    for pid in children():
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                if file.read().strip() == name[:15]:
                    found.append(pid)
        except OSError:
            pass
    return found


def listening(pid):
    """Where a process listens on TCP: [(address, port)]."""
    inodes = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        with open(f"/proc/{pid}/net/tcp", encoding="ascii") as file:
            lines = [line.split() for line in file][1:]
    except OSError:
        return []
    found = [line[1].split(":") for line in lines if line[3] == "0A" and line[9] in inodes]
    return [(socket.inet_ntoa(bytes.fromhex(ip)[::-1]), int(port, 16)) for ip, port in found]


def kill_children():
    for pid in children():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Talker:
    """A test program under a stub of its own, asked and answering line by line."""
    count = 0
    name = None  # of the program, below the build tree
    wait_s = LIMIT_S

    def __init__(self, job, what, host):
        self.job, self.number, self.host = job, Talker.count, host
        Talker.count += 1
        self.child = job.stub(self.number, [program(self.name), what], host, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
        os.set_blocking(self.child.stdout.fileno(), False)
        self.said = b""

    def line(self, seconds=None):
        """The next line, None if none comes in time."""
        end = time.monotonic() + (seconds or self.wait_s)
        while b"\n" not in self.said:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.child.stdout], [], [], left)[0]:
                return None
            more = self.child.stdout.read()
            if not more:
                return None
            self.said += more
        line, self.said = self.said.split(b"\n", 1)
        return line.decode()

    def say(self, text):
        self.child.stdin.write(f"{text}\n".encode())
        self.child.stdin.flush()

    def ask(self, text):
        self.say(text)
        return self.line()


class Launch:
    """One coordinator with its daemons."""

    def __init__(self, hosts=("127.0.0.2", "127.0.0.3"), lines=(), job="4711-0badcafe", err=None, secret=False):
        """secret: as mpiexec, which can start the coordinator again then (again())."""
        self.top = tempfile.mkdtemp(prefix="msock-launch-")
        self.job = job
        self.env = environment(self.top)
        self.env.pop("MSOCK_JOBDIR", None)
        self.err = err
        self.config = [f"job {job}", *([f"secret {os.urandom(32).hex()}"] if secret else []), *lines, *(f"host {name}" for name in hosts)]
        self.start(self.config)
        self.dir = self.said.removeprefix("ready ")
        self.env["MSOCK_JOBDIR"] = self.dir

    def start(self, config):
        self.coord = subprocess.Popen([program("msrank-coord")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.err,
                                      env=self.env)
        self.coord.stdin.write("\n".join([*config, "end", ""]).encode())
        self.coord.stdin.flush()
        ready, _, _ = select.select([self.coord.stdout], [], [], LIMIT_S)
        self.said = self.coord.stdout.readline().decode().strip() if ready else "nothing"

    def kill(self):
        """The coordinator dies."""
        self.coord.kill()
        self.coord.wait()
        self.coord.stdin.close()
        self.coord.stdout.close()

    def again(self):
        """Another coordinator, as mpiexec starts one: what it says."""
        self.start([*self.config, "again"])
        return self.said

    def stub(self, rank, words, host="127.0.0.2", before=(), first=(), **options):
        """before: more options of the stub's; first: a program that runs it."""
        env = dict(self.env, PMI_RANK=str(rank), **options.pop("env", {}))
        return subprocess.Popen([*first, program("msrank-stub"), "--host", host, *before, "--", *words], env=env, **options)

    def run(self, rank, words, host="127.0.0.2", data=b"", **options):
        """(exit status, stdout, stderr) of a rank."""
        child = self.stub(rank, words, host, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        try:
            out, err = child.communicate(data, LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return "timeout", *child.communicate()
        return child.returncode, out, err

    def tool(self, *words):
        done = subprocess.run([program(words[0]), *words[1:]], env=self.env, capture_output=True, text=True, timeout=LIMIT_S,
                              check=False)
        return done.returncode, done.stdout, done.stderr

    def ps(self):
        status, out, _ = self.tool("msrank-ps", "--json")
        return {entry["rank"]: entry for entry in json.loads(out)["ranks"]} if status == 0 else {}

    def end(self):
        """mpiexec's end: the coordinator's exit status."""
        self.coord.stdin.close()
        try:
            status = self.coord.wait(20)
        except subprocess.TimeoutExpired:
            self.coord.kill()
            status = "timeout"
        self.coord.stdout.close()
        return status

    def leftovers(self):
        tap.until(lambda: not children(), 5)
        files = [os.path.join(where, name) for where, _, names in os.walk(self.top) for name in names]
        return children() + files

    def close(self):
        kill_children()
        shutil.rmtree(self.top, ignore_errors=True)


__all__ = ["Launch", "Talker", "children", "kill_children", "listening", "named", "program", "tap", "socket", "time"]
