#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The coordinator is killed while msgstorm runs on 6 ranks and ranks move: no byte is wrong, no move is done by halves, nobody says a word."""
import os
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


tap.main(test)
