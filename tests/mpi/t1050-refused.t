#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Moves that cannot be: one clear line, exit status 1, and the job does not notice."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 3  # one on each of the first three hosts; the others hold none


class Running:
    """An exchange job that is alive: its ranks keep finishing rounds."""

    def __init__(self, place, hosts, program=None, size=65536):
        self.place = place
        self.stop = os.path.join(place.shared, f"stop-{len(hosts)}-{size}")
        self.job = jobs.Job(place, [program or jobs.program("exchange"), str(size), self.stop], RANKS, hosts=hosts)
        tap.ok(self.job.wait_line("^rank 1: round 2 "), f"{place.name}: the job runs", self.job.story())

    def goes_on(self):
        seen = sum(1 for line in self.job.out if line.startswith("rank 1:"))
        return self.job.wait_line("^rank 1:", count=seen + 3, seconds=30)

    def refused(self, title, rank, host, wants, *options, state=True):
        """The move is refused with one line that matches one of the words; where everyone is does not change."""
        before = {r: (e["host"], e["pid"], e["moves"]) for r, e in self.job.ps().items()} if state else None
        status, reports, err = self.job.move(rank, host, *options)
        lines = err.strip().splitlines()
        good = status == 1 and len(lines) == 1 and any(word in lines[0] for word in wants) and not any(r["committed"] for r in reports)
        tap.ok(good, f"{self.place.name}: {title}: refused with one clear line", f"exit {status}, {reports}\n{err}")
        for line in lines:
            tap.note(line)
        if state:
            after = {r: (e["host"], e["pid"], e["moves"]) for r, e in self.job.ps().items()}
            tap.ok(after == before and self.goes_on(), f"{self.place.name}: {title}: no effect on the job",
                   f"{before}\n{after}\n{self.job.story()}")

    def finish(self, may_say="nothing"):
        open(self.stop, "w", encoding="ascii").close()
        jobs.job_ended(self.job, self.job.wait(), what=f"{self.place.name}: the job")
        tap.equal([line for line in self.job.err if may_say not in line], [], f"{self.place.name}: nothing on its stderr")


def common(place):
    """What can be refused anywhere."""
    h = place.hosts
    run = Running(place, h[:3])
    run.refused("unknown rank", 7, h[1], ["7"])
    run.refused("unknown host", 1, "no-such-host", ["no-such-host"])
    run.refused("the host it is on already", 1, h[1], [h[1]])
    run.refused("a checksum that does not match", 1, h[2], ["sum", "checked"], "--fault", "bad-sum")
    run.refused("a target that dies in the middle of the image", 1, h[2], ["target", "restore", "ended", "died"], "--fault", "target-dies-mid-image")
    status, reports, err = run.job.move(1, h[2])
    tap.ok(status == 0, f"{place.name}: after all that it can still be moved", f"{status} {reports} {err}")
    run.finish()
    run.refused("a job that has ended", 1, h[1], ["job"], state=False)


def slow_target(place):
    """The image takes seconds to a host behind a slow cable: time for a second request, and for switching it off."""
    h = place.hosts
    run = Running(place, h[:3] + ["h4", "h5"], size=4 << 20)
    place.lab("shape", "h4", "60mbit")
    first = place.start([jobs.command("msrank-move"), "--json", "1", "h4"], stdin=-3, stdout=-3, stderr=-3)
    tap.ok(tap.until(lambda: run.job.ps()[1]["state"] == "moving", 10), "lab: rank 1 is moving")
    status, _, err = run.job.move(1, "h3")
    tap.ok(status == 1 and len(err.strip().splitlines()) == 1 and "mov" in err, "lab: a move of a rank that is moving is refused",
           f"{status} {err}")
    tap.equal(first.wait(60), 0, "lab: the first move goes on to its end")
    tap.ok(run.goes_on(), "lab: the job goes on", run.job.story())

    place.lab("shape", "h5", "20mbit")
    second = place.start([jobs.command("msrank-move"), "--json", "2", "h5"], stdin=-3, stdout=-3, stderr=-3)
    tap.ok(tap.until(lambda: run.job.ps()[2]["state"] == "moving", 10), "lab: rank 2 is moving")
    place.off("h5")
    tap.equal(second.wait(60), 1, "lab: the target is switched off in the middle of the image: not committed")
    tap.ok(run.job.where(2) == "h3" and run.goes_on(), "lab: rank 2 goes on where it was", run.job.story())
    run.finish(may_say="h5")


def cut_target(place):
    run = Running(place, place.hosts[:3] + ["h4"], size=65544)
    place.lab("cut", "h4")
    run.refused("a host that cannot be reached", 1, "h4", ["h4"], "--timeout", "10")
    place.lab("heal", "h4")
    run.finish()


def other_file(place):
    """The same path and size, but on h3 the program's last byte is another one."""
    for host in place.hosts[:3]:
        place.call([jobs.LAB, "run", host, "cp", jobs.program("exchange"), "/tmp/exchange"])
    place.call([jobs.LAB, "run", "h3", "sh", "-c", "head -c -1 /tmp/exchange > /tmp/x && echo >> /tmp/x && chmod 755 /tmp/x && mv /tmp/x /tmp/exchange"])
    place.call(["cp", jobs.program("exchange"), "/tmp/exchange"])
    run = Running(place, place.hosts[:3], program="/tmp/exchange", size=65552)
    run.refused("a target where the program's file differs", 1, "h3", ["/tmp/exchange"])
    run.finish()


def test():
    for place in jobs.places(jobs.User):
        common(place)
        tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")
    if os.geteuid() != 0:
        tap.skip("the lab", "needs root")
        return
    for scene in (common, cut_target, other_file, slow_target):
        place = jobs.Lab(5)
        try:
            scene(place)
            tap.equal([line for line in place.leftovers() if "/tmp/exchange" not in line], [], f"lab, {scene.__name__}: nothing is left")
        finally:
            place.close()


tap.main(test)
