# SPDX-License-Identifier: MIT
"""The tables of doc/faults.md, and one job whose rank 1 is moved while something is broken on purpose."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 3  # one on each of the first three hosts; the others hold none
ACTORS = ("coordinator", "source daemon", "target daemon", "member", "restorer")
STEPS = re.compile(r"\| ([a-z-]+) \| (" + "|".join(ACTORS) + r") \| (\w+) \| (\w+) \| (\w+) \| (\w+|-) \|$")
VICTIMS = re.compile(r"\| killed: ([a-z ]+) \| (\w+) \| (\w+) \|$")


def rows(pattern):
    with open(os.path.join(jobs.TOP, "doc", "faults.md"), encoding="utf-8") as file:
        return [match.groups() for match in map(pattern.match, map(str.strip, file)) if match]


def steps():
    """{fault: (who, outcome)} as the document has it."""
    cells = {}
    for step, who, die, cut, full, nomem in rows(STEPS):
        for act, outcome in (("die", die), ("cut", cut), ("full", full), ("nomem", nomem)):
            if outcome != "-":
                cells[f"{act}@{step}"] = (who, outcome)
    return cells


def victims():
    """{victim: (outcome without a COMMITTED record, with one)}"""
    return {victim: (before, after) for victim, before, after in rows(VICTIMS)}


def copies(program):
    """Live processes that run the program: the ranks, wherever they are."""
    return [pid for pid in jobs.descendants() if jobs.describe(pid).split(" ")[0] == program]


class Cell:
    """A job of three ranks with messages of 64 KiB between them, each byte checked; it ends by a file."""

    def __init__(self, place, number, ballast=0):
        self.place, self.program, self.number = place, jobs.program("exchange"), number
        self.stop = os.path.join(place.shared, f"stop-{number}")
        self.job = jobs.Job(place, [self.program, "65536", self.stop, str(ballast)], RANKS, hosts=place.hosts)
        self.ready = self.job.wait_line("^rank 1: round 2 ", seconds=120)

    def goes_on(self):
        seen = sum(1 for line in self.job.out if line.startswith("rank 1:"))
        return self.job.wait_line("^rank 1:", count=seen + 3, seconds=120)

    def one_of_each(self):
        return bool(tap.until(lambda: len(copies(self.program)) == RANKS, 30))

    def at(self, host):
        return self.job.where(1) == host and self.one_of_each() and self.goes_on()

    def has_ended(self, seconds):
        return tap.until(lambda: self.job.child.poll() is not None, seconds)

    def ended_cleanly(self):
        """What is wrong with its end, or None: not by itself with a word about it, or something is left."""
        status = self.job.wait()
        said = [line for line in self.job.err + self.job.out if not line.startswith("rank ")]
        if status in (0, "timeout") or not said:
            return f"the job did not end with an error and a word about it: {status}\n{self.job.story()}"
        left = tap.until(lambda: not copies(self.program), 20) or copies(self.program)
        return None if left is True else f"ranks are left: {left}"

    def finish(self):
        """Its exit status when it is told that this is enough."""
        open(self.stop, "w", encoding="ascii").close()
        return self.job.wait()

    def finished_right(self):
        return self.finish() == 0 and any(line.startswith("exchanged ") for line in self.job.out)


def size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def committed(records, offset):
    """Is there a COMMITTED record of a move of rank 1 behind this offset?"""
    if not os.path.exists(records):
        return False
    with open(records, "rb") as file:
        file.seek(offset)
        lines = [json.loads(line) for line in file if line.endswith(b"\n")]
    return any(line.get("outcome") == "COMMITTED" and line.get("member") == "0.1" for line in lines)
