#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
The coordinator is killed while msgstorm runs on 6 ranks and ranks move: no byte is wrong, no move is done by halves, nobody says a word.
The second one is killed too: the job ends, and mpiexec names the cause also when all of it has happened before it looks.
A tool that reaches the one that is just ending asks again.
"""
import json
import os
import shutil
import signal
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 6
JOBS = tap.number("JOBS", 30 if jobs.LONG else 3)
MOVES = tap.number("MOVES", 4)
SPAN_S = 2.0  # from the start of the first stub: ranks start, find each other, talk and move


def named(name):
    return [pid for pid in jobs.descendants() if jobs.describe(pid).split(" ")[0].endswith("/" + name)]


class Killer(threading.Thread):
    """Kills the coordinator once, at a random moment."""

    def __init__(self, rng):
        super().__init__()
        self.pause, self.killed = rng.uniform(0, SPAN_S), False

    def run(self):
        tap.until(lambda: named("msrank-stub"), 30)  # before, mpiexec has not heard that it is ready
        threading.Event().wait(self.pause)
        for pid in named("msrank-coord"):
            os.kill(pid, signal.SIGKILL)
            self.killed = True


def one(place, number, rounds, rng):
    """True if the coordinator was killed while the job ran."""
    job = jobs.Job(place, [jobs.program("msgstorm"), str(rounds), "65536", "7"], RANKS)
    killer = Killer(rng)
    killer.start()
    mover = jobs.Mover(job, RANKS, rng, vias=("auto", "drain", "mirror"), pause=0.1)
    if job.wait_line("^msgstorm:"):
        mover.run(MOVES)
    killer.join()
    status = job.wait()
    title = f"job {number}, {killer.pause:.3f} s after the first stub, {mover.done} moves"
    tap.equal(mover.failures, [], f"{title}: all moves committed")
    jobs.job_ended(job, status, what=title)
    tap.ok(job.checksum().isalnum(), f"{title}: every byte was right", job.story())
    tap.equal(job.err, [], f"{title}: nothing on stderr")
    tap.equal(place.leftovers(), [], f"{title}: nothing is left")
    return killer.killed


def kill_new(job, before):
    """Kills the coordinator that answers now, if it is not one of those before."""
    known = tap.until(job.ps, 30) and [pid for pid in named("msrank-coord") if pid not in before]
    for pid in known:
        os.kill(pid, signal.SIGKILL)
    return known


def endless(place):
    """(A job that somebody must end, has it begun)"""
    job = jobs.Job(place, [jobs.program("msgstorm"), "1000000", "65536", "7"], RANKS)
    return job, job.wait_line("^msgstorm:")


def deaf(place):
    """What a tool sends first is lost twice, as when who listens is just ending."""
    if not shutil.which("strace"):
        tap.skip("a tool asks again", "not installed: strace")
        return
    job, begun = endless(place)
    trace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", "inject=sendto:error=EPIPE:when=1..2"]
    status, out, err = place.call([*trace, jobs.command("msrank-ps"), "--json"], 30)
    tap.equal((begun, status, err, len(json.loads(out)["ranks"]) if out else out), (True, 0, "", RANKS), "a tool asks again")
    job.interrupt()
    job.wait()
    tap.equal(place.leftovers(), [], "a tool asks again: nothing is left")


def twice(place):
    """mpiexec stands still when the second one is killed, until its proxies have seen their stubs end."""
    job, begun = endless(place)
    first = kill_new(job, [])
    tap.until(lambda: set(named("msrank-coord")) - set(first), 10)
    mpiexec = next(pid for pid in jobs.descendants() if jobs.describe(pid).split(" ")[0].endswith("mpiexec"))
    ready = tap.until(job.ps, 30)
    os.kill(mpiexec, signal.SIGSTOP)
    second = kill_new(job, first)
    stubs = not tap.until(lambda: not named("msrank-stub"), 30)
    os.kill(mpiexec, signal.SIGCONT)
    status = job.wait()
    tap.ok(begun and first and ready and second and not stubs, "twice: the second one is killed while mpiexec stands still", (first, second, job.story()))
    tap.ok(status not in (0, "timeout"), "twice: the job ends", job.story())
    tap.equal([line for line in job.err if "was killed a second time" in line], ["mpiexec: the job's coordinator was killed a second time: the job ends"],
              "twice: mpiexec says why")
    tap.equal(place.leftovers(), [], "twice: nothing is left")


def test():
    rng = tap.seed()
    rounds = 200
    for place in jobs.places(jobs.User):
        killed = 0
        for number in range(JOBS):
            hit = one(place, number, rounds, rng)
            killed += hit
            rounds *= 1 if hit else 2  # it was over too early
        tap.ok(killed > 0, "the coordinator was killed", killed)
        tap.note(f"killed in {killed} of {JOBS} jobs")
        deaf(place)
        twice(place)


tap.main(test)
