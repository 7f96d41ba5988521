#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The address server is killed, again and again: it comes back, knows what it knew, and who asked meanwhile gets an answer."""
import errno
import os
import select
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
WAIT_S = 20
KILLS = 10
SHORT_S = 0.3  # what shall not happen is given so long to happen


class Rank:
    """A knock under a stub; its answers line by line."""
    count = 0

    def __init__(self, job, what, host):
        self.number = Rank.count
        Rank.count += 1
        self.child = job.stub(self.number, [launch.program("tests/msock/knock"), what], host, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
        os.set_blocking(self.child.stdout.fileno(), False)
        self.said = b""

    def line(self, seconds=WAIT_S):
        """The next line, None if none comes in time."""
        end = launch.time.monotonic() + seconds
        while b"\n" not in self.said:
            left = end - launch.time.monotonic()
            if left <= 0 or not select.select([self.child.stdout], [], [], left)[0]:
                return None
            more = self.child.stdout.read()
            if not more:
                return None
            self.said += more
        line, self.said = self.said.split(b"\n", 1)
        return line.decode()

    def ask(self, address):
        self.child.stdin.write(f"{address}\n".encode())
        self.child.stdin.flush()

    def call(self, address):
        self.ask(address)
        return self.line()


def server(job, host):
    rank = Rank(job, "serve", host)
    rank.address = rank.line()
    return rank


def caller(job, host):
    rank = Rank(job, "call", host)
    return rank if rank.line() == "up" else None


def master(others=()):
    """The address server's pid, once there is one that is not among the others."""
    return tap.until(lambda: next((pid for pid in launch.named("msmaster") if pid not in others), None), WAIT_S)


def stopped():
    pid = master()
    os.kill(pid, signal.SIGSTOP)
    return pid


def killed(pid):
    os.kill(pid, signal.SIGKILL)


def waits(job, calls):
    """What is asked of an address server that says nothing waits, and is answered by the next one."""
    early = server(job, HOSTS[0])
    tap.equal(calls.call(early.address), "ok", "a connection while the address server lives")
    second = server(job, HOSTS[0])
    pid = stopped()
    calls.ask(second.address)
    late = Rank(job, "serve", HOSTS[2])
    tap.equal((calls.line(SHORT_S), late.line(SHORT_S)), (None, None), "a name asked for and a member that joins: both wait")
    tap.equal(job.tool("msrank-move", str(early.number), HOSTS[1])[0], 0, "a member moves meanwhile")
    killed(pid)
    tap.equal(calls.line(), "ok", "the address server is killed: the connection is made")
    late.address = late.line()
    tap.ok(late.address, "and the member has joined")
    tap.ok(master({pid}), "another one runs")
    other = caller(job, HOSTS[2])
    for title, rank in (("the one that moved", early), ("the one that joined", late), ("one from before", second)):
        tap.equal(other.call(rank.address), "ok", f"by a caller that knows nothing yet: {title}")
    tap.equal(calls.call(early.address), "ok", "by a caller that knows an old place")
    return [early, second, late]


def ends(job, calls):
    """A member that ended while nobody kept its name is not there afterwards."""
    gone = server(job, HOSTS[1])
    pid = stopped()
    gone.child.kill()
    gone.child.wait()
    killed(pid)
    tap.equal(calls.call(gone.address), f"errno {errno.ECONNREFUSED}", "a member that ended meanwhile: connection refused")
    tap.equal(calls.call("100.64.200.1 1024"), f"errno {errno.ECONNREFUSED}", "an address that nobody has: connection refused")


def storm(job, servers, rng):
    """Kills at any time, while fresh callers look up names and servers move."""
    over = threading.Event()
    kills = []

    def killer():
        while not over.wait(rng.uniform(0, 0.2)):
            pid = master(kills)
            if pid:
                killed(pid)
                kills.append(pid)

    thread = threading.Thread(target=killer)
    thread.start()
    answers, moves = [], []
    try:
        turn, end = 0, launch.time.monotonic() + launch.LIMIT_S
        while (turn < 6 or len(kills) < KILLS) and launch.time.monotonic() < end:
            fresh = caller(job, HOSTS[turn % 3])
            answers += [fresh and fresh.call(rank.address) for rank in servers]
            if turn % 2 == 0:
                rank = servers[turn // 2 % len(servers)]
                here = job.ps()[rank.number]["host"]
                moves.append(job.tool("msrank-move", str(rank.number), HOSTS[(HOSTS.index(here) + 1) % 3])[0])
                answers.append(fresh and fresh.call(rank.address))
            fresh.child.stdin.close()
            fresh.child.wait(WAIT_S)
            turn += 1
    finally:
        over.set()
        thread.join()
    tap.equal(set(answers), {"ok"}, f"{len(answers)} connections")
    tap.equal(set(moves), {0}, f"{len(moves)} moves")
    tap.ok(len(kills) >= KILLS, f"while the address server was killed {KILLS} times or more", len(kills))


def test():
    rng = tap.seed()
    job = launch.Launch(HOSTS, err=subprocess.PIPE)
    tap.ok(job.said.startswith("ready "), "the coordinator is ready", job.said)
    calls = caller(job, HOSTS[1])
    servers = waits(job, calls)
    ends(job, calls)
    storm(job, servers, rng)
    tap.equal(job.end(), 0, "the job ends")
    tap.equal(job.coord.stderr.read(), b"", "nothing on stderr")
    tap.equal(job.leftovers(), [], "no process and no file is left")
    job.close()


tap.main(test)
