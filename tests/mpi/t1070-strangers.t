#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A stranger calls on every port of a job that runs and moves (200 times; 1000 in check-long): a few lines in the log is all."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "msock"))
import jobs  # noqa: E402
import launch  # noqa: E402
import strangers  # noqa: E402
import tap  # noqa: E402

RANKS = 4
MOVES = tap.number("MOVES", 50 if jobs.LONG else 4)
CALLS = 1000 if jobs.LONG else 200  # to each port
HELPERS = ("msdaemon", "msmaster", "msrank-coord")
LINE = re.compile(r"^(msdaemon|msmaster|msrank-coord): (a caller from .* was turned away|somebody called for an image|\d+ lines like)")


def ports():
    """Of msock's processes. Hydra's own port, which its children inherit, is not ours: it believes whoever calls."""
    found, hydra = {}, set()
    for pid in jobs.descendants():
        if "mpiexec" in jobs.describe(pid).split(" ")[0]:
            hydra.update(launch.listening(pid))
        else:
            found.update({port: pid for port in launch.listening(pid)})
    return {port: pid for port, pid in found.items() if port not in hydra}


def descriptors():
    """Of the job's processes that stay where they are."""
    found = {}
    for pid in jobs.descendants():
        name = os.path.basename(jobs.describe(pid).split(" ")[0])
        if name in HELPERS:
            try:
                found[pid] = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:  # a child of one, which has its name until it runs another program
                pass
    return found


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.User):
        stop = os.path.join(place.shared, "stop")
        job = jobs.Job(place, [jobs.program("exchange"), str(1 << 20), stop], RANKS)
        tap.ok(job.wait_line("round 1 right", count=RANKS), "a ring of ranks runs", job.story())
        mover = jobs.Mover(job, RANKS, rng, pause=0.1)
        mover.run(1)
        before = descriptors()
        stranger = strangers.Stranger(rng, ports, RANKS, CALLS, limit_s=jobs.LIMIT_S / 2)
        stranger.start()
        mover.run(MOVES)
        stranger.join()
        mover.run(MOVES + 1)
        # A rank that has come brings its pipes with it.
        grown = lambda: {pid: (before[pid], n) for pid, n in descriptors().items() if n > before.get(pid, n) + 12 * RANKS}
        tap.until(lambda: not grown(), 10)
        left = grown()
        with open(stop, "w", encoding="ascii"):
            pass
        status = job.wait()
        full = stranger.full()
        tap.note(f"{sum(stranger.calls.values())} calls to {len(stranger.calls)} ports, {stranger.refused} refused; "
                 f"{len(job.err)} lines of log in {job.seconds:.0f} s")
        tap.ok(len(full) >= 5, "every port of coordinator, address server and daemons had its calls", stranger.calls)
        tap.equal(mover.failures, [], f"{MOVES + 1} moves committed")
        jobs.job_ended(job, status)
        tap.equal([line for line in job.err if not LINE.match(line)], [], "nothing on stderr but that callers were turned away")
        limit = 4 * len(stranger.calls) * (2 + job.seconds / 10)
        tap.ok(0 < len(job.err) <= limit, f"in not more than {limit:.0f} lines", len(job.err))
        tap.equal(left, {}, "no descriptor of theirs is left")
        os.unlink(stop)
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
