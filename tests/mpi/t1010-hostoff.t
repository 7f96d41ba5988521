#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A host that a rank has left can be switched off: rank 2 leaves h2 while 8 MB messages go in both directions."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS, BYTES = 4, 8 << 20
# host of each rank: rank 2 is alone on h2
PLACEMENT = ["h1", "h3", "h2", "h4"]


def lines_right(job):
    """Each rank's rounds, 1 to the same last one; nothing else but rank 0's last line."""
    rounds = {}
    for line in job.out:
        match = re.fullmatch(r"rank (\d+): round (\d+) right", line)
        if match:
            rounds.setdefault(int(match.group(1)), []).append(int(match.group(2)))
    last = max((len(r) for r in rounds.values()), default=0)
    tap.equal(rounds, {rank: list(range(1, last + 1)) for rank in range(RANKS)}, "every line of every rank came once and in order")
    end = f"exchanged {RANKS * 2 * BYTES * last} bytes in {last} rounds"
    tap.equal([line for line in job.out if "round " not in line], [end], "and the result is right")


def leave(via, rng):
    place = jobs.Lab(4)
    try:
        stop = os.path.join(place.shared, "stop")
        job = jobs.Job(place, [jobs.program("exchange"), str(BYTES), stop], RANKS, hosts=PLACEMENT)
        tap.ok(job.wait_line("^rank 2: round 3 "), f"{via}: the job runs", job.story())
        job.wait_output(rng.uniform(0, 0.3))
        status, reports, err = job.move(2, "h3", "--via", via)
        if not tap.ok(status == 0 and len(reports) == 1 and reports[0]["committed"], f"{via}: rank 2 has moved", f"{status} {reports} {err}"):
            job.kill()
            return
        tap.note(jobs.report_line(reports[0]))
        if via == "drain":
            tap.equal(reports[0]["streams"]["mirrored"], 0, "drain: no stream went through a mirror")
        place.off("h2")
        seen = sum(1 for line in job.out if line.startswith("rank 2:"))
        tap.ok(job.wait_line("^rank 2:", count=seen + 3), f"{via}: the job goes on with h2 switched off", job.story())
        open(stop, "w", encoding="ascii").close()
        jobs.job_ended(job, job.wait(), what=f"{via}: the job")
        lines_right(job)
        tap.equal(place.leftovers(), [], f"{via}: nothing is left on the other hosts")
    finally:
        place.close()


def test():
    rng = tap.seed()
    for via in ("drain", "auto"):
        leave(via, rng)


if os.geteuid() != 0:
    tap.skip_all("the lab needs root")
tap.main(test)
