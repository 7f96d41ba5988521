#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What is shown of a job: msrank-ps with load, memory and who talks to whom, the last moves; a host that is emptied; a host
that joins because a rank is moved there, and leaves again."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 4


def ps(place, *options):
    """What msrank-ps says: an object with --json, else text."""
    status, out, err = place.call([jobs.command("msrank-ps"), *options], 20)
    if status != 0:
        tap.note(err)
        return None
    return json.loads(out) if "--json" in options else out


def figures(place):
    """Samples come every two seconds: the second one knows loads."""
    known = lambda told: told and all(h.get("busy") is not None for h in told["hosts"]) and all(r["load"] is not None for r in told["ranks"])
    tap.ok(tap.until(lambda: known(ps(place, "--json")), 30, 0.2), "hosts and ranks have figures", ps(place, "--json"))
    told = ps(place, "--json")
    for host in told["hosts"]:
        good = host["up"] and host["cores"] >= 0.01 and host["machine"] and 0 < host["free_bytes"] <= host["memory_bytes"]
        tap.ok(good and len(host["history"]["busy"]) >= 2, f"{host['host']}: cores, memory and a history", host)
    tap.equal(len({host["machine"] for host in told["hosts"]}), 1, "127.0.0.N are one machine")
    tap.ok(all(0 <= r["load"] < 64 and r["rss_bytes"] > 1 << 20 and r["cpu_s"] > 0 for r in told["ranks"]), "ranks have load and memory",
           told["ranks"])
    text = ps(place)
    tap.ok(all(host["host"] in text.split("\n\n")[1] for host in told["hosts"]), "the table shows hosts below the ranks", text)


def talk(place):
    """heat2d is a chain: each rank exchanges most with its neighbours, and both ends tell the same."""
    def read():
        return {r["member"]: {p["member"]: p for p in r["peers"]} for r in ps(place, "--json")["ranks"]}

    # A member that gets no processor for a moment is shown with what it told before.
    tap.until(lambda: all(p["sent"] > 10000 for p in read().get("0.0", {}).values()) and all(read().values()), 30, 0.2)
    peers = read()
    for a, b in (("0.0", "0.1"), ("0.1", "0.2"), ("0.2", "0.3")):
        tap.ok(a in peers.get(b, {}) and b in peers.get(a, {}), f"{a} and {b} talk", peers)
    there = peers["0.0"]["0.1"]
    tap.ok(there["sent"] > 10000 and there["taken"] > 10000 and there["sent"] > peers["0.0"].get("0.2", {"sent": 0})["sent"],
           "most with the neighbour", peers["0.0"])
    lines = [line.split() for line in ps(place, "--comm").splitlines()[1:]]
    tap.ok(["0.0", "0.1"] in [words[:2] for words in lines], "--comm shows it", lines)


def empty_host(place, job):
    leave = place.hosts[0]
    status, out, err = place.call([jobs.command("msrank-move"), "--evacuate", leave], 120)
    tap.ok(status == 0, f"{leave} is emptied", f"{status} {out} {err}")
    told = ps(place, "--json")
    homes = [r["host"] for r in told["ranks"]]
    tap.equal(sorted(homes), [place.hosts[1]] * 2 + [place.hosts[2]] * 2, "its ranks are spread over the others")
    tap.equal([(m["state"], m["from"]) for m in told["moves"]], [("moved", leave)] * 2, "the last moves are shown")
    tap.ok(tap.until(lambda: all(r["load"] is not None for r in ps(place, "--json")["ranks"]), 30, 0.2), "moved ranks have a load again")
    status, _, err = place.call([jobs.command("msrank-move"), "--evacuate", leave], 60)
    tap.equal((status, err), (0, ""), "once more: there is nothing to do")
    status, _, err = place.call([jobs.command("msrank-move"), "--evacuate", "no-such-host"], 60)
    tap.ok(status == 1 and err.count("\n") == 1 and "no-such-host" in err, "a host that is none is refused", err)


def hosts(place):
    return [h["host"] for h in ps(place, "--json")["hosts"]]


def joins(place, job, new):
    """A host that mpiexec was not told of."""
    before, home = hosts(place), job.where(1)
    tap.ok(new not in before, f"{place.name}: {new} is not in the job", before)
    status, reports, err = job.move(1, new)
    tap.ok(status == 0 and reports[0]["committed"] and job.where(1) == new, f"{place.name}: a rank is moved to it, so it joins",
           f"{status} {reports} {err}\n{job.story()}")
    tap.equal(hosts(place), before + [new], f"{place.name}: it is shown")
    move = lambda *words: place.call([jobs.command("msrank-move"), *words], 120)
    status, _, err = move("--drop", new)
    tap.ok(status == 1 and err.count("\n") == 1 and "still has ranks" in err, f"{place.name}: with a rank it cannot be dropped", err)
    status, _, err = move("--evacuate", new, "--drop", new)
    tap.ok(status == 0 and new not in hosts(place), f"{place.name}: it is emptied and dropped", f"{status} {err}")
    tap.ok(job.where(1) in before, f"{place.name}: its rank is on another host")
    status, _, err = move("--drop", new)
    tap.ok(status == 1 and err.count("\n") == 1 and "not one of" in err, f"{place.name}: dropped twice is refused", err)
    status, reports, err = job.move(1, new)
    tap.ok(status == 0 and job.where(1) == new, f"{place.name}: it joins again", f"{status} {reports} {err}\n{job.story()}")
    status, reports, err = job.move(1, home)
    tap.ok(status == 0, f"{place.name}: and back", f"{status} {reports} {err}")


def joins_in_lab():
    place = jobs.Lab(3)
    try:
        job = jobs.Job(place, [jobs.program("exchange"), "65536", os.path.join(place.shared, "stop")], 3, hosts=place.hosts[:2])
        if tap.ok(job.wait_line("^rank 1: round 2 "), "lab: the job runs", job.story()):
            joins(place, job, "h3")
            status, reports, err = job.move(1, "127.0.0.9")
            tap.ok(status == 0, "lab: so does the launch host, by a name of its own", f"{status} {reports} {err}")
            open(os.path.join(place.shared, "stop"), "w", encoding="ascii").close()
            jobs.job_ended(job, job.wait(), what="lab: the job")
        tap.equal(place.leftovers(), [], "lab: nothing is left")
    finally:
        place.close()


def test():
    if os.geteuid() == 0:
        joins_in_lab()
    else:
        tap.skip("the lab", "needs root")
    for place in jobs.places(jobs.User):
        job = jobs.Job(place, [jobs.program("heat2d"), "256", "1000000"], RANKS)
        if tap.ok(job.wait_line("^heat2d:"), "the job runs", job.story()):
            figures(place)
            talk(place)
            empty_host(place, job)
            joins(place, job, "127.0.0.9")
            status, _, err = job.move(1, "192.0.2.1")
            tap.ok(status == 1 and err.count("\n") == 1 and "192.0.2.1" in err, "a host that cannot reach 127.0.0.N is refused", err)
        job.child.send_signal(15)
        job.wait()
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
