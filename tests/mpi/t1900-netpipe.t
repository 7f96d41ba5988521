#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""NPmpich2 of Debian's package netpipe-mpich2, unchanged, runs on our libraries from the first size to the last with
three moves in between. MSOCK_TEST_MAXBYTES limits the last size."""
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

SIZE = re.compile(r"^ *(\d+): +(\d+) bytes .* ([\d.]+) Mbps in +([\d.]+) usec$")


def sizes(lines):
    return [int(m.group(2)) for m in map(SIZE.match, lines) if m]


def run(place, netpipe, moves):
    options = ["-o", os.path.join(place.shared, "np.out")]
    if tap.number("MAXBYTES", 0):
        options += ["-u", str(tap.number("MAXBYTES", 0))]
    job = jobs.Job(place, ["-env", "LD_LIBRARY_PATH", os.path.join(jobs.PREFIX, "lib"), netpipe, *options], 2, seconds=900)
    reports = []
    for rank, host, size in moves:
        # NetPIPE's table goes to stderr
        if not tap.until(lambda: any(n >= size for n in sizes(job.err + job.out)) or job.child.poll() is not None, 300, 0.05):
            break
        status, report, err = job.move(rank, host)
        tap.ok(status == 0, f"{place.name}: rank {rank} moves to {host} after {size} bytes", f"{status} {report} {err}")
        reports += report
    for report in reports:
        tap.note(jobs.report_line(report))
    status = job.wait()
    jobs.job_ended(job, status, what=f"{place.name}: NPmpich2 with {len(moves)} moves")
    return sizes(job.err + job.out), job


def test():
    netpipe = shutil.which("NPmpich2")
    for place in jobs.places(jobs.Lab, jobs.User):
        h = place.hosts
        still, _ = run(place, netpipe, [])
        moved, job = run(place, netpipe, [(1, h[2], 64), (0, h[1], 8192), (1, h[0], 262144)])
        tap.ok(len(still) > 20 and moved == still, f"{place.name}: from the first size to the last", f"{still}\n{moved}\n{job.story()}")
        tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")


if not shutil.which("NPmpich2"):
    tap.skip_all("Debian's netpipe-mpich2 is not installed")
tap.main(test)
