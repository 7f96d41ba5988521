#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""mpiexec -balance: a balancer comes with the job and goes with it; what cannot be is refused before the job begins.

In the lab (root) hosts have shares of a processor, and it moves a rank off the slow one; t1930-balance.t asks how well.
"""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402


def balancers(pids):
    return [pid for pid in pids if os.path.basename(jobs.describe(pid).split(" ")[0]) == "msrank-balance"]


def refused(place):
    for value, word in (("1s", "4 at least"), ("often", "number of seconds"), ("10s:best", "no policy best")):
        status, out, err = place.call([jobs.command("mpiexec"), "-launcher", "msock", "-balance", value, "-hosts", place.hosts[0],
                                       "-n", "1", "echo", "ran"], 60)
        tap.ok(status not in (0, "timeout") and word in err and "ran" not in out, f"-balance {value} is refused", f"{status} {out} {err}")


def comes_and_goes(place):
    stop = os.path.join(place.shared, "stop")
    job = jobs.Job(place, ["-balance", "4s:refine", jobs.program("exchange"), "1024", stop], 3)
    if not tap.ok(job.wait_line("^rank 1: round 2 "), "the job runs", job.story()):
        return
    tap.ok(tap.until(lambda: len(balancers(jobs.descendants())) == 1, 10), "with one balancer", jobs.descendants())
    for pid in balancers(jobs.descendants()):
        os.kill(pid, signal.SIGKILL)
    tap.ok(tap.until(lambda: any("goes on without it" in line for line in job.err), 10), "one that is killed is missed, once", job.story())
    status, _, err = job.move(1, place.hosts[2])
    tap.ok(status == 0, "the job goes on and its ranks move", err)
    open(stop, "w", encoding="ascii").close()
    jobs.job_ended(job, job.wait())
    os.unlink(stop)
    job = jobs.Job(place, ["-balance", "4s", jobs.program("exchange"), "1024", stop], 3)
    tap.ok(job.wait_line("^rank 1: round 2 ") and tap.until(lambda: balancers(jobs.descendants()), 10), "another job", job.story())
    open(stop, "w", encoding="ascii").close()
    jobs.job_ended(job, job.wait())
    tap.equal(place.leftovers(), [], "nothing is left, no balancer either")


def moves_in_lab():
    """Three ranks that compute, two of them on a host with a tenth of a processor: one at least is moved off it."""
    place = jobs.Lab(2)
    try:
        place.lab("quota", "h1", "10")
        place.lab("quota", "h2", "80")
        job = jobs.Job(place, ["-balance", "4s", jobs.program("heat2d"), "600", "1000000"], 3, hosts=["h1", "h1", "h2"])
        found = tap.until(lambda: any(line.startswith("msrank-balance: move rank 0.") and "h1 -> h2" in line for line in job.err), 90)
        tap.ok(found, "lab: a rank leaves the slow host, and a line says why", job.story())
        tap.ok(tap.until(lambda: "h2" in (job.where(0), job.where(1)), 60), "lab: it is there", job.story())
        job.interrupt()
        job.wait()
        tap.equal(place.leftovers(), [], "lab: nothing is left")
    finally:
        place.close()


def test():
    for place in jobs.places(jobs.User):
        refused(place)
        comes_and_goes(place)
    if os.geteuid() == 0 and os.access("/sys/fs/cgroup", os.W_OK):
        moves_in_lab()
    else:
        tap.skip("hosts with shares of a processor", "needs root and control groups")


tap.main(test)
