#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A 16-rank job within a Slurm allocation of four nodes: moved, a node evacuated and switched off, one drained, ended."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import clusters  # noqa: E402
import jobs  # noqa: E402
import tap  # noqa: E402


def step_nodes(place):
    """The nodes on which the job's steps run, one step a daemon."""
    _, out, err = place.call(["squeue", "--steps", "--noheader", "--format", "%N"])
    return sorted(out.split()) if not err else err


def drained(place, job, node):
    """An administrator drains a node; msrank-drain, which runs beside mpiexec, has the ranks leave it."""
    watch = place.start(["env", "SLURM_JOB_NODELIST=h[1-4]", jobs.command("msrank-drain"), "--every", "1"], stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    clusters.goes_on(job, "nothing is drained")
    tap.ok(clusters.on_host(job, node), f"ranks are on {node}")
    status, _, err = place.call(["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"])
    tap.equal(status, 0, f"{node} is drained") or tap.note(err)
    tap.ok(tap.until(lambda: node not in step_nodes(place), 60, 0.2), f"the job has left {node}", f"{job.ps()}\n{job.story()}")
    tap.equal((clusters.on_host(job, node), place.states()[node]), ([], "draining"), "with all its ranks")
    clusters.goes_on(job, f"{node} is drained")
    return watch


def life(place):
    job = clusters.begin(place)
    for host in place.hosts[:4]:
        tap.equal(len(clusters.on_host(job, host)), 4, f"four ranks are on {host}")
    tap.equal(step_nodes(place), ["h1", "h2", "h3", "h4"], "a daemon is a step of the allocation")
    clusters.move(job, 5, "h1")
    status, _, err = job.move(5, "h5")
    tap.ok(status == 1 and "host h5 cannot join: it is not in the Slurm allocation 1 (h[1-4])" in err, "a node outside is refused", err)
    clusters.evacuate(job, "h3", "--drop", "h3")
    place.off("h3")
    clusters.goes_on(job, "h3 was switched off")
    watch = drained(place, job, "h4")
    tap.equal(clusters.on_host(job, "h3"), [], "h3 has no rank")
    clusters.end(job)
    tap.equal(job.err, [], "nothing on stderr")
    tap.equal(watch.wait(20), 0, "msrank-drain ends with the job")
    said = watch.stderr.read().splitlines()
    tap.ok(said and all(line.startswith("rank 0.") for line in said), "and told each move", said)


def refused(place):
    status, _, err = place.call(["salloc", "--quiet", "--nodes=1", "--nodelist=h1", jobs.command("mpiexec"), "-launcher", "msock", "-hosts",
                                 "h1,h2", "-n", "2", "true"])
    tap.ok(status == 1 and "host h2 is not in the Slurm allocation" in err, "a host outside is refused at the start", f"{status} {err}")
    status, out, _ = place.call(["sbatch", "--wait", "--quiet", "--nodes=2", "--ntasks=2", f"--output={place.etc}/batch",
                                 "--exclude=h3,h4", "--wrap", f"{jobs.command('mpiexec')} -launcher msock hostname"])
    with open(os.path.join(place.etc, "batch"), encoding="ascii") as file:
        tap.equal((status, sorted(file.read().split())), (0, ["h1", "h2"]), "a batch job runs on its own nodes") or tap.note(out)
    tap.equal(place.leftovers(), [], "nothing is left of these")


def test():
    place = clusters.SlurmLab(5, nodes=4)
    try:
        life(place)
        refused(place)
    finally:
        place.close()


if os.geteuid() != 0:
    tap.skip_all("the lab needs root")
if clusters.missing(*clusters.SlurmLab.needs):
    tap.skip_all(f"not installed: {' '.join(clusters.missing(*clusters.SlurmLab.needs))}")
tap.main(test)
