#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The coordinator is killed and started again: ranks and stubs do not notice, nothing is lost or repeated; the second time all ends."""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

ORPHAN_S = 15  # so long a daemon waits for the next coordinator
BYTES = 6 << 20
STEPS = {"accepted": False, "begun": True, "wanted": True, "recorded": True, "told-one": True, "told": True, "resumed": True, "relinked": True,
         "reported": True}
SHORT = ("accepted", "wanted", "told-one")
LONG = bool(os.environ.get("MSOCK_TEST_LONG"))


def pipe_through(job):
    """A rank that copies its standard input; the coordinator dies when half of it has gone through."""
    child = job.stub(0, ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    data = os.urandom(BYTES)
    path = write_file(job, data)
    feeder = subprocess.Popen(["cat", path], stdout=child.stdin)
    child.stdin.close()
    got = hashlib.sha256()
    size = 0
    while size < BYTES // 2:
        part = child.stdout.read1(65536)
        got.update(part)
        size += len(part)
    job.kill()
    tap.equal(job.again(), f"ready {job.dir}", "while bytes go through a rank the coordinator dies, and another is ready")
    got.update(child.stdout.read())
    child.stdout.close()
    tap.equal((child.wait(launch.LIMIT_S), got.hexdigest()), (0, hashlib.sha256(data).hexdigest()), "no byte is lost, repeated or another")
    feeder.wait()
    os.unlink(path)


def write_file(job, data):
    file, path = tempfile.mkstemp(dir=job.top)
    with open(file, "wb") as file:
        file.write(data)
    return path


def meanwhile(job):
    """Things that happen while there is no coordinator."""
    words = "trap 'echo usr1; exit 9' USR1; echo up; while :; do sleep 0.05; done"
    trapped = job.stub(1, ["sh", "-c", words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    ending = job.stub(2, ["sh", "-c", "echo up; read x; echo $x; exit 3"], host="127.0.0.3", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for child in (trapped, ending):
        tap.equal(child.stdout.readline(), b"up\n", "a rank is up")
    gone = job.stub(3, ["sleep", "1000"], host="127.0.0.3", stdin=subprocess.DEVNULL)
    tap.ok(tap.until(lambda: len(launch.named("sleep")) >= 1 and job.ps().get(3, {}).get("pid"), 10), "one that sleeps, too")
    sleeper = job.ps()[3]["pid"]
    job.kill()
    trapped.send_signal(signal.SIGUSR1)
    ending.stdin.write(b"word\n")
    ending.stdin.close()
    os.kill(sleeper, signal.SIGTERM)
    late = job.stub(4, ["sh", "-c", "echo late"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    time.sleep(0.3)  # all of them have seen that nobody is there; nothing depends on it
    tap.ok(all(child.poll() is None for child in (trapped, ending, gone, late)), "without a coordinator the stubs wait")
    tap.equal(job.again(), f"ready {job.dir}", "another coordinator is ready")
    tap.equal((trapped.stdout.read(), trapped.wait(30)), (b"usr1\n", 9), "a signal that was sent meanwhile arrives")
    tap.equal((ending.stdout.read(), ending.wait(30)), (b"word\n", 3), "what was said meanwhile arrives, and so does the exit")
    tap.equal(gone.wait(30), -signal.SIGTERM, "a rank that ended meanwhile is told")
    tap.equal((late.stdout.read(), late.wait(30)), (b"late\n", 0), "a stub that came meanwhile gets its rank")
    tap.equal(job.ps()[1]["state"], "ended", "msrank-ps knows them all")
    for child in (trapped, ending, late):
        child.stdout.close()


def after(job):
    status, out, err = job.run(9, ["sh", "-c", "echo out; exit 4"], host="127.0.0.3")
    tap.equal((status, out, err), (4, b"out\n", b""), "the new one starts ranks")


class Rank(launch.Talker):
    """A knock under a stub: serves under a virtual address, or calls one."""
    name = "tests/msock/knock"
    wait_s = 20


def in_a_move(step, committed):
    """The coordinator dies right after a step of its own; msrank-move, which asks again, tells what the records say."""
    job = launch.Launch(secret=True)
    served, calls = Rank(job, "serve", "127.0.0.2"), Rank(job, "call", "127.0.0.2")
    address = served.line()
    tap.equal((calls.line(), calls.ask(address)), ("up", "ok"), f"{step}: two members talk")
    mover = subprocess.Popen([launch.program("msrank-move"), "--json", "--fault", f"die@{step}", str(served.number), "127.0.0.3"],
                             env=job.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        job.coord.wait(20)
    except subprocess.TimeoutExpired:
        pass
    job.kill()
    tap.equal(job.again(), f"ready {job.dir}", f"{step}: the coordinator died, another one is ready")
    out, err = mover.communicate(timeout=60)
    where = job.ps()[served.number]["host"]
    tap.equal((mover.returncode, '"committed": true' in out or '"committed":true' in out, where),
              (0, True, "127.0.0.3") if committed else (1, False, "127.0.0.2"), f"{step}: {'moved' if committed else 'not moved'}")
    tap.equal(err.count("\n"), 0 if committed else 1, f"{step}: in one line")
    tap.equal(calls.ask(address), "ok", f"{step}: the member is found where it is")
    status, _, err = job.tool("msrank-move", str(served.number), "127.0.0.2" if committed else "127.0.0.3")
    tap.ok(status == 0, f"{step}: and moves again", err)
    tap.equal(calls.ask(address), "ok", f"{step}: and is found again")
    for rank in (served, calls):
        rank.child.kill()
        rank.child.wait()
    tap.equal((job.end(), job.leftovers()), (0, []), f"{step}: nothing is left")
    job.close()


def under_msrun():
    """msrun starts another one by itself, once."""
    top = tempfile.mkdtemp(prefix="msock-again-")
    env = launch.environment(top)
    child = subprocess.Popen([launch.program("msrun"), "--host", "127.0.0.2,127.0.0.3", "cat"], env=env, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = set()
    for word in (b"one\n", b"two\n"):
        child.stdin.write(word)
        child.stdin.flush()
        tap.equal(child.stdout.readline(), word, f"msrun: {word.decode().strip()} comes back")
        pid = tap.until(lambda: next(iter(set(launch.named("msrank-coord")) - seen), None), 20)
        if word == b"two\n":  # the new one must have been ready, or the death would be in its start
            done = subprocess.run([launch.program("msrank-ps"), "--json"], env=env, capture_output=True, text=True, timeout=60, check=False)
            tap.ok(done.returncode == 0 and '"running"' in done.stdout, "msrun: msrank-ps shows the program", (done.stdout, done.stderr))
        seen.add(pid)
        os.kill(pid, signal.SIGKILL)
    out, err = child.communicate(timeout=60)
    tap.ok(child.returncode == 255 and b"killed a second time" in err, "msrun: the second time the job ends, and msrun says why",
           (child.returncode, out, err))
    tap.ok(tap.until(lambda: not launch.children(), 5), "msrun: no process is left")
    tap.equal([name for _, _, names in os.walk(top) for name in names], [], "msrun: no file is left")
    shutil.rmtree(top, ignore_errors=True)


def second_death():
    job = launch.Launch(secret=True)
    child = job.stub(0, ["sleep", "1000"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    tap.ok(tap.until(lambda: launch.named("sleep"), 10), "a rank is up")
    job.kill()
    job.again()
    tap.ok(tap.until(lambda: job.ps().get(0, {}).get("state") == "running", 10), "the new coordinator has it")
    job.kill()
    began = time.monotonic()
    _, err = child.communicate(timeout=30)
    tap.ok(child.returncode == 255 and b"coordinator is gone" in err, "killed for the second time: the stub says so", (child.returncode, err))
    tap.equal(job.leftovers(), [], "and nothing is left")
    tap.ok(time.monotonic() - began < 5, "at once", time.monotonic() - began)
    job.close()


def nobody_comes():
    job = launch.Launch(secret=True)
    child = job.stub(0, ["sleep", "1000"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    tap.ok(tap.until(lambda: launch.named("sleep"), 10), "a rank is up")
    job.kill()
    tap.ok(tap.until(lambda: not launch.named("sleep") and not launch.named("msdaemon"), ORPHAN_S + 10, 0.1),
           "no other coordinator is started: daemons and ranks end")
    _, err = child.communicate(timeout=30)
    tap.ok(child.returncode == 255 and b"coordinator is gone" in err, "the stub says so", (child.returncode, err))
    tap.equal(job.leftovers(), [], "nothing is left")
    job.close()


def test():
    for title, parts in (("bytes", (pipe_through, after)), ("meanwhile", (meanwhile, after))):
        job = launch.Launch(secret=True)
        tap.ok(job.said.startswith("ready "), f"{title}: the coordinator is ready", job.said)
        for part in parts:
            part(job)
        tap.equal(job.end(), 0, f"{title}: mpiexec ends: so does the coordinator")
        tap.equal(job.leftovers(), [], f"{title}: no process and no file is left")
        job.close()
    for step, committed in STEPS.items():
        if LONG or step in SHORT:
            in_a_move(step, committed)
    under_msrun()
    second_death()
    if LONG:
        nobody_comes()


tap.main(test)
