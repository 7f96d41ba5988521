#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What MPI says about a rank's place (doc/mpi.md) and its moves: processor name, MPI_T, shared windows."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 2


def test():
    for place in jobs.places(jobs.User):
        stop = os.path.join(place.shared, "stop")
        hosts = place.hosts
        job = jobs.Job(place, [jobs.program("placed"), stop], RANKS)
        for rank in range(RANKS):
            tap.ok(job.wait_line(f"^rank {rank}: on {hosts[rank]}, moves 0, never stood still, shares with 1 then 1, window whole$"),
                   f"rank {rank} is where it was started", job.story())
        for count, host in enumerate((hosts[2], hosts[0], hosts[1]), 1):
            status, _, err = job.move(1, host)
            tap.ok(status == 0, f"rank 1 moves to {host}", err)
            tap.ok(job.wait_line(f"^rank 1: on {host}, moves {count}, stood still, shares with 1 then 1, window whole$"),
                   f"and says so, after {count} moves", job.story())
        open(stop, "w", encoding="ascii").close()
        jobs.job_ended(job, job.wait())
        tap.equal(sum(line.startswith("rank 0:") for line in job.out), 1, "rank 0 has stayed")
        tap.equal((job.err, place.leftovers()), ([], []), "nothing on stderr, nothing left")


tap.main(test)
