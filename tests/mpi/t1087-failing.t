#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A rank that fails ends what others have under way with it, in error; a communicator that is revoked takes nothing else along."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

WANT = {"revoke": ["rank 1: all there"] * 2, "ssend": ["rank 1: the process has failed"],
        "partial": ["rank 1: the process has failed"] * 2}
NAMES = {"revoke": "what comes with a REVOKE, or with messages for what is revoked, is there",
         "ssend": "a small synchronous message to a rank that is killed ends in error",
         "partial": "a receive of a message that is there in part ends in error"}


def run(place, how):
    place.mpiexec_options = ["-genv", "MPIR_CVAR_ENABLE_FT", "1", *([] if how == "revoke" else ["-disable-auto-cleanup"])]
    job = jobs.Job(place, [jobs.program("failing"), how, os.path.join(place.shared, how)], 2, seconds=120)
    status = job.wait()
    tap.equal((sorted(line for line in job.out if line.startswith("rank ")), status == "timeout"), (WANT[how], False), NAMES[how])
    tap.note(f"{how}: exit status {status}")


def test():
    for place in jobs.places(jobs.User):
        for how in WANT:
            run(place, how)
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
