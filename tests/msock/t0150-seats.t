#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The job's binding holds on each host: at the start, after each move, and for what a program has chosen within it."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

A, B = "127.0.0.2", "127.0.0.3"


class Rank(launch.Talker):
    """A process that can move; `seat` as Hydra counts a host's ranks."""
    name = "tests/msock/knock"

    def __init__(self, job, host, bind, seat, map_by=None, first=()):
        words = ["--bind", bind] + (["--map", map_by] if map_by else [])
        stub = job.stub
        job.stub = lambda number, program, host, **options: stub(number, program, host, before=words, first=first,
                                                                 env={"MPI_LOCALRANKID": str(seat)}, **options)
        super().__init__(job, "serve", host)
        del job.stub
        tap.ok(self.line(), f"rank {self.number} is served")

    def pid(self):
        return self.job.ps()[self.number]["pid"]

    def cpus(self):
        return os.sched_getaffinity(self.pid())

    def move(self, host):
        status, _, err = self.job.tool("msrank-move", str(self.number), host)
        return tap.equal(status, 0, f"rank {self.number} moves to {host}") or tap.note(err)


def seats(job, cores):
    """By cores: each rank has the first that is free on its host."""
    one, two = Rank(job, A, "core", 0), Rank(job, B, "core", 0)
    three = Rank(job, B, "core", 1)
    tap.equal((one.cpus(), two.cpus(), three.cpus()), (cores[0], cores[0], cores[1]), "each host counts its own ranks")
    two.move(A)
    tap.equal(two.cpus(), cores[1], "who comes gets the first core that is free")
    two.move(B)
    tap.equal(two.cpus(), cores[0], "and so when it comes back")
    three.move(A)
    tap.equal((one.cpus(), three.cpus()), (cores[0], cores[1]), "another takes the one that it left")
    for rank in (one, two, three):
        rank.child.kill()
        rank.child.wait()


def choices(job, everywhere):
    """A thread that the program has put on one processor of its place is on the one of the same number afterwards."""
    whole = Rank(job, A, "machine", 0)
    tap.equal(whole.cpus(), everywhere, "bound to the machine")
    chosen = {sorted(everywhere)[-1]}
    os.sched_setaffinity(whole.pid(), chosen)
    whole.move(B)
    tap.equal(whole.cpus(), chosen, "a choice within the place is kept")
    os.sched_setaffinity(whole.pid(), everywhere)
    whole.move(A)
    tap.equal(whole.cpus(), everywhere, "none is none")
    listed = Rank(job, A, f"user:{min(everywhere)},{max(everywhere)}", 0)
    tap.equal(listed.cpus(), {min(everywhere)}, "the first of the list")
    listed.move(B)
    tap.equal(listed.cpus(), {min(everywhere)}, "is free on the other host")
    beyond = Rank(job, A, "user:0", 1)
    tap.equal(beyond.cpus(), everywhere, "who is beyond the list's end is not bound")
    for rank in (whole, listed, beyond):
        rank.child.kill()
        rank.child.wait()


def given(job, everywhere):
    """Without a binding: mpiexec's own choice of processors goes with the rank; no choice is none."""
    last = {max(everywhere)}
    narrow = Rank(job, A, "none", 0, first=("taskset", "-c", str(max(everywhere))))
    tap.equal(narrow.cpus(), last, "mpiexec ran on one processor")
    narrow.move(B)
    tap.equal(narrow.cpus(), last, "which is kept")
    free = Rank(job, A, "none", 0)
    free.move(B)
    tap.equal(free.cpus(), everywhere, "a rank that is not bound may run anywhere")
    for rank in (narrow, free):
        rank.child.kill()
        rank.child.wait()


def not_there(job):
    """A place that a host does not have: said, and the rank runs unbound."""
    status, out, _ = job.run(90, ["sh", "-c", "taskset -p $$"], before=["--bind", "core", "--map", "socket:4096"])
    tap.ok(status == 0 and out, "a rank whose place is not there runs")
    with open(os.path.join(job.top, "err"), encoding="utf-8") as file:
        said = file.read()
    tap.ok("rank 0.90 is not bound on 127.0.0.2: there is not as much as socket:4096" in said, "and that is said", said)


def core_sets(everywhere):
    """Processors by core, in order of their first one."""
    sets = []
    for cpu in sorted(everywhere):
        with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii") as file:
            text = file.read().strip()
        members = set()
        for part in text.split(","):
            low, _, high = part.partition("-")
            members |= set(range(int(low), int(high or low) + 1))
        if members & everywhere not in sets:
            sets.append(members & everywhere)
    return sets


def test():
    everywhere = os.sched_getaffinity(0)
    cores = core_sets(everywhere)
    top = os.environ.get("TMPDIR", "/tmp")
    with open(os.path.join(top, f"seats-{os.getpid()}"), "w", encoding="ascii") as err:
        job = launch.Launch((A, B), err=err)
        os.rename(err.name, os.path.join(job.top, "err"))
    try:
        if not tap.ok(job.said.startswith("ready "), "the coordinator is ready", job.said):
            return
        seats(job, cores)
        choices(job, everywhere)
        given(job, everywhere)
        not_there(job)
        tap.equal(job.end(), 0, "the job ends")
        tap.equal([left for left in job.leftovers() if left != os.path.join(job.top, "err")], [], "nothing is left")
    finally:
        job.close()


if len(core_sets(os.sched_getaffinity(0))) < 2:
    tap.skip_all("this machine has one core")
tap.main(test)
