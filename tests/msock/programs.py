# SPDX-License-Identifier: MIT
"""Programs as they are under msrun --sockets: one is the job's first member, others join it; all are moved while they work."""
import collections
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
TOP = tempfile.mkdtemp(prefix="msock-programs-")
ENV = launch.environment(TOP, PYTHONUNBUFFERED="1")
LONG = tap.number("LONG", 0)
MOVES = tap.number("MOVES", 20 if LONG else 3) # of each member
PYTHON = ["/usr/bin/python3"]


def address(rank):
    return f"100.64.0.{rank + 1}"


class Member:
    """One program, which is a member of the job."""

    def __init__(self, job, rank, words, stdin=subprocess.DEVNULL, text=True, user=None, sockets="--sockets"):
        """user: whose job it is, as subprocess has it, if not ours. sockets: which of its sockets are virtual, an option of msrun's."""
        options = ["--job", job, "--host", ",".join(HOSTS)] if rank == 0 else \
            ["--join", job, "--rank", str(rank), "--host", HOSTS[rank % 3]]
        self.job, self.rank, self.at = job, rank, rank % 3
        self.options = {"env": ENV, "cwd": TOP, **(user or {})}
        with open(os.path.join(TOP, f"{job}.{rank}.err"), "wb") as err:
            self.process = subprocess.Popen([launch.program("msrun"), sockets, *options, "--", *words], stdin=stdin,
                                            stdout=subprocess.PIPE, stderr=err, text=text, **self.options)

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def move(self, via="auto", options=()):
        """To the next host: (exit status, what msrank-move said). options: more of msrank-move's."""
        host = HOSTS[(self.at + 1) % 3]
        done = subprocess.run([launch.program("msrank-move"), "--job", self.job, "--via", via, *options, str(self.rank), host], check=False,
                              capture_output=True, text=True, timeout=2 * launch.LIMIT_S, **self.options)
        if done.returncode == 0:
            self.at = (self.at + 1) % 3
        return done.returncode, done.stdout + done.stderr

    def is_member(self):
        """True as soon as it can be moved, which it is."""
        said = []

        def moved():
            status, text = self.move()
            said.append(text)
            return status == 0

        good = tap.until(lambda: moved() or not self.runs(), launch.LIMIT_S) and self.runs()
        if not good:
            tap.note(f"{len(said)} attempts: {sorted(set(said))}")
        return good

    def runs(self):
        return self.process.poll() is None

    def complaints(self):
        with open(os.path.join(TOP, f"{self.job}.{self.rank}.err"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait(self, limit_s=launch.LIMIT_S):
        """(exit status, the rest of its output)"""
        try:
            out = self.process.communicate(timeout=limit_s)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "timeout", self.process.communicate()[0]
        return self.process.returncode, out

    def stop(self):
        """Ended by SIGTERM, and gone: whoever else is told to end is told later."""
        self.process.terminate()
        return self.wait()


class Progress:
    """The numbers that a program says."""

    def __init__(self, member):
        os.set_blocking(member.process.stdout.fileno(), False)
        self.member, self.number, self.text = member, 0, ""

    def look(self):
        try:
            self.text += os.read(self.member.process.stdout.fileno(), 1 << 20).decode()
        except BlockingIOError:
            pass
        return self.count()

    def count(self, more=""):
        *lines, self.text = (self.text + more).split("\n")
        self.number = int(lines[-1]) if lines else self.number
        return self.number

    def grows(self):
        before = self.look()
        return tap.until(lambda: self.look() > before or not self.member.runs(), launch.LIMIT_S) and self.member.runs()


def move_all(name, members, goes_on):
    """Each is moved MOVES times, in turn; after each move it goes on."""
    failed = []
    for number in range(MOVES):
        for member in members:
            via = ("auto", "drain", "mirror")[number % 3]
            status, said = member.move(via)
            if status or not goes_on():
                failed.append((member.rank, via, status, said))
                if not all(other.runs() for other in members):
                    break
    return tap.equal(failed, [], f"{name}: {MOVES * len(members)} moves, and it goes on after each")


def big_file(name, size):
    """Bytes that repeat nowhere near; their sha256."""
    digest, block = hashlib.sha256(), os.urandom(1 << 20)
    with open(os.path.join(TOP, name), "wb") as file:
        for number in range(size >> 20):
            piece = number.to_bytes(8, "little") + block[number % 4096:] + block[:number % 4096]
            digest.update(piece[:1 << 20])
            file.write(piece[:1 << 20])
    return digest.hexdigest()


def read_digest(file):
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def move_until(members, done):
    """Moves in turn while the work goes on: how many succeeded, what the others said."""
    moves, failed = 0, []
    while not done() and moves < MOVES * len(members):
        member = members[moves % len(members)]
        status, said = member.move(("auto", "mirror")[moves // 2 % 2])
        if status == 0:
            moves += 1
        elif not done():
            failed.append(said)
            break
    return moves, failed


# server: still runs; moves: that were made; status and report: of the client; silent: when a second began that brought nothing.
Measured = collections.namedtuple("Measured", "server moves status out report silent")


def iperf(name, seconds, options, member=Member):
    """iperf3 for so many seconds, its client and its server moved MOVES times each meanwhile. member: makes a Member."""
    server = member(name, 0, ["iperf3", "-s", "-p", "8000"])
    tap.ok(server.is_member(), f"{name}: the server is a member")
    client = member(name, 1, ["iperf3", "-c", address(0), "-p", "8000", "-t", str(seconds), "-J", *options])
    tap.ok(client.is_member(), f"{name}: the client is a member")
    moves, failed = move_until([client, server], lambda: not client.runs())
    tap.equal((moves, failed), (2 * MOVES, []), f"{name}: {moves} moves while it measures")
    status, out = client.wait(seconds + launch.LIMIT_S)
    report = json.loads(out) if status == 0 else {}
    silent = [interval["sum"]["start"] for interval in report.get("intervals", []) if interval["sum"]["bytes"] == 0]
    return Measured(server, moves, status, out, report, silent)


def end_all(name, members):
    """They still run, and have not complained. What they say when the others are gone is not asked."""
    running = [member.runs() for member in members]
    errors = [member.complaints() for member in members]
    for member in members:
        member.stop()
    return tap.ok(all(running) and not any(errors), f"{name}: all run on, no complaint", (running, errors))


def run(tests):
    """The tests of a file, {name: (function, the programs that it needs)}; MSOCK_TEST_ONLY names some."""
    only = os.environ.get("MSOCK_TEST_ONLY", "").split()
    for name, (function, needed) in tests.items():
        missing = [word for word in needed.split() if not shutil.which(word)]
        if only and name not in only:
            continue
        if missing:
            tap.skip(name, f"{' '.join(missing)}: not installed")
        else:
            function()


def close():
    launch.kill_children()
    shutil.rmtree(TOP, ignore_errors=True)
