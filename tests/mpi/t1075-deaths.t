#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Each process of a job is killed, and each host's link cut, with no move under way, before the freeze of one and at any moment of
it: the job goes on, or ends with a word about the cause, as the table of doc/failures.md says; and nothing is left.

By default the processes of a job on this machine, with no move under way and before the freeze; in check-long all moments, and in
the lab ssh, links and hosts. MSOCK_TEST_ROUNDS: so many times; MSOCK_TEST_CELL: only titles in which this is found, a regular
expression."""
import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import clusters  # noqa: E402
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 3  # one on each of the first three hosts; rank 1 moves to the fourth
ROUNDS = tap.number("ROUNDS", 1)
ONLY = os.environ.get("MSOCK_TEST_CELL", "")
GAP = re.compile(r"back in (\d+) s$")  # a link that comes back: less than the 15 s after which a host is lost
TCP_RTO_MAX_MS = 44  # Linux 6.15: TCP tries often enough for a link that comes back late
SHELL_S = 4  # a daemon without its remote shell has 3 s to say that it lives
SHM = "/dev/shm"

IDLE, HELD, ANY = "no move", "before the freeze", "at any moment of the move"

# on: does the job go on? A role: if it does not, that host had the rank by the record, and is named. words: one of them is on
# mpiexec's stderr. statuses: of msrank-move.
Outcome = collections.namedtuple("Outcome", "on words statuses", defaults=(None, ()))
GOES_ON = Outcome(True)
SAID_WHY = Outcome(True, None, (1,))
MOVED = Outcome(True, None, (0,))
COORDINATOR_GONE = ("killed a second time", "the job's coordinator is gone")  # mpiexec may see the proxies' end first

PROCESSES = {
    IDLE: {
        "address server": GOES_ON,
        "target's daemon": GOES_ON,
        "source's daemon": Outcome(False, ("source",)),
        "coordinator": GOES_ON,
        "coordinator, twice": Outcome(False, COORDINATOR_GONE),
        "stub of the rank": Outcome(False, ("BAD TERMINATION", "KILLED BY SIGNAL")),
        "proxy": Outcome(False),
        "mpiexec": Outcome(False),
    },
    HELD: {
        "msrank-move": Outcome(True, None, (-9,)),
        "address server": MOVED,
        "target's daemon": SAID_WHY,
        "source's daemon": Outcome(False, ("source",), (1,)),
        "another daemon": Outcome(False, ("another",), (0, 1)),
        "coordinator": MOVED,
        "coordinator, twice": Outcome(False, COORDINATOR_GONE, (1,)),
        "stub of the rank": Outcome(False, ("BAD TERMINATION", "KILLED BY SIGNAL"), (1,)),
        "proxy": Outcome(False, None, (0, 1)),
        "mpiexec": Outcome(False, None, (0, 1)),
    },
    ANY: {
        "msrank-move": Outcome(True, None, (0, -9)),
        "address server": MOVED,
        "target's daemon": Outcome("target", None, (0, 1)),
        "stub of the rank": Outcome(False, ("BAD TERMINATION", "KILLED BY SIGNAL"), (0, 1)),
        "source's daemon": Outcome("source", None, (0, 1)),
        "coordinator": MOVED,
        "coordinator, twice": Outcome(False, COORDINATOR_GONE, (0, 1)),
    },
}
SSH = {
    IDLE: {"ssh to the source": GOES_ON, "ssh to the target": GOES_ON, "coordinator over ssh": GOES_ON},
    HELD: {"ssh to the source": MOVED, "ssh to the target": MOVED, "coordinator over ssh": MOVED},
    ANY: {"ssh to the source": MOVED, "ssh to the target": MOVED, "coordinator over ssh": MOVED},
}
LATE = "link of the source, back in 13 s"
LINKS = {
    IDLE: {
        "link of the source": Outcome(False, ("source",)),
        "link of the target": GOES_ON,
        "link of the source, back in 5 s": GOES_ON,
        "link of the target, back in 5 s": GOES_ON,
        LATE: GOES_ON,
        "link of the target, back when it is lost": GOES_ON,
        "link of the launch host": Outcome(False, ("is lost with its host",)),
        "host of the rank": Outcome(False, ("source",)),
        "host without ranks": GOES_ON,
        "launch host": Outcome(False),
    },
    HELD: {
        "link of the source": Outcome(False, ("source",), (1,)),
        "link of the target": SAID_WHY,
        "link of another host": Outcome(False, ("another",), (0, 1)),
        "link of the source, back in 5 s": MOVED,
        "link of the target, back in 5 s": MOVED,
        "link of another host, back in 5 s": MOVED,
        "link of the launch host": Outcome(False, ("is lost with its host",), (1,)),
        "host of the rank": Outcome(False, ("source",), (1,)),
        "host without ranks": SAID_WHY,
    },
    ANY: {
        "link of the source": Outcome("source", None, (0, 1)),
        "link of the target": Outcome("target", None, (0, 1)),
        "link of the source, back in 5 s": MOVED,
        "link of the target, back in 5 s": MOVED,
    },
}


class Watched(jobs.User):
    """The ordinary user's place; $TMPDIR and shared memory are looked at too."""
    hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]

    def __init__(self):
        self.tmp = None
        super().__init__()
        self.call(["mkdir", os.path.join(self.shared, "tmp")])
        self.tmp = os.path.join(self.shared, "tmp")
        self.shm = set(os.listdir(SHM))

    def environment(self):
        return {**super().environment(), **({"TMPDIR": self.tmp} if self.tmp else {})}

    def leftovers(self):
        tmp = [os.path.join(where, name) for where, dirs, names in os.walk(self.tmp) for name in dirs + names]
        return super().leftovers() + tmp + sorted(set(os.listdir(SHM)) - self.shm)


class Lab(jobs.Lab):
    """Hosts with links."""

    def __init__(self):
        super().__init__(4)


class OpenSsh(clusters.SshLab):
    """Hosts that are reached by OpenSSH."""

    def __init__(self):
        super().__init__(4)


def environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


class Scene:
    """One job, one blow."""

    def __init__(self, place, victim, moment, outcome, number):
        self.place, self.victim, self.moment, self.outcome = place, victim, moment, outcome
        self.title = f"{victim}, {moment}"
        self.roles = {"another": place.hosts[0], "source": place.hosts[1], "target": place.hosts[3], "launch": "h0"}
        self.program = jobs.program("exchange")
        self.stop = os.path.join(place.shared, f"stop-{number}")
        self.job = jobs.Job(place, [self.program, "65536", self.stop], RANKS, hosts=place.hosts, seconds=150)
        self.mover, self.healer, self.cut_s = None, None, 0.0
        gap = GAP.search(victim)
        self.gap = int(gap.group(1)) if gap else 0

    def ok(self, good, what, detail=None):
        return tap.ok(good, f"{self.title}: {what}", detail)

    def host(self):
        """Whose link, host, daemon or ssh it is."""
        for word, role in (("source", "source"), ("of the rank", "source"), ("target", "target"), ("without ranks", "target"),
                           ("another", "another"), ("launch host", "launch")):
            if word in self.victim:
                return self.roles[role]
        return None

    def is_victim(self, pid):
        words = jobs.describe(pid).split(" ")
        name = os.path.basename(words[0])
        if self.victim.startswith("coordinator"):
            return name == "msrank-coord"
        if self.victim.startswith("ssh"):
            return name == "ssh" and self.host() in words
        if self.victim.endswith("daemon"):
            return name == "msdaemon" and self.host() in words
        if self.victim == "stub of the rank":
            return name == "msrank-stub" and b"PMI_RANK=1" in environment(pid)
        return name == {"address server": "msmaster", "proxy": "hydra_pmi_proxy"}[self.victim]

    def find(self):
        """The victim's pid."""
        if self.victim == "msrank-move":
            return self.mover.pid
        if self.victim == "mpiexec":
            return self.job.child.pid
        return next(filter(self.is_victim, jobs.descendants()), None)

    def kill(self):
        try:
            pid = self.find()
            os.kill(pid, signal.SIGKILL)
            return pid
        except (ProcessLookupError, TypeError):
            return None

    def strike(self):
        """The blow; true if it fell."""
        if self.victim.startswith("link"):
            self.place.lab("cut", self.host())
            if self.gap:
                self.healer = threading.Timer(self.gap, self.heal, (time.monotonic(),))
                self.healer.start()
            return True
        if "host" in self.victim:
            self.place.off(self.host())
            return True
        first = self.kill()
        if not first or self.victim != "coordinator, twice":
            return first
        # msrank-ps waits for the next one
        return tap.until(self.job.ps, 30) and tap.until(lambda: self.find() not in (None, first) and self.kill(), 10)

    def heal(self, began):
        self.place.lab("heal", self.host())
        self.cut_s = time.monotonic() - began

    def peer(self):
        """The process of rank 0, with which rank 1 talks."""
        return next(pid for pid in jobs.descendants() if jobs.describe(pid).split(" ")[0] == self.program
                    and b"PMI_RANK=0" in environment(pid))

    def move(self, rng):
        """Have rank 1 move and strike meanwhile; held: a peer is stopped, so that it does not come to the freeze."""
        peer = self.peer()
        if self.moment == HELD:
            os.kill(peer, signal.SIGSTOP)
        self.mover = self.place.start([jobs.command("msrank-move"), "--json=events", "--via", "drain", "1", self.roles["target"]],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun = any(json.loads(line).get("step") == "begun" for line in iter(self.mover.stdout.readline, ""))
        if self.moment == ANY:
            pause = rng.uniform(0, 0.15)
            tap.note(f"{1000 * pause:.0f} ms after the move has begun")
            threading.Event().wait(pause)
        self.ok(begun and self.strike(), "it is struck while rank 1 moves", f"{self.mover.poll()}\n{self.job.story()}")
        try:
            os.kill(peer, signal.SIGCONT)
        except ProcessLookupError:
            pass
        try:
            _, err = self.mover.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            jobs.end_group(self.mover)
            _, err = self.mover.communicate()
        status = self.mover.returncode
        self.ok(status in self.outcome.statuses and (status != 1 or err.count("\n") == 1), "msrank-move ends, and says why in one line",
                f"{status}, wanted {self.outcome.statuses}: {err}")

    def goes_on(self):
        seen = sum(1 for line in self.job.out if line.startswith("rank 1:"))
        return self.job.wait_line("^rank 1:", count=seen + 3, seconds=60)

    def lost(self):
        """Hosts that the job has lost."""
        return [host["host"] for host in self.hosts() if not host["up"]]

    def settled(self):
        """What becomes of the host is seen: one that is cut off is lost in 15 s."""
        ended = lambda: self.job.child.poll() is not None
        if self.victim.startswith("ssh"):
            self.ok(not tap.until(self.lost, SHELL_S, 0.2), "no host is lost", self.hosts())
        elif self.host() and not self.gap:
            self.ok(tap.until(lambda: self.lost() == [self.host()] or ended(), 40, 0.2), "its host is lost", self.hosts())

    def comes_back(self):
        """The target's link, when the host has been lost: a move there starts its daemon anew."""
        self.place.lab("heal", self.roles["target"])
        status, reports, err = self.job.move(1, self.roles["target"])
        self.ok(status == 0 and reports[0]["committed"], "a move there brings it back", f"{status} {reports} {err}")

    def hosts(self):
        status, out, _ = self.place.call([jobs.command("msrank-ps"), "--json"], 20)
        return json.loads(out)["hosts"] if status == 0 else []

    def ends(self, words):
        status = self.job.wait()
        text = "\n".join(self.job.err + self.job.out)
        words = [self.roles.get(word, word) for word in words or ()]
        self.ok(status not in (0, "timeout") and (not words or any(word in text for word in words)),
                "the job ends with a word about it", f"{status}, wanted {words}\n{self.job.story()}")

    def judge(self):
        on, words = self.outcome.on, self.outcome.words
        if on:
            self.settled()
        lives = self.goes_on() if on else False
        if on not in (True, False) and not lives:
            on, words = False, (on,)
        if not on:
            self.ends(words)
            return
        self.ok(lives, "the job goes on", f"cut for {self.cut_s:.1f} s\n{self.job.story()}")
        if self.victim.endswith("when it is lost"):
            self.comes_back()
        open(self.stop, "w", encoding="ascii").close()
        self.ok(self.job.wait() == 0, "and ends well", self.job.story())

    def clean(self):
        """A host that is cut off needs 30 s to know; one whose link comes back is asked when it has."""
        if self.healer:
            self.healer.join()
        cut = self.victim.startswith("link") or self.victim == "launch host"
        left = tap.until(lambda: not self.place.leftovers(), 60 if cut else 10, 0.5) or self.place.leftovers()
        self.ok(left is True, "nothing is left", left)

    def play(self, rng):
        if not self.ok(self.job.wait_line("^rank 1: round 2 "), "the job runs", self.job.story()):
            self.job.kill()
            return
        if self.moment == IDLE:
            self.ok(self.strike(), "it is struck", self.job.story())
        else:
            self.move(rng)
        self.judge()
        self.clean()


def perform(kind, tables, moments, rng):
    """All scenes of some tables in a place, which is made anew when a host is off or cut off."""
    place = None
    try:
        for number, (moment, victim) in enumerate((moment, victim) for moment in moments for victim in tables[moment]):
            if not re.search(ONLY, f"{victim}, {moment}"):
                continue
            place = place or kind()
            Scene(place, victim, moment, tables[moment][victim], number).play(rng)
            if "link" in victim or "host" in victim:
                place.close()
                place = None
    finally:
        if place:
            place.close()


def tries_often():
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 1000)
        except OSError:
            return False
    return True


def test():
    if not tries_often():
        del LINKS[IDLE][LATE]
    rng = tap.seed()
    for _ in range(ROUNDS):
        perform(Watched, PROCESSES, (IDLE, HELD, ANY) if jobs.LONG else (IDLE, HELD), rng)
        if not jobs.LONG:
            continue
        if os.geteuid() != 0:
            tap.skip("ssh, links and hosts", "the lab needs root")
            continue
        if clusters.missing(*clusters.SshLab.needs):
            tap.skip("ssh", f"not installed: {' '.join(clusters.missing(*clusters.SshLab.needs))}")
        else:
            perform(OpenSsh, SSH, (IDLE, HELD, ANY), rng)
        perform(Lab, LINKS, (IDLE, HELD, ANY), rng)


tap.main(test)
