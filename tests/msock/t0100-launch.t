#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Coordinator, daemons and stubs carry a job of ordinary programs: streams, signals, endings, and nothing is left."""
import hashlib
import os
import select
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402


def endings(job):
    status, out, err = job.run(0, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    tap.equal((status, out, err), (3, b"out\n", b"err\n"), "exit status 3, its output and its error output")
    status, _, _ = job.run(1, ["sh", "-c", "kill -SEGV $$"])
    tap.equal(status, -signal.SIGSEGV, "a rank killed by SIGSEGV: the stub dies of the same signal")
    status, _, err = job.run(2, ["/no/such/program"])
    tap.ok(status == 127 and b"/no/such/program" in err, "no such program: 127 and its name", (status, err))
    status, _, err = job.run(3, ["true"], host="127.0.0.99")
    tap.ok(status == 255 and b"127.0.0.99" in err, "a host that is not of the job: 255 and its name", (status, err))
    tap.equal(job.run(3, ["true"])[0], 0, "which was not a rank yet: its number is free")


def numbers(job):
    """A number is one rank's, also when that has ended."""
    child = job.stub(30, ["sh", "-c", "echo up; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tap.equal(child.stdout.readline(), b"up\n", "a rank is up")
    status, out, err = job.run(30, ["echo", "second"])
    tap.ok(status == 255 and not out and b"rank 0.30 runs already" in err and err.count(b"\n") == 1, "its number is refused", (status, out, err))
    tap.equal((child.communicate(b"end\n", launch.LIMIT_S)[0], child.returncode), (b"", 0), "it goes on, and ends well")
    for host in ("127.0.0.2", "127.0.0.3"):
        status, out, err = job.run(30, ["echo", "second"], host=host)
        tap.ok(status == 255 and not out and b"rank 0.30 has ended" in err and err.count(b"\n") == 1,
               f"it has ended: its number is refused on {host}", (status, out, err))


def surroundings(job):
    status, out, _ = job.run(4, ["sh", "-c", 'umask; pwd; echo "$X" "$1"; ulimit -n; ps -o sid= -p $$', "x", "two words"],
                             env={"X": "a b"}, cwd="/usr", preexec_fn=lambda: os.umask(0o027))
    lines = out.decode().split("\n")
    want = str(__import__("resource").getrlimit(7)[0])
    tap.equal((status, lines[:4]), (0, ["0027", "/usr", "a b two words", want]), "umask, directory, environment, arguments, limits")
    status, out, _ = job.run(5, ["sh", "-c", "ls /proc/self/fd"])
    tap.equal(out.split(), [b"0", b"1", b"119", b"2", b"3"], "no descriptor but 0, 1, 2 and the control socket (ls has one more)")


def streams(job):
    data = os.urandom(10 << 20)
    status, out, _ = job.run(6, ["cat"], data=data)
    tap.ok(status == 0 and out == data, "10 MB through stdin and stdout", f"{status}, {len(out)} bytes")
    status, out, _ = job.run(7, ["md5sum"], data=data, host="127.0.0.3")
    tap.equal(out[:32].decode(), hashlib.md5(data).hexdigest(), "10 MB to a program that reads to the end")
    child = job.stub(8, ["sh", "-c", "head -c 3000000 /dev/zero; echo done >&2"], stdin=subprocess.DEVNULL,
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3)  # nobody reads: the windows fill up and the rank waits
    tap.ok(child.poll() is None, "a rank whose output nobody reads waits")
    out, err = child.communicate(timeout=30)
    tap.ok(len(out) == 3000000 and err == b"done\n", "and all of it comes when somebody does", (len(out), err))


def pmi_as(job, rank, number):
    """number: of PMI's descriptor in the stub; the rank's control socket has one of these too."""
    ours, theirs = launch.socket.socketpair()
    os.dup2(theirs.fileno(), number, inheritable=True)
    theirs.close()
    strange, end = os.pipe()  # as Hydra's proxy leaves the ends of other ranks to a stub
    child = job.stub(rank, ["bash", "-c", "read line <&$PMI_FD; echo got $line >&$PMI_FD"],
                     env={"PMI_FD": str(number)}, pass_fds=[number, end], stdin=subprocess.DEVNULL)
    os.close(number)
    os.close(end)
    tap.equal((select.select([strange], [], [], 30)[0], child.poll()), ([strange], None), "the stub closes what is not its own")
    os.close(strange)
    ours.settimeout(30)
    ours.sendall(b"cmd=init\n")
    tap.equal(ours.recv(100), b"got cmd=init\n", f"PMI goes both ways, as descriptor {number} of the stub")
    tap.equal(child.wait(30), 0, "and the rank ends")
    tap.equal(ours.recv(100), b"", "and the descriptor is closed then")
    ours.close()


def pmi(job):
    for rank, number in (9, 20), (40, 118), (41, 119), (42, 700):
        pmi_as(job, rank, number)


def signals(job):
    child = job.stub(10, ["sh", "-c", "trap 'echo usr1; exit 9' USR1; echo up; while :; do sleep 0.05; done"],
                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    tap.equal(child.stdout.readline(), b"up\n", "a rank with a signal handler is up")
    child.send_signal(signal.SIGUSR1)
    tap.equal((child.stdout.read(), child.wait(30)), (b"usr1\n", 9), "SIGUSR1 to the stub reaches it")
    child.stdout.close()
    child = job.stub(11, ["sleep", "1000"], stdin=subprocess.DEVNULL)
    tap.ok(tap.until(lambda: launch.named("sleep"), 10), "a sleeping rank is up")
    child.kill()
    child.wait()
    tap.ok(tap.until(lambda: not launch.named("sleep"), 10), "SIGKILL to the stub ends it")


def tools(job):
    child = job.stub(12, ["sleep", "1000"], stdin=subprocess.DEVNULL, host="127.0.0.3")
    tap.ok(tap.until(lambda: job.ps().get(12, {}).get("pid"), 10), "msrank-ps shows a rank")
    rank = job.ps()[12]
    tap.equal((rank["host"], rank["state"], rank["moves"]), ("127.0.0.3", "running", 0), "its host, state and moves")
    for title, words, want in (
            ("unknown rank", ["77", "127.0.0.2"], "no rank 0.77"), ("unknown host", ["12", "nowhere"], "nowhere"),
            ("the host it is on", ["12", "127.0.0.3"], "127.0.0.3 already"), ("no list", ["x", "127.0.0.3"], "x is no list"),
            ("not in MPI_Init", ["0.12", "127.0.0.2"], "MPI_Init"), ("ended", ["0", "127.0.0.3"], "has ended"),
            ("unknown job", ["--job", "1-2", "0", "127.0.0.3"], "1-2")):
        status, _, err = job.tool("msrank-move", *words)
        tap.ok(status == 1 and want in err and err.count("\n") == 1, f"msrank-move: {title}: one line, exit 1", (status, err))
    child.kill()
    child.wait()


def whole_job():
    job = launch.Launch()
    tap.ok(job.said.startswith("ready "), "the coordinator is ready", job.said)
    tap.equal(stat.S_IMODE(os.stat(job.dir).st_mode), 0o700, "the job directory is ours alone")
    for part in (endings, numbers, surroundings, streams, pmi, signals, tools):
        part(job)
    many = [job.stub(100 + n, ["echo", str(n)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for n in range(32)]
    tap.equal([child.communicate(timeout=60)[0] for child in many], [f"{n}\n".encode() for n in range(32)], "32 ranks at once")
    last = job.stub(200, ["sleep", "1000"], stdin=subprocess.DEVNULL)
    tap.ok(tap.until(lambda: launch.named("sleep"), 10), "one more rank is up")
    began = time.monotonic()
    tap.equal(job.end(), 0, "mpiexec ends: so does the coordinator")
    last.wait(10)
    tap.ok(time.monotonic() - began < 3, "within three seconds")
    tap.equal(job.leftovers(), [], "no process and no file is left")
    status, _, err = job.tool("msrank-move", "0", "127.0.0.2")
    tap.ok(status == 1 and err.count("\n") == 1 and "no job" in err, "msrank-move: a job that has ended", (status, err))
    job.close()


def lost_parts():
    job = launch.Launch(err=subprocess.PIPE)
    child = job.stub(0, ["sleep", "1000"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    other = job.stub(1, ["sleep", "1000"], host="127.0.0.3", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    tap.ok(tap.until(lambda: len(launch.named("sleep")) == 2, 10), "two ranks are up")
    daemons = {}
    for pid in launch.named("msdaemon"):  # a child of one has its name until it runs another program
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file, open(f"/proc/{pid}/stat", encoding="ascii") as figures:
                if int(figures.read().rsplit(")", 1)[1].split()[1]) == job.coord.pid:
                    daemons[file.read().split(b"\0")[2].decode()] = pid
        except OSError:
            pass
    os.kill(daemons["127.0.0.2"], signal.SIGKILL)
    _, err = child.communicate(timeout=30)
    said = job.coord.stderr.readline()
    tap.ok(child.returncode == 255 and b"rank 0.0 is lost with its host 127.0.0.2" in said and not err,
           "a daemon is killed: the coordinator says what is lost, once, the stub ends", (child.returncode, said, err))
    tap.ok(tap.until(lambda: len(launch.named("sleep")) == 1, 10), "and the rank is gone")
    tap.ok(other.poll() is None, "the other rank goes on")
    job.coord.kill()
    job.coord.wait()
    _, err = other.communicate(timeout=30)
    tap.ok(other.returncode == 255 and b"coordinator" in err, "the coordinator is killed: the stub says so", (other.returncode, err))
    tap.ok(tap.until(lambda: not launch.children(), 10), "and everything ends")
    job.close()


def bad_starts():
    for title, options, want in (("a name that does not exist", {"hosts": ["no-such-host.invalid"]}, "no-such-host.invalid"),
                                 ("a remote shell that fails", {"hosts": ["192.0.2.1"], "lines": ["launcher-exec false"]},
                                  "192.0.2.1"),
                                 ("a job id with a slash", {"job": "../x"}, "job")):
        job = launch.Launch(**options)
        tap.ok(job.said.startswith("error ") and want in job.said, f"{title}: one line says so", job.said)
        tap.equal(job.end(), 1, f"{title}: exit 1")
        tap.equal(job.leftovers(), [], f"{title}: nothing is left")
        job.close()


def blanks():
    """A remote shell joins the words of its command for the other side's sh: a directory with blanks and quotes."""
    top = launch.tempfile.mkdtemp(prefix="msock-blanks-")
    odd = os.path.join(top, "it's a $HOME of blanks")
    os.mkdir(odd)
    for name in ("msrank-coord", "msdaemon", "msmaster"):
        os.symlink(launch.program(name), os.path.join(odd, name))
    shell, words = os.path.join(top, "shell"), os.path.join(top, "words")
    with open(shell, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nshift\neval "set -- $*"\nprintf "%s\\n" "$@" > {words}\nexit 7\n')
    os.chmod(shell, 0o755)
    os.environ["MSOCK_HELPERDIR"], before = odd, os.environ.get("MSOCK_HELPERDIR")
    try:
        env = dict(os.environ, MSOCK_RUNDIR=top)
        job = subprocess.Popen([os.path.join(odd, "msrank-coord")], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        job.stdin.write(f"job 1-blanks\nlauncher-exec {shell}\nhost 192.0.2.1\nend\n")
        job.stdin.flush()
        said = job.stdout.readline()
        job.communicate(timeout=60)
    finally:
        del os.environ["MSOCK_HELPERDIR"]
        if before is not None:
            os.environ["MSOCK_HELPERDIR"] = before
    tap.ok("192.0.2.1" in said and "status 7" in said, "the remote shell was run", said)
    with open(words, encoding="utf-8") as file:
        tap.equal(file.read().splitlines(), [os.path.join(odd, "msdaemon"), "--host", "192.0.2.1"],
                  "a helper's path with blanks and quotes comes whole through the remote shell")
    launch.shutil.rmtree(top)


def begins():
    """A host whose daemon is not there yet has not been lost."""
    top = launch.tempfile.mkdtemp(prefix="msock-begins-")
    hold, helpers = os.path.join(top, "hold"), os.path.join(top, "helpers")
    os.mkfifo(hold)
    os.mkdir(helpers)
    with open(os.path.join(helpers, "msdaemon"), "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nread go <{hold}\nexec {launch.program("msdaemon")} "$@"\n')
    os.chmod(os.path.join(helpers, "msdaemon"), 0o755)
    env = dict(os.environ, MSOCK_RUNDIR=top, MSOCK_LIBDIR=launch.program(".libs"),
               MSOCK_HELPERDIR=f"{helpers}:{launch.BUILD}:{launch.program('msock/image')}")
    job = subprocess.Popen([launch.program("msrank-coord")], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    job.stdin.write("job 1-begins\nhost 127.0.0.2\nend\n")
    job.stdin.flush()
    states = lambda: subprocess.run([launch.program("msrank-ps")], env=env, capture_output=True, text=True, check=False).stdout.split()
    tap.ok(tap.until(lambda: "127.0.0.2" in states(), 20), "a job whose host is not up can be looked at")
    said = states()
    tap.equal(said[said.index("127.0.0.2") + 1], "starting", "it is shown as starting")
    with open(hold, "w", encoding="ascii") as file:
        file.write("go\n")
    tap.ok(job.stdout.readline().startswith("ready "), "the job is ready")
    said = states()
    tap.equal(said[said.index("127.0.0.2") + 1], "up", "and its host up")
    job.communicate(timeout=60)
    launch.shutil.rmtree(top)


def test():
    blanks()
    begins()
    whole_job()
    lost_parts()
    bad_starts()


tap.main(test)
