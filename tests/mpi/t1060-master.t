#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""msgstorm on 6 ranks goes on while the address server is killed again and again and ranks move."""
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 6
MOVES = tap.number("MOVES", 50 if jobs.LONG else 5)
KILLS = 3


def masters():
    return [pid for pid in jobs.descendants() if jobs.describe(pid).split(" ")[0].endswith("/msmaster")]


class Killer(threading.Thread):
    """Kills the address server at random times; one that is killed is never the same again."""

    def __init__(self, rng):
        super().__init__()
        self.rng, self.over, self.killed = rng, threading.Event(), set()

    def run(self):
        while not self.over.wait(self.rng.uniform(0, 0.3)):
            for pid in set(masters()) - self.killed:
                try:
                    os.kill(pid, signal.SIGKILL)
                    self.killed.add(pid)
                except ProcessLookupError:
                    pass  # the job has ended


def run(place, rounds, rng):
    job = jobs.Job(place, [jobs.program("msgstorm"), str(rounds), "65536", "7"], RANKS)
    killer = Killer(rng)
    killer.start()  # from the start: ranks join and find each other meanwhile
    mover = jobs.Mover(job, RANKS, rng, pause=0.1)
    if job.wait_line("^msgstorm:"):
        mover.run(MOVES)
        while len(killer.killed) < KILLS and not mover.failures and mover.one():
            pass
    status = job.wait()
    killer.over.set()
    killer.join()
    return job, mover, killer, status


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.User):
        rounds = 300
        while True:
            job, mover, killer, status = run(place, rounds, rng)
            if status != 0 or mover.failures or (mover.done >= MOVES and len(killer.killed) >= KILLS):
                break
            tap.note(f"{rounds} rounds were over after {mover.done} moves; once more with more of them")
            rounds *= 3
        tap.equal(mover.failures, [], f"{MOVES} moves or more committed")
        jobs.job_ended(job, status, what="msgstorm")
        tap.ok(job.checksum().isalnum(), "every byte was right", job.story())
        tap.equal(job.err, [], "nothing on stderr")
        tap.ok(len(killer.killed) >= KILLS, f"the address server was killed {KILLS} times or more", killer.killed)
        tap.note(f"killed {len(killer.killed)} times")
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
