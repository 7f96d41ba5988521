#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/mpi/storm: it moves what it runs, holds it, bounds it, and stands in for mpiexec."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

STORM = os.path.join(jobs.HERE, "storm")
RANKS = 3


def storm(work, *words):
    """(exit status, stdout, stderr, report)."""
    report = os.path.join(work, "report")
    env = jobs.clean_environment(MSOCK_TEST_BUILD=jobs.BUILD)
    done = subprocess.run([STORM, "--report", report, "--keep", os.path.join(work, "keep"), *words], env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=jobs.LIMIT_S, check=False)
    with open(report, encoding="utf-8") as lines:
        return done.returncode, done.stdout, done.stderr, json.loads(lines.readlines()[-1])


def mpiexec(name, *words, ranks=RANKS):
    return [jobs.command("mpiexec"), "-n", str(ranks), jobs.program(name), *words]


def kept(work):
    """The files that failed runs have left, by name."""
    return sorted({name for _, _, names in os.walk(os.path.join(work, "keep")) for name in names})


def test():
    rng = tap.seed()
    work = tempfile.mkdtemp(prefix="msock-storm-")
    seed = str(rng.randrange(2 ** 32))

    status, still, err, _ = storm(work, "--moves", "0", *mpiexec("heat2d", "96", "300"))
    tap.ok(status == 0 and not err, "a run without moves", f"{status}\n{still}{err}")
    status, out, err, report = storm(work, "--seed", seed, "--hold", "2", "--rate", "5", "--seconds", "240", *mpiexec("heat2d", "96", "300"))
    tap.note(f"{report['moves']} moves in {report['seconds']} s, refused {report['refused']}")
    tap.equal((status, err), (0, ""), "held and moved: it ends with 0 and nothing on stderr")
    tap.equal(out.splitlines()[-1:], still.splitlines()[-1:], "held and moved: the checksum is that of the unmoved run")
    tap.equal(sorted(report["commits"]), [f"0.{rank}" for rank in range(RANKS)], "the report names each rank")
    tap.ok(report["least"] >= 2 and report["held"] == 2, "each has been moved twice before MPI_Init returned", report)
    tap.equal(str(report["seed"]), seed, "the report names the seed")
    tap.equal(kept(work), [], "a good run leaves nothing")

    status, _, _, report = storm(work, "--moves", "3", "--rate", "9", "--seconds", "4", *mpiexec("ending", "wait", os.path.join(work, "go")))
    tap.equal((status, report["status"]), (124, 124), "a command that does not end is ended, with 124")
    tap.ok(report["moves"] <= 3, "no more moves than were allowed", report)
    tap.equal(kept(work), ["log", "report.json", "stdout"], "a failed run leaves its log, output and report")

    open(os.path.join(work, "go"), "w", encoding="ascii").close()
    status, _, err, _ = storm(work, *mpiexec("ending", "exit", os.path.join(work, "go")))
    tap.equal(status, 3, "the exit status is the command's")
    status, out, _, _ = storm(work, "--expect", "No Errors", *mpiexec("heat2d", "64", "10", ranks=1))
    tap.equal((status, len(os.listdir(os.path.join(work, "keep")))), (0, 3), "output that is not as expected is a failure to keep")
    done = subprocess.run([STORM, "--hosts", "127.0.0.2", "mpiexec"], capture_output=True, text=True, timeout=60, check=False)
    tap.ok(done.returncode == 2 and "two hosts" in done.stderr, "one host is refused", done.stderr)
    tap.ok(tap.until(lambda: not jobs.descendants(), 20), "no process is left", jobs.descendants())
    shutil.rmtree(work, ignore_errors=True)


tap.main(test)
