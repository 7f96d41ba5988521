#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""MPICH's own tests, directories pt2pt and coll, without moves: nothing fails on ch3:msock that passes on ch3:sock.

Both libraries come from one patched tree with the same options (mpich-channel/build). Settings: MSOCK_TEST_SOCK, a
prefix with ch3:sock (else it is built); MSOCK_TEST_SUITE, the test/mpi directory (else that of the tree);
MSOCK_TEST_LISTS, the list files; MSOCK_TEST_WORK, where the tests are built (kept).
"""
import glob
import hashlib
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

DIRECTORIES = ("pt2pt", "coll")
LISTS = os.environ.get("MSOCK_TEST_LISTS") or "testlist,testlist.dtp,testlist.cvar"
HOSTS = "127.0.0.2,127.0.0.3,127.0.0.4"
WORK = os.environ.get("MSOCK_TEST_WORK") or os.path.join(jobs.BUILD, "suite")
MPICH_BUILD = os.path.join(jobs.TOP, "mpich-channel", "build")
RUN_S = 4 * 3600
RESULT = re.compile(r"(ok|not ok) +(?:\d+ )?- (\S+ \d+)(?: +# (SKIP|TODO|time).*)?")


def shell(words, log, **options):
    with open(log, "w", encoding="utf-8") as out:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=RUN_S, check=False,
                              **options)
    return done.returncode


def prepare(name, prefix, suite):
    """Configure and build the tests against one library; returns the directory."""
    where = os.path.join(WORK, name)
    os.makedirs(where, exist_ok=True)
    if not os.path.exists(os.path.join(where, "runtests")):
        flags = "-O2 -fallow-argument-mismatch -fallow-invalid-boz"
        env = dict(os.environ, FFLAGS=flags, FCFLAGS=flags)
        words = [os.path.join(suite, "configure"), f"--with-mpi={prefix}", f"CC={prefix}/bin/mpicc", "--disable-cxx"]
        if shell(words, os.path.join(where, "configure.log"), cwd=where, env=env) != 0:
            raise RuntimeError(f"the tests cannot be configured: {where}/configure.log")
    for directory in ("util", "dtpools") + DIRECTORIES:
        shell(["make", "-s", "-k", f"-j{os.cpu_count()}", "-C", directory], os.path.join(where, f"{directory}.log"), cwd=where)
    return where


def list_hash(where):
    total = hashlib.sha256()
    for directory in DIRECTORIES:
        for name in LISTS.split(","):
            for path in glob.glob(os.path.join(where, directory, name)):
                with open(path, "rb") as file:
                    total.update(f"{directory}/{name}\n".encode() + file.read())
    return total.hexdigest()


def run(where, prefix, launcher, suite):
    """{test: passed, failed or skipped}; a test is its directory, name, ranks and how many times it was seen before."""
    results, seen = {}, {}
    env = jobs.clean_environment(LD_LIBRARY_PATH=os.path.join(prefix, "lib"), MPITEST_MPIEXECARG=f"-launcher {launcher} -hosts {HOSTS}",
                                 MSOCK_RUNDIR=where)
    for directory in DIRECTORIES:
        here = os.path.join(where, directory)
        report = os.path.join(here, "result.tap")
        shell(["perl", "../runtests", f"-srcdir={suite}/{directory}", f"-tests={LISTS}", f"-mpiexec={prefix}/bin/mpiexec",
               f"-tapfile={report}"], os.path.join(here, "run.log"), cwd=here, env=env)
        with open(report, encoding="utf-8", errors="replace") as lines:
            for match in filter(None, map(RESULT.match, lines)):
                verdict, test, remark = match.groups()
                test = f"{directory}/{test.removeprefix('./')}"
                seen[test] = seen.get(test, 0) + 1
                results[f"{test} #{seen[test]}"] = "skipped" if remark == "SKIP" else "passed" if verdict == "ok" else "failed"
    return results


def counts(results, directory):
    values = [value for test, value in results.items() if test.startswith(directory + "/")]
    return f"{len(values):5d} {values.count('passed'):6d} {values.count('failed'):6d} {values.count('skipped'):7d}"


def test():
    suite = os.environ.get("MSOCK_TEST_SUITE")
    if not suite:
        tree = subprocess.run([MPICH_BUILD, "--source"], capture_output=True, text=True, timeout=RUN_S, check=True).stdout.split()[-1]
        suite = os.path.join(tree, "test", "mpi")
    sock = os.environ.get("MSOCK_TEST_SOCK")
    if not sock:
        sock = os.path.join(WORK, "prefix-sock")
        os.makedirs(WORK, exist_ok=True)
        if shell([MPICH_BUILD, "ch3:sock", sock], os.path.join(WORK, "prefix-sock.log")) != 0:
            raise RuntimeError(f"ch3:sock cannot be built: {WORK}/prefix-sock.log")
    theirs, ours = prepare("sock", sock, suite), prepare("msock", jobs.PREFIX, suite)
    tap.note(f"lists {LISTS}: sha256 {list_hash(theirs)}")
    tap.equal(list_hash(ours), list_hash(theirs), "both run the same lists")
    reference = run(theirs, sock, "fork", suite)
    results = run(ours, jobs.PREFIX, "msock", suite)
    tap.note("              tests passed failed skipped")
    for directory in DIRECTORIES:
        tap.note(f"{directory:6s} sock  {counts(reference, directory)}")
        tap.note(f"{directory:6s} msock {counts(results, directory)}")
    worse = [f"{test}: {results.get(test, 'missing')}" for test, value in reference.items()
             if value == "passed" and results.get(test) != "passed"]
    better = [test for test, value in results.items() if value == "passed" and reference.get(test) != "passed"]
    for test in better:
        tap.note(f"passes on ch3:msock only: {test}")
    tap.ok(len(reference) > 100, "the reference ran", len(reference))
    tap.ok(not worse, "nothing fails, is missing or skipped on ch3:msock that passes on ch3:sock", "\n".join(worse))
    tap.equal(jobs.descendants(), [], "no process is left")


tap.main(test)
