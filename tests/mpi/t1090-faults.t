#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Walks the table of doc/faults.md: a process dies, or is cut off, at each step of a move; one live copy or a clean end."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 3  # one on each of the first three hosts; the fourth holds none
SHORT = ["cut@round", "cut@bagged", "die@summed", "die@checked", "die@asked", "die@left", "die@parked", "die@recorded", "die@going"]
ROW = re.compile(r"\| ([a-z-]+) \| (coordinator|source daemon|target daemon|member|restorer) \| (\w+) \| (\w+) \|$")


def table():
    """{fault: (who, outcome)} as the document has it."""
    cells = {}
    with open(os.path.join(jobs.TOP, "doc", "faults.md"), encoding="utf-8") as file:
        for line in file:
            match = ROW.match(line.strip())
            if match:
                step, who, die, cut = match.groups()
                cells[f"die@{step}"], cells[f"cut@{step}"] = (who, die), (who, cut)
    return cells


def copies(program):
    """Live processes that run the program: the ranks, wherever they are."""
    return [pid for pid in jobs.descendants() if jobs.describe(pid).split(" ")[0] == program]


class Four(jobs.User):
    hosts = [f"127.0.0.{n}" for n in range(2, 6)]


class Cell:
    """A job, and moves of its rank 1 from the second host to the fourth."""

    def __init__(self, place, number):
        self.place, self.program = place, jobs.program("exchange")
        self.stop = os.path.join(place.shared, f"stop-{number}")
        self.job = jobs.Job(place, [self.program, "65536", self.stop], RANKS, hosts=place.hosts)
        self.ready = tap.ok(self.job.wait_line("^rank 1: round 2 ", seconds=120), f"job {number} runs", self.job.story())

    def goes_on(self):
        seen = sum(1 for line in self.job.out if line.startswith("rank 1:"))
        return self.job.wait_line("^rank 1:", count=seen + 3, seconds=120)

    def one_of_each(self):
        return tap.until(lambda: len(copies(self.program)) == RANKS, 30)

    def stays(self, fault, status, reports):
        tap.ok(status == 1 and not any(r["committed"] for r in reports), f"{fault}: not moved", f"{status} {reports}")
        tap.ok(self.job.where(1) == self.place.hosts[1] and self.one_of_each() and self.goes_on(),
               f"{fault}: rank 1 goes on where it was, once", self.job.story())

    def moves(self, fault, status, reports):
        tap.ok(status == 0 and any(r["committed"] for r in reports), f"{fault}: moved", f"{status} {reports}")
        tap.ok(self.job.where(1) == self.place.hosts[3] and self.one_of_each() and self.goes_on(),
               f"{fault}: rank 1 goes on at the target, once", self.job.story())

    def ends(self, fault):
        """True when nothing of it is left."""
        status = self.job.wait()
        said = [line for line in self.job.err + self.job.out if not line.startswith("rank ")]
        tap.ok(status not in (0, "timeout") and said, f"{fault}: the job ends and says so", f"{status}\n{self.job.story()}")
        tap.equal(copies(self.program), [], f"{fault}: no rank is left")

    def finish(self, fault):
        open(self.stop, "w", encoding="ascii").close()
        jobs.job_ended(self.job, self.job.wait(), what=f"{fault}: the job")

    def walk(self, fault, outcome):
        """True if the job can be used for another cell: all hosts are there, the rank is where it was."""
        status, reports, err = self.job.move(1, self.place.hosts[3], "--via", "drain", "--timeout", "100", "--fault", fault,
                                             seconds=200)
        tap.note(f"{fault}: exit {status} {err.strip()}")
        if outcome == "one":
            outcome = "ends" if tap.until(lambda: self.job.child.poll() is not None, 5) else "moves" if status == 0 else "stays"
        if outcome == "ends":
            self.ends(fault)
        elif outcome == "moves":
            self.moves(fault, status, reports)
        else:
            self.stays(fault, status, reports)
        return outcome != "ends"


def walk(place, faults, cells):
    cell = None
    for number, fault in enumerate(faults):
        who, outcome = cells[fault]
        if not cell:
            cell = Cell(place, number)
        if not cell.ready:
            return
        alive = cell.walk(fault, outcome)
        # What hits a member's connection or a restorer leaves all hosts as they were.
        if alive and (outcome != "stays" or who not in ("member", "restorer")):
            cell.finish(fault)
            alive = False
        cell = cell if alive else None
    if cell:
        status, reports, err = cell.job.move(1, place.hosts[3], seconds=200)
        tap.ok(status == 0, "after all that it can still be moved", f"{status} {reports} {err}")
        cell.finish("at last")


def test():
    cells = table()
    tap.ok(len(cells) == 70, "the table has all steps", str(len(cells)))
    for place in jobs.places(Four):
        chosen = os.environ.get("MSOCK_TEST_FAULTS", "").split()  # to look at some of them
        walk(place, chosen or (list(cells) if jobs.LONG else SHORT), cells)
        tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")


tap.main(test)
