#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""msgstorm on 6 ranks under many moves in a row: no error, and no descriptor, process or file is left over
(30 moves; 200 in check-long; MSOCK_TEST_MOVES)."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 6
MOVES = tap.number("MOVES", 200 if jobs.LONG else 30)
LIMIT_S = 300 + 5 * MOVES
VIAS = ("drain", "mirror", "auto")
INIT = "msrestore-init"
SPARE = 2  # descriptors of a process that may come and go: a connection in the making
SETTLE_S = 20  # within which what the last move needed is closed


def descriptors(place):
    """Open descriptors of the job's processes: {name: counts}, over all hosts, since ranks come and go there."""
    found = {}
    if isinstance(place, jobs.Lab):
        for host in ["h0"] + place.hosts:
            for line in place.lab("ps", host).splitlines():
                name, _, count = line.split(" ", 1)[1].rsplit(" ", 2)
                found.setdefault(name, []).append(int(count))
    else:
        for pid in jobs.descendants():
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
                    found.setdefault(comm.read().strip(), []).append(len(os.listdir(f"/proc/{pid}/fd")))
            except OSError:
                pass
    return {name: sorted(counts) for name, counts in found.items()}


def grown(before, after):
    """Names whose processes have become more, or hold more descriptors. A rank that has moved has one init beside it."""
    worse = []
    for name, counts in after.items():
        old = before.get(name, [])
        if name == INIT:
            bad = len(counts) > RANKS
        else:
            bad = len(counts) > len(old) or sum(counts) > sum(old) + SPARE * len(old)
        if bad:
            worse.append(f"{name}: {old} -> {counts}")
    return worse


def rounds_for(place, seconds):
    """Rounds that take so long when nobody moves, measured."""
    job = jobs.Job(place, [jobs.program("msgstorm"), "300", "65536"], RANKS)
    jobs.job_ended(job, job.wait(), what=f"{place.name}: an unmoved run")
    return int(300 / job.seconds * seconds)


def storm(place, rng):
    rounds = rounds_for(place, 3 + 0.5 * MOVES)
    while True:
        seed = rng.randrange(1 << 32)
        job = jobs.Job(place, [jobs.program("msgstorm"), str(rounds), "65536", str(seed)], RANKS, seconds=LIMIT_S)
        tap.ok(job.wait_line("^msgstorm:"), f"{place.name}: msgstorm runs", job.story())
        mover = jobs.Mover(job, RANKS, rng, VIAS, pause=0.1)
        mover.run_all_ways()
        before = descriptors(place)
        mover.run(MOVES)
        tap.until(lambda: not grown(before, descriptors(place)), SETTLE_S, 0.1)
        after = descriptors(place)
        status = job.wait()
        if status != 0 or mover.done >= MOVES or mover.failures:
            break
        tap.note(f"{rounds} rounds were over after {mover.done} moves; once more with more of them")
        rounds = int(rounds * max(1.5, 1.5 * MOVES / (mover.done + 1)))
    tap.equal(mover.failures, [], f"{place.name}: {MOVES} moves committed")
    jobs.job_ended(job, status, what=f"{place.name}: msgstorm")
    tap.ok(job.checksum().isalnum(), f"{place.name}: every byte was right", job.story())
    tap.equal(job.err, [], f"{place.name}: nothing on stderr")
    tap.equal(grown(before, after), [], f"{place.name}: no descriptor or process too many after the moves")
    tap.equal(place.leftovers(), [], f"{place.name}: no process or file is left")
    return rounds, seed, job.checksum()


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.Lab, jobs.User):
        rounds, seed, checksum = storm(place, rng)
        if MOVES > 50:
            continue  # the ranks have checked each byte; a run of that length says no more
        job = jobs.Job(place, [jobs.program("msgstorm"), str(rounds), "65536", str(seed)], RANKS, seconds=LIMIT_S)
        job.wait()
        tap.equal(checksum, job.checksum(), f"{place.name}: the checksum is that of the unmoved run")


tap.main(test)
