#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A 16-rank job over OpenSSH on four hosts: moved, a host evacuated and switched off, one that joins, ended."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import clusters  # noqa: E402
import jobs  # noqa: E402
import tap  # noqa: E402


def life(place):
    job = clusters.begin(place, hosts=["h1", "h2", "h3", "h4"])
    for host in ("h1", "h2", "h3", "h4"):
        tap.equal(len(clusters.on_host(job, host)), 4, f"four ranks are on {host}")
    clusters.move(job, 5, "h1")
    clusters.move(job, 7, "h5")  # no host of the job until now
    clusters.evacuate(job, "h3", "--drop", "h3")
    place.off("h3")
    clusters.goes_on(job, "h3 left the job and was switched off")
    clusters.evacuate(job, "h2")
    place.off("h2")
    clusters.goes_on(job, "h2 was switched off as it was")
    clusters.end(job)
    tap.equal(job.err, [], "nothing on stderr")


def refused(place):
    """What ssh says is told: a host that is off, and one whose key is another's."""
    status, _, err = place.call(place.mpiexec(1, hosts=["h1", "h3"]) + ["true"])
    tap.ok(status == 1 and "host h3: its remote shell ended with status 255: ssh: connect to host h3 port 22:" in err,
           "a host that is off", f"{status} {err}")
    place.file("known_hosts", "")
    status, _, err = place.call(place.mpiexec(1, hosts=["h1"]) + ["true"])
    tap.ok(status == 1 and "host h1: its remote shell ended with status 255: Host key verification failed." in err,
           "a host that is not trusted", f"{status} {err}")
    tap.equal(place.leftovers(), [], "nothing is left of these")


def test():
    place = clusters.SshLab(5)
    try:
        status, out, err = place.login("h4", "hostname")
        tap.equal((status, out), (0, "h4\n"), "ssh works") or tap.note(err)
        life(place)
        refused(place)
    finally:
        place.close()


if os.geteuid() != 0:
    tap.skip_all("the lab needs root")
if clusters.missing(*clusters.SshLab.needs):
    tap.skip_all(f"not installed: {' '.join(clusters.missing(*clusters.SshLab.needs))}")
tap.main(test)
