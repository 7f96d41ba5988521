#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Walks the table of doc/faults.md: a process dies, or is cut off, at each step of a move; one live copy or a clean end."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cells  # noqa: E402
import jobs  # noqa: E402
import tap  # noqa: E402

SHORT = ["cut@round", "cut@bagged", "die@summed", "die@checked", "die@asked", "die@left", "die@parked", "die@recorded", "die@going",
         "nomem@ready", "nomem@entered"]


class Four(jobs.User):
    hosts = [f"127.0.0.{n}" for n in range(2, 6)]


class Cell(cells.Cell):
    """Moves of its rank 1 from the second host to the fourth, with results."""

    def __init__(self, place, number):
        super().__init__(place, number)
        tap.ok(self.ready, f"job {number} runs", self.job.story())

    def stays(self, fault, status, reports):
        tap.ok(status == 1 and not any(r["committed"] for r in reports), f"{fault}: not moved", f"{status} {reports}")
        tap.ok(self.at(self.place.hosts[1]),
               f"{fault}: rank 1 goes on where it was, once", self.job.story())

    def moves(self, fault, status, reports):
        tap.ok(status == 0 and any(r["committed"] for r in reports), f"{fault}: moved", f"{status} {reports}")
        tap.ok(self.at(self.place.hosts[3]),
               f"{fault}: rank 1 goes on at the target, once", self.job.story())

    def ends(self, fault):
        tap.equal(self.ended_cleanly(), None, f"{fault}: the job ends and says so, and no rank is left")

    def close(self, fault):
        tap.ok(self.finished_right(), f"{fault}: the job ends right", self.job.story())

    def walk(self, fault, outcome):
        """True if the job can be used for another cell: all hosts are there, the rank is where it was."""
        status, reports, err = self.job.move(1, self.place.hosts[3], "--via", "drain", "--timeout", "100", "--fault", fault,
                                             seconds=200)
        tap.note(f"{fault}: exit {status} {err.strip()}")
        if fault.startswith("nomem") and status == 1:
            tap.ok("memory" in err, f"{fault}: the reason given is the restorer's", err)
        if outcome == "one":
            outcome = "ends" if self.has_ended(5) else "moves" if status == 0 else "stays"
        if outcome == "ends":
            self.ends(fault)
        elif outcome == "moves":
            self.moves(fault, status, reports)
        else:
            self.stays(fault, status, reports)
        return outcome != "ends"


def named(name, host):
    """The process of that name that was started for a host."""
    return next(pid for pid in jobs.descendants() for words in [jobs.describe(pid).split(" ")]
                if os.path.basename(words[0]) == name and host in words)


def late_word(place):
    """The source sees the restorer's connection end before the target's daemon has told why: it waits for that reason."""
    cell, target = Cell(place, "late"), place.hosts[3]
    daemon, peer = named("msdaemon", target), cell.job.ps()[0]["pid"]
    os.kill(peer, signal.SIGSTOP)  # it does not come to the freeze
    mover = place.start([jobs.command("msrank-move"), "--json=events", "--via", "drain", "1", target], stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in map(json.loads, iter(mover.stdout.readline, "")):
        if line.get("step") == "spawned":
            restorer = line["pid"]
        if line.get("step") == "laid-out":
            break
    os.kill(daemon, signal.SIGSTOP)
    os.kill(restorer, signal.SIGKILL)
    os.kill(peer, signal.SIGCONT)
    tap.until(lambda: mover.poll() is not None, 0.2)
    os.kill(daemon, signal.SIGCONT)
    err = mover.communicate(timeout=100)[1]
    tap.ok(mover.returncode == 1 and f"the restorer on {target} was killed by signal 9" in err, "a reason that comes late is waited for", err)
    tap.ok(cell.at(place.hosts[1]), "and the rank goes on where it was", cell.job.story())
    cell.close("a late reason")


def walk(place, faults, table):
    cell = None
    for number, fault in enumerate(faults):
        who, outcome = table[fault]
        if not cell:
            cell = Cell(place, number)
        if not cell.ready:
            return
        alive = cell.walk(fault, outcome)
        # What hits a member's connection or a restorer leaves all hosts as they were.
        if alive and (outcome != "stays" or (who not in ("member", "restorer") and not fault.startswith("nomem"))):
            cell.close(fault)
            alive = False
        cell = cell if alive else None
    if cell:
        status, reports, err = cell.job.move(1, place.hosts[3], seconds=200)
        tap.ok(status == 0, "after all that it can still be moved", f"{status} {reports} {err}")
        cell.close("at last")


def test():
    # A full directory is for a small file system: tests/mpi/faults.
    table = {fault: cell for fault, cell in cells.steps().items() if not fault.startswith("full@")}
    tap.ok(len(table) == 79, "the table has all steps", str(len(table)))
    for place in jobs.places(Four):
        chosen = os.environ.get("MSOCK_TEST_FAULTS", "").split()  # to look at some of them
        walk(place, chosen or (list(table) if jobs.LONG else SHORT), table)
        late_word(place)
        tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")


tap.main(test)
