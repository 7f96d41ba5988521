#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a move tells: events, records that are kept, their trace; a check that only asks; compression on a slow link."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

# Of every move, each actor's in this order; those of different actors come when their daemon passes them on.
COURSE = {
    "coordinator": ["accepted", "begun", "wanted", "recorded", "told-one", "told", "resumed", "relinked"],
    "source daemon": ["collected", "answered", "dialled", "ordered"],
    "target daemon": ["fit", "spawned"],
    "member": ["looked", "laid-out", "round", "parked"],
}


def in_order(names, wanted):
    at = iter(names)
    return all(name in at for name in wanted)


BALLAST = 32 << 20


class Kept(jobs.User):
    """The ordinary user's place, with a host more and a file for the records."""
    hosts = [f"127.0.0.{n}" for n in range(2, 6)]

    def environment(self):
        return {**super().environment(), "MSOCK_RECORDS": os.path.join(self.shared, "records.jsonl")}


class Cabled(jobs.Lab):
    def __init__(self):
        super().__init__(4)


def start(place, size, ballast=0, ranks=3):
    stop = os.path.join(place.shared, "stop")
    job = jobs.Job(place, [jobs.program("exchange"), str(size), stop, str(ballast)], ranks, hosts=place.hosts)
    tap.ok(job.wait_line("^rank 1: round 2 ", seconds=120), f"{place.name}: the job runs", job.story())
    return job, stop


def check(place, job):
    """Asked, not moved."""
    status, reports, err = job.move(1, place.hosts[3], "--check", seconds=200)
    asked = reports[0] if len(reports) == 1 else {}
    tap.ok(status == 0 and asked.get("movable") and asked["bytes"] > 1e6 and asked["rate"] > 0 and asked["total_ms"] > 0,
           "a check says what a move would take", f"{status} {reports} {err}")
    tap.equal(job.where(1), place.hosts[1], "and moves nothing")
    status, reports, err = job.move(1, "no-such-host", "--check")
    tap.ok(status == 1 and "no-such-host" in err, "what would be refused is refused", f"{status} {reports} {err}")


def trace(place, what):
    status, out, err = place.call([jobs.command("msrank-trace"), what])
    try:
        return json.loads(out)["traceEvents"]
    except (ValueError, KeyError):
        tap.note(f"msrank-trace: {status} {out[:200]} {err}")
        return []


def records(place):
    job, stop = start(place, 65536)
    check(place, job)
    status, lines, err = job.move(1, place.hosts[3], "--json=events", "--compress", "always", seconds=200)
    told = {actor: [line["step"] for line in lines if line.get("actor") == actor] for actor in COURSE}
    report = lines[-1] if lines else {}
    tap.ok(status == 0 and report.get("committed") and all(in_order(told[actor], COURSE[actor]) for actor in COURSE),
           "each step is told as it comes", f"{status} {told} {err}")
    tap.ok(report.get("packed_bytes", 0) > 0 and report.get("backed_pages", 0) > 0, "pages of files and compressed ones are counted", str(report))
    status, _, err = job.move(1, place.hosts[0], "--max-freeze", "0.5", seconds=200)
    tap.ok(status == 1 and "--max-freeze" in err and job.where(1) == place.hosts[3], "a freeze that would be too long is not begun", err)
    running = trace(place, os.path.basename(os.path.dirname(next(line for line in place.leftovers_now() if line.endswith("coord.sock")))))
    tap.ok(any(e["name"] == "freeze" for e in running), "the trace of a running job", str(running)[:500])
    open(stop, "w", encoding="ascii").close()
    jobs.job_ended(job, job.wait())
    kept = trace(place, os.path.join(place.shared, "records.jsonl"))
    row = next((e["tid"] for e in kept if e["name"] == "freeze"), None)
    bars = {e["name"]: e for e in kept if e["ph"] == "X" and e["pid"] == 1 and e["tid"] == row}
    tap.ok({"move", "set-up", "pre-copy", "freeze", "relink"} <= set(bars), "the trace of records that were kept", str(bars))
    if "move" in bars and "freeze" in bars:
        inside = bars["move"]["ts"] <= bars["freeze"]["ts"] and bars["freeze"]["dur"] <= bars["move"]["dur"]
        tap.ok(inside, "the freeze is a part of the move", str(bars))
    # Viewers draw bars that overlap one in the other; on a host's rows none does, since the moves came one after the other.
    rows = {}
    for e in sorted((e for e in kept if e["ph"] == "X" and e["pid"] != 1), key=lambda e: (e["ts"], e["dur"])):
        rows.setdefault((e["pid"], e["tid"]), []).append(e)
    overlap = [(a, b) for row in rows.values() for a, b in zip(row, row[1:]) if a["ts"] + a["dur"] > b["ts"]]
    tap.equal(overlap, [], "bars of a row do not overlap")
    status, _, err = place.call([jobs.command("msrank-trace"), "/no/such/file"])
    tap.ok(status == 1 and "no/such" in err, "a file that is not there is named", f"{status} {err}")


def slow_link(place):
    """At 60 Mbit/s any processor compresses faster than the link carries; most of the rank's memory gets much smaller."""
    job, stop = start(place, 65536, BALLAST)
    place.lab("shape", place.hosts[3], "60mbit")
    status, reports, err = job.move(1, place.hosts[3], seconds=200)
    report = reports[0] if reports else {}
    tap.ok(status == 0 and report.get("saved_bytes", 0) > BALLAST / 4, "lab: pages are compressed on a slow link", f"{status} {report} {err}")
    open(stop, "w", encoding="ascii").close()
    jobs.job_ended(job, job.wait(), what="lab: the job")


def test():
    for place in jobs.places(Kept):
        place.leftovers_now = lambda where=place: [os.path.join(top, name) for top, _, names in os.walk(where.rundir) for name in names]
        records(place)
        tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")
    for place in jobs.places(Cabled):
        slow_link(place)
        tap.equal(place.leftovers(), [], f"{place.name}: nothing is left")


tap.main(test)
