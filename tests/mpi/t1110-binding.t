#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""-bind-to and -map-by: our places are Hydra's, on topologies that are only described; and a rank has its place after a move."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

TOPOLOGIES = ["package:2 numa:1 core:4 pu:2", "package:1 core:6 pu:1", "numa:4 l3:1 core:2 pu:2", "package:2 numa:2 l3:2 core:3 pu:1",
              "package:1 core:1 pu:1"]
POLICIES = ["core", "hwthread", "socket", "numa", "machine", "core:2", "core:3", "hwthread:2", "l3cache", "numa:2"]
MAPS = ["", "socket", "numa", "core", "hwthread", "core:2", "machine", "l3cache", "numa:3"]
LISTED = ["rr", "user:0,1,2", "user:0+2,1x3", "user:1-2x2,0"]
RANKS = 20


def hydras(place, topology, bind, by):
    """The places that Hydra's proxy tells for debugging, on its own way of starting ranks; or what it says."""
    words = ["-bind-to", bind] + (["-map-by", by] if by else [])
    place.more = {"HWLOC_SYNTHETIC": topology, "HYDRA_TOPO_DEBUG": "1"}
    status, out, err = place.call([jobs.command("mpiexec"), "-launcher", "fork", *words, "-n", str(RANKS), "true"])
    place.more = {}
    found = dict(re.findall(r"process (\d+) binding: (0*1[01]*)", out))  # an empty set binds nothing
    return ([found.get(str(i)) for i in range(RANKS)] if status == 0 else None), f"{status} {out} {err}"


def ours(place, topology, bind, by):
    status, out, err = place.call([os.path.join(jobs.BUILD, "tests", "unit", "binding.t"), topology, bind, by, str(RANKS)])
    lines = out.splitlines()
    return ([line if "1" in line else None for line in lines] if status == 0 else None), err


def same_places(place):
    wrong, agreed, neither = [], 0, 0
    cases = [(bind, by) for bind in POLICIES for by in MAPS] + [(bind, "") for bind in LISTED]
    for topology in TOPOLOGIES:
        for bind, by in cases if jobs.LONG else place.rng.sample(cases, 12):
            want, said = hydras(place, topology, bind, by)
            got, why = ours(place, topology, bind, by)
            if got != want:
                wrong.append(f"{topology}: -bind-to {bind} -map-by {by}:\nHydra {want} {said}\nwe    {got} {why}")
            agreed += want is not None and got == want
            neither += want is None and got is None
    tap.ok(not wrong, f"{agreed} policies give the same places, {neither} are refused by both", "\n".join(wrong[:5]))
    tap.ok(agreed > 20, "most can be had")


def moved(place):
    """On this machine: rank 1 has the first core of its host, then the second where rank 0 has the first."""
    stop = os.path.join(place.shared, "stop")
    job = jobs.Job(place, ["-bind-to", "core", jobs.program("placed"), stop], 2)
    cpus = lambda: [os.sched_getaffinity(entry["pid"]) for _, entry in sorted(job.ps().items())]
    for rank in range(2):
        tap.ok(job.wait_line(f"^rank {rank}: on "), f"rank {rank} runs", job.story())
    first = cpus()
    tap.equal(first[0], first[1], "both ranks have the first core of their host")
    for host, free in ((place.hosts[0], True), (place.hosts[2], False)):
        status, _, err = job.move(1, host)
        tap.equal(status, 0, f"rank 1 moves to {host}") or tap.note(err)
        now = cpus()
        tap.ok(now[0] == first[0] and (now[1] == first[0]) != free and len(now[1]) == len(first[0]),
               "and has the first core that is free there", f"{first} {now}")
    open(stop, "w", encoding="ascii").close()
    jobs.job_ended(job, job.wait())


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.User):
        place.rng, place.more = rng, {}
        environment = place.environment
        place.environment = lambda: dict(environment(), **place.more)
        same_places(place)
        if len(os.sched_getaffinity(0)) > 1:
            moved(place)
        else:
            tap.skip("moves", "this machine has one processor")
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
