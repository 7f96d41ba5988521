#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real programs moved in mid-work, ten times each at least; what they print and write is what it is unmoved.

Each runs as its caller and, if that is root, as an ordinary user with no_new_privs. MSOCK_TEST_ONLY: names of programs,
with commas; MSOCK_TEST_SIZE: how much work each has, 1 unless given; MSOCK_TEST_LONG: xz gets 500 MB.
"""
import hashlib
import json
import os
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "msock"))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3"]
MOVES = 10
LIMIT_S = 3000
SIZE = float(os.environ.get("MSOCK_TEST_SIZE") or 1)
XZ_MB = 500 if os.environ.get("MSOCK_TEST_LONG") == "1" else 60
PROGRAMS = os.path.join(HERE, "programs")
ASUSER = os.path.join(os.path.dirname(HERE), "mpi", "asuser")
TOP = os.path.dirname(os.path.dirname(HERE))
PYTHON = "/usr/bin/python3"  # the distribution's, for which its packages are


class Amount:
    """How much work a program gets: more than at first when it was over before it had been moved often enough."""
    factor = 1


def times(count):
    return str(max(1, int(count * SIZE * Amount.factor)))


def source(name):
    return os.path.join(PROGRAMS, name)


class Missing(Exception):
    """What a program needs and this machine lacks."""


def need(name):
    path = shutil.which(name)
    if not path:
        raise Missing(f"{name} is not installed")
    return path


def build(work, *words):
    """A compiler's run; its output is in work."""
    need(words[0])
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{words[0]}: {done.stderr.strip().splitlines()[-1]}")


def large_file(path, megabytes):
    """Neither random nor dull: pieces of one text again and again, with noise between."""
    rng = random.Random(4711)
    words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(2, 12))) for _ in range(3000)]
    pool = b" ".join(rng.choice(words) for _ in range(1 << 19))
    with open(path, "wb") as file:
        for _ in range(megabytes * 16):
            at = rng.randrange(len(pool) - 60000)
            file.write(pool[at:at + 60000] + rng.randbytes(5536))


def c_file(path, functions):
    """Already preprocessed C, of which the compiler has much to optimise."""
    with open(path, "w", encoding="ascii") as file:
        for n in range(functions):
            file.write(f"""
struct s{n} {{ int a[{n % 7 + 3}]; double b; struct s{n} *next; }};
static int helper{n}(int x, int y) {{ return x * {n % 91 + 3} ^ y >> {n % 5 + 1}; }}
int work{n}(struct s{n} *s, const int *in, int count)
{{
	int sum = {n};
	for (int i = 0; i < count; i++) {{
		for (int j = 0; j < {n % 7 + 3}; j++)
			s->a[j] += helper{n}(in[i], j) + (in[i] % {n % 13 + 2} ? sum : -j);
		switch (in[i] & 7) {{
		case 0: sum += s->a[0]; break;
		case 1: sum ^= helper{n}(sum, i); break;
		case 5: s->b *= 1.5 + sum; break;
		default: sum -= in[count - 1 - i];
		}}
		if (s->next && s->next->b > s->b)
			s = s->next;
	}}
	return sum + (int)s->b;
}}
""")


def blas(work):
    if subprocess.run([PYTHON, "-c", "import numpy"], capture_output=True, check=False).returncode != 0:
        raise Missing("python3-numpy is not installed")
    return {"words": [PYTHON, source("blas.py"), times(150)], "env": {"OPENBLAS_NUM_THREADS": "4"}}


def openmp(work):
    build(work, "gcc", "-O2", "-fopenmp", "-o", "omp", source("omp.c"))
    return {"words": [os.path.join(work, "omp"), times(8000)], "env": {"OMP_WAIT_POLICY": "passive"}}


def xz(work):
    path = os.path.join(work, "large")
    large_file(path, int(times(XZ_MB)))
    return {"words": [need("xz"), "-T4", "-2", "--keep", "--stdout", path]}


def database(work, journal):
    script = [f"pragma journal_mode={journal};", "create table t (n integer primary key, word text, sum integer);",
              "create index by_word on t (word);"]
    for number in range(int(times(300))):
        script += ["begin;", f"insert into t select {number} * 1000 + value, printf('%x', value * 7919 % 65537), value * {number} "
                   "from generate_series(1, 400);", f"update t set sum = sum + 1 where n % 97 = {number % 97};",
                   f"delete from t where n % 101 = {number % 101};", "rollback;" if number % 10 == 9 else "commit;"]
        if number % 20 == 0:
            script.append("select count(*), sum(sum), max(word) from t;")
    script += ["pragma integrity_check;", "select count(*), sum(n * 3 + sum), min(word) from t;", "pragma wal_checkpoint(truncate);"]
    path = os.path.join(work, "script.sql")
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(script) + "\n")
    return {"words": [need("sqlite3"), "-batch", "store.db", f".read {path}"], "files": ["store.db"]}


def cc1(work):
    c_file(os.path.join(work, "big.i"), int(times(500)))
    found = subprocess.run([need("gcc"), "-print-prog-name=cc1"], capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(found):
        raise Missing("gcc has no cc1")
    return {"words": [found, "-fpreprocessed", "-quiet", "-O2", os.path.join(work, "big.i"), "-o", "big.s"], "files": ["big.s"]}


def bc(work):
    path = os.path.join(work, "long.bc")
    with open(path, "w", encoding="ascii") as file:
        file.write("scale = 200\nfor (i = 1; i <= " + times(150) + "; i++) {\n\tx = 4 * a(1 / i) + e(1 / i) + s(i) * l(i + 1)\n"
                   "\tt += x\n\tif (i % 20 == 0) t\n}\nt\nquit\n")
    return {"words": [need("bc"), "-lq", path]}


def fortran(work):
    build(work, "gfortran", "-O2", "-o", "units", source("units.f90"))
    return {"words": [os.path.join(work, "units"), times(6000)], "files": ["listing.txt", "values.bin", "table.bin", "stream.bin"]}


def java(work):
    build(work, "javac", "-d", work, source("Heap.java"))
    return {"words": [os.path.realpath(need("java")), "-Xmx64m", "-cp", work, "Heap", times(6000)]}


PROGRAM = {
    "numpy": blas,
    "openmp": openmp,
    "xz": xz,
    "sqlite": lambda work: database(work, "delete"),
    "sqlite-wal": lambda work: database(work, "wal"),
    "cc1": cc1,
    "perl": lambda work: {"words": [need("perl"), source("words.pl"), times(2000), "lines"], "files": ["lines"]},
    "bc": bc,
    "lua": lambda work: {"words": [need("lua5.4"), source("tables.lua"), times(2000)]},
    "fortran": fortran,
    "node": lambda work: {"words": [need("node"), source("loop.js"), times(800), "log"], "files": ["log"]},
    "java": java,
}


class User:
    """Whose programs they are: the caller's, or an ordinary user's without a way to rights."""

    def __init__(self, name, prefix, top):
        self.name, self.prefix, self.top = name, prefix, top
        self.rundir = os.path.join(top, "run")
        self.env = dict(os.environ, MSOCK_RUNDIR=self.rundir, HOME=top, TMPDIR=top, MSOCK_LIBDIR=os.path.join(launch.BUILD, ".libs"),
                        MSOCK_HELPERDIR=f"{launch.BUILD}:{launch.BUILD}/msock/image")

    def own(self, path):
        """A new directory of that user's."""
        os.mkdir(path, 0o755)
        if self.prefix and os.geteuid() == 0:
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
        return path

    def start(self, words, env=(), **options):
        # The directory is entered behind the prefix, which may hide what is above it.
        where = options.pop("cwd", "/")
        return subprocess.Popen([*self.prefix, "/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", where, *words],
                                env={**self.env, **dict(env)}, **options)

    def tool(self, *words):
        child = self.start([launch.program(words[0]), *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = child.communicate(timeout=300)
        return child.returncode, out, err


def users(top):
    yield User("as its caller", [], top)
    if os.geteuid() == 0:
        yield User("as a user with no_new_privs", [ASUSER, ":".join([TOP, launch.BUILD, top])], top)


def result(where, child, out, err, files):
    """(status, stdout, stderr, a hash of each file it was to leave), the first two as hashes."""
    status = child.wait()
    sums = []
    for path in [out, *(os.path.join(where, name) for name in files)]:
        with open(path, "rb") as file:
            sums.append(f"{os.path.basename(path)} {os.path.getsize(path)} {hashlib.file_digest(file, 'sha256').hexdigest()}"
                        if hasattr(hashlib, "file_digest") else f"{os.path.basename(path)} {hashlib.sha256(file.read()).hexdigest()}")
    with open(err, encoding="utf-8", errors="replace") as file:
        said = file.read()
    return status, sums, said


def runs(user):
    status, out, _ = user.tool("msrank-ps", "--json")
    return status == 0 and any(r["state"] == "running" and r["pid"] for r in json.loads(out)["ranks"])


def move_about(user, child):
    """Moves while it works; (committed moves, reports, what failed)."""
    rng, reports, failed = random.Random(1), [], []
    tap.until(lambda: child.poll() is not None or runs(user), 60)
    while child.poll() is None and len(reports) < MOVES and not failed:
        status, out, err = user.tool("msrank-move", "--job", "mine", "--json", "0", HOSTS[(len(reports) + 1) % 2])
        if status == 0:
            reports.append(json.loads(out))
        elif not any(over in err for over in ("it ended while it was moving", "has ended", "no job")):
            failed.append(err.strip())
        time.sleep(rng.uniform(0, 0.1))
    return reports, failed


def run(user, case, moved):
    where = user.own(os.path.join(user.top, "work"))
    out, err = os.path.join(user.top, "out"), os.path.join(user.top, "err")
    options = [launch.program("msrun"), "--job", "mine", "--host", ",".join(HOSTS)] if moved else []
    reports = failed = ()
    with open(out, "wb") as to, open(err, "wb") as says:
        child = user.start([*options, *case["words"]], case.get("env", {}), cwd=where, stdin=subprocess.DEVNULL, stdout=to, stderr=says)
        try:
            if moved:
                reports, failed = move_about(user, child)
            child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            child.terminate()
    got = result(where, child, out, err, case.get("files", ()))
    shutil.rmtree(where)
    return got, reports, failed


def middle(reports, key):
    values = sorted(r[key] for r in reports)
    return f"{values[len(values) // 2]:.1f} (worst {values[-1]:.1f})" if values else "-"


def both_ways(name, user, work):
    """The program unmoved and moved; again with more work if it was over too soon to be moved in its middle."""
    for Amount.factor in (1, 3, 9):
        case = PROGRAM[name](work)
        begun = time.monotonic()
        want, _, _ = run(user, case, False)
        begun, plain = time.monotonic(), time.monotonic() - begun
        got, reports, failed = run(user, case, True)
        if len(reports) == MOVES or failed or got != want:
            break
    return want, got, reports, failed, plain, time.monotonic() - begun


def program(name, user, work):
    try:
        want, got, reports, failed, plain, moved = both_ways(name, user, work)
    except Missing as why:
        tap.skip(f"{name} {user.name}", str(why))
        return
    tap.ok(want[0] == 0, f"{name} {user.name}: unmoved", want)
    tap.note(f"{name}: {plain:.1f} s unmoved, {moved:.1f} s moved; freeze {middle(reports, 'freeze_ms')} ms, "
             f"total {middle(reports, 'total_ms')} ms, {max((r['image_bytes'] for r in reports), default=0) / 1e6:.0f} MB at most")
    tap.ok(not failed and len(reports) == MOVES, f"{name} {user.name}: moved {MOVES} times in mid-work",
           f"{len(reports)} moves; {failed}\n{got}")
    tap.equal(got, want, f"{name} {user.name}: says and writes the same")


def test():
    wanted = [name for name in (os.environ.get("MSOCK_TEST_ONLY") or ",".join(PROGRAM)).split(",") if name]
    top = tempfile.mkdtemp(prefix="msock-programs-")
    os.chmod(top, 0o755)
    try:
        for number, user in enumerate(users(top)):
            user.top = user.own(os.path.join(top, str(number)))
            user.rundir = user.env["MSOCK_RUNDIR"] = user.own(os.path.join(user.top, "run"))
            user.env["HOME"] = user.env["TMPDIR"] = user.top
            for name in wanted:
                work = os.path.join(top, "input")
                os.mkdir(work)
                program(name, user, work)
                shutil.rmtree(work)
            tap.equal(launch.children(), [], f"{user.name}: no process is left")
    finally:
        launch.kill_children()
        shutil.rmtree(top, ignore_errors=True)


tap.main(test)
