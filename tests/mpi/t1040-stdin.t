#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""10 MB piped to mpiexec reach rank 0 whole while rank 0 moves in the middle."""
import os
import subprocess
import sys
import threading
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

BYTES = 10 * 1000 * 1000
MIDDLE, LAST, PIECE = 4 << 20, 1 << 20, 50000


def in_place(place, rng):
    data = rng.randbytes(BYTES)
    job = jobs.Job(place, [jobs.program("swallow")], 3, stdin=subprocess.PIPE, seconds=120)
    pipe = job.child.stdin.buffer

    moved = threading.Event()

    def feed():
        """The second half comes in small pieces, the last of them after the move."""
        for start in range(MIDDLE, BYTES, PIECE):
            if start > BYTES - LAST:
                moved.wait(60)
            pipe.write(data[start:start + PIECE])
            pipe.flush()
            moved.wait(0.005)
        pipe.close()

    pipe.write(data[:MIDDLE])
    tap.ok(job.wait_line("^MiB 2$"), f"{place.name}: rank 0 reads", job.story())
    rest = threading.Thread(target=feed, daemon=True)
    rest.start()
    status, reports, err = job.move(0, place.hosts[1])
    tap.ok(status == 0, f"{place.name}: rank 0 has moved", f"{status} {reports} {err}")
    moved.set()
    for report in reports:
        tap.note(jobs.report_line(report))
    jobs.job_ended(job, job.wait(), what=f"{place.name}: the job")
    rest.join(5)
    tap.equal(job.out[-1:], [f"bytes {BYTES} crc {zlib.crc32(data):08x}"], f"{place.name}: every byte came")
    tap.equal([line for line in job.out if line.startswith("MiB")], [f"MiB {n}" for n in range(1, (BYTES >> 20) + 1)],
              f"{place.name}: rank 0's lines came once and in order")
    tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.Lab, jobs.User):
        in_place(place, rng)


tap.main(test)
