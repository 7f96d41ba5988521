#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""heat2d on 4 ranks with random moves ends with the checksum of the unmoved run (5 moves; 20 in check-long; MSOCK_TEST_MOVES)."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS, SIDE = 4, 384
MOVES = tap.number("MOVES", 20 if jobs.LONG else 5)


def run(place, steps, moves, rng):
    """One run; None when it was over before all moves were made."""
    job = jobs.Job(place, [jobs.program("heat2d"), str(SIDE), str(steps)], RANKS)
    mover = jobs.Mover(job, RANKS, rng)
    if moves and job.wait_line("^heat2d:"):
        mover.run(moves)
    status = job.wait()
    if status == 0 and moves and mover.done < moves and not mover.failures:
        return None, None, None
    return job, mover, status


def in_place(place, rng):
    steps = 2000
    while True:
        still, _, status = run(place, steps, 0, rng)
        if status == 0 and still.seconds < 1 + 0.4 * MOVES:
            steps *= 2
            continue
        if not jobs.job_ended(still, status, what=f"{place.name}: the unmoved run"):
            return
        moved, mover, status = run(place, steps, MOVES, rng)
        if moved is not None:
            break
        tap.note(f"{steps} steps were over before {MOVES} moves were made; once more with twice as many")
        steps *= 2
    tap.note(f"{steps} steps: {still.seconds:.1f} s unmoved, {moved.seconds:.1f} s with {mover.done} moves")
    tap.equal(mover.failures, [], f"{place.name}: {MOVES} moves committed")
    jobs.job_ended(moved, status, what=f"{place.name}: the moved run")
    tap.equal(moved.checksum(), still.checksum(), f"{place.name}: the checksum is that of the unmoved run")
    tap.equal(moved.by_rank(), still.by_rank(), f"{place.name}: each rank's lines come once and in order")
    tap.equal(moved.err, [], f"{place.name}: nothing on stderr")
    tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.Lab, jobs.User):
        in_place(place, rng)


tap.main(test)
