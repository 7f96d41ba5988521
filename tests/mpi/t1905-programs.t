#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Programs of Debian, built against its MPICH, unchanged under storm: their results are those of a run without moves.

ScaLAPACK's testers, tachyon's MPI build, NetPIPE; and HDF5's MPI library through h5slab.c. Each rank of each run is moved
at least twice. MSOCK_TEST_ONLY: only programs whose name begins with it.
"""
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

STORM = os.path.join(jobs.HERE, "storm")
SCALAPACK = "/usr/lib/x86_64-linux-gnu/scalapack/mpich-tests"
SCALAPACK_INPUT = "/usr/share/scalapack"
TESTERS = ["xdlu", "xzlu", "xdllt", "xdqr", "xcls", "xdinv", "xdhrd", "xdtrd", "xdsep"] if jobs.LONG else ["xdlu", "xdqr"]
SCENES = "/usr/share/doc/tachyon/examples/scenes"
TACHYON = "/usr/lib/x86_64-linux-gnu/libtachyon-mpich.so.0"
HDF5_CFLAGS = ["-I/usr/include/hdf5/mpich"]
HDF5_LIBS = ["-L/usr/lib/x86_64-linux-gnu/hdf5/mpich", "-lhdf5"]
RUN_S = 900
FIGURE = re.compile(r"-?\d+\.\d*(?:[ED][+-]\d+)?|\*+")  # times and rates; sizes are whole numbers


class Program:
    """A command and what its result is, besides its exit status."""

    def __init__(self, name, ranks, words, result, inputs=(), missing=None, library=None):
        self.name, self.ranks, self.words, self.result = name, ranks, words, result
        self.inputs, self.missing, self.library = inputs, missing, library


def verdicts(out, _):
    """A tester's lines without its figures, in order."""
    return [" ".join(FIGURE.sub("", line).split()) for line in out.splitlines()]


def picture(_, work):
    return digest(os.path.join(work, "out.ppm"))


def sizes(out, _):
    return re.findall(r"^ *\d+: +(\d+) bytes", out, re.M)


def planes(out, work):
    return [digest(os.path.join(work, "planes.h5"))] + out.splitlines()


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def missing(*paths):
    return next((path for path in paths if not os.path.exists(path)), None)


def programs(built):
    """All of them; `built` is where ours is."""
    for name in TESTERS:
        path = os.path.join(SCALAPACK, name)
        yield Program(f"ScaLAPACK's {name}", 4, [path], verdicts, glob.glob(f"{SCALAPACK_INPUT}/*.dat"), missing(path))
    scene = os.path.join(SCENES, "sc98.dat")
    size = "4000" if jobs.LONG else "1600"
    yield Program("tachyon", 4, ["tachyon-nox", scene, "-numthreads", "1", "-res", size, size, "-format", "PPM", "-o", "out.ppm"], picture,
                  missing=missing("/usr/bin/tachyon-nox", TACHYON, scene), library=TACHYON)
    netpipe = shutil.which("NPmpich2")
    yield Program("NetPIPE", 2, [netpipe, "-u", "4194304" if jobs.LONG else "131072", "-o", "np.out"], sizes,
                  missing=None if netpipe else "NPmpich2")
    yield Program("HDF5's MPI library", 3, [os.path.join(built, "h5slab"), "planes.h5", "400" if jobs.LONG else "60"], planes,
                  missing=missing("/usr/include/hdf5/mpich/hdf5.h"))


def build(work):
    if os.path.exists("/usr/include/hdf5/mpich/hdf5.h"):
        source = os.path.join(jobs.HERE, "h5slab.c")
        subprocess.run([jobs.command("mpicc"), *HDF5_CFLAGS, "-o", os.path.join(work, "h5slab"), source, *HDF5_LIBS], check=True, timeout=120)


def run(program, top, moves):
    """One run in a directory of its own: (status, result, the report of the storm)."""
    work = tempfile.mkdtemp(dir=top)
    report = os.path.join(top, "report")
    for path in program.inputs:
        shutil.copy(path, work)
    libraries = [os.path.join(jobs.PREFIX, "lib")]
    if program.library:  # under the name by which the program wants it, whatever the system's alternative is
        os.symlink(program.library, os.path.join(work, re.sub(r"-mpich", "", os.path.basename(program.library))))
        libraries.append(work)
    env = jobs.clean_environment(MSOCK_TEST_BUILD=jobs.BUILD, LD_LIBRARY_PATH=":".join(libraries), OMP_NUM_THREADS="1")
    storm = [STORM, "--report", report, "--seconds", str(RUN_S), "--via", "auto,drain,mirror"]
    storm += ["--hold", "2", "--rate", "2"] if moves else ["--moves", "0"]
    done = subprocess.run([*storm, jobs.command("mpiexec"), "-n", str(program.ranks), *program.words], cwd=work, env=env, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_S + 60, check=False)
    with open(report, encoding="utf-8") as lines:
        told = json.loads(lines.readlines()[-1])
    said = "\n".join([*done.stdout.splitlines(), *sorted(done.stderr.splitlines())])  # ranks' stderr has no order
    result = program.result(said, work) if done.returncode == 0 else said[-3000:]
    shutil.rmtree(work)
    return done.returncode, result, told


def compare(program, top):
    status, still, _ = run(program, top, False)
    if not tap.ok(status == 0 and len(still) > 0, f"{program.name} without moves", still):
        return
    status, moved, report = run(program, top, True)
    tap.note(f"{program.name}: {report['moves']} moves, {report['least']} of the rank with the fewest, in {report['seconds']:.0f} s; "
             f"refused {report['refused']}")
    tap.ok(status == 0 and moved == still, f"{program.name} under storm gives the same",
           moved if status else f"{[pair for pair in zip(still, moved) if pair[0] != pair[1]][:9]} {len(still)} {len(moved)}")
    tap.ok(report["least"] >= 2, "each of its ranks has been moved twice or more", report["commits"])


def test():
    top = tempfile.mkdtemp(prefix="msock-programs-")
    build(top)
    for program in programs(top):
        if not program.name.startswith(os.environ.get("MSOCK_TEST_ONLY", "")):
            continue
        if program.missing:
            tap.skip(program.name, f"{program.missing} is not there: see quickstart's packages_long")
        else:
            compare(program, top)
    tap.ok(tap.until(lambda: not jobs.descendants(), 20), "no process is left", jobs.descendants())
    shutil.rmtree(top, ignore_errors=True)


tap.main(test)
