#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""MPICH's own tests, directories pt2pt and coll, without moves: nothing fails on ch3:msock that passes on ch3:sock.

Settings: those of check-mpich, and MSOCK_TEST_LISTS, the list files. `make check-mpich` runs all directories.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import suite as suites  # noqa: E402
import tap  # noqa: E402

DIRECTORIES = ("pt2pt", "coll")
LISTS = os.environ.get("MSOCK_TEST_LISTS") or "testlist,testlist.dtp,testlist.cvar"


def test():
    work = os.environ.get("MSOCK_TEST_WORK") or os.path.join(jobs.BUILD, "suite")
    suite = suites.Suite(work, f"t1910-{suites.commit_id()}", LISTS.split(","))
    suite.configure()
    tap.note(f"lists {LISTS}: sha256 {suite.digest(DIRECTORIES)}")
    found = {way: [entry for part in suite.parts(DIRECTORIES) for entry in suite.run(way, part)] for way in ("sock", "msock")}
    for line in suites.table(suite.all_results()):
        tap.note(line)
    for name, entry in suites.numbered(found["msock"]).items():
        if entry["verdict"] == "failed":
            tap.note(f"fails on ch3:msock: {name}")
    worse = suites.worse(found["sock"], found["msock"])
    tap.ok(len(found["sock"]) > 100, "the reference ran", len(found["sock"]))
    tap.ok(not worse, "nothing fails, is missing or skipped on ch3:msock that passes on ch3:sock", "\n".join(worse))
    tap.equal(jobs.descendants(), [], "no process is left")


tap.main(test)
