#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""msrun: a program without MPI ends, reads and writes as it does without msrun, and moves while it computes."""
import hashlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
PAUSE_S = 12
TOP = tempfile.mkdtemp(prefix="msock-msrun-")
ENV = launch.environment(TOP)

# Says "up", computes until SIGUSR1 comes, and then says what came of it: the same however long that took.
COMPUTES = r"""
import hashlib, os, signal, subprocess, sys
going, rounds, sums = True, 0, set()
def end(*_):
    global going
    going = False
signal.signal(signal.SIGUSR1, end)
print("up", flush=True)
while going:
    x, digest = 1, hashlib.sha256()
    for i in range(20000):
        x = (x * 6364136223846793005 + i) % (1 << 64)
        digest.update(x.to_bytes(8, "little"))
    sums.add(digest.hexdigest())
    rounds += 1
assert rounds > 1
print(sums, [word for word in os.environ if word == "MSOCK_JOIN"])
print(sys.stdin.read())
print(subprocess.run(["sh", "-c", "echo child; exit 5"]).returncode)
sys.exit(7)
"""


# For each line: writes until that fails, and says how. Ends with status 7.
WRITES = r"""
import os, sys, time
print("up", flush=True)
for line in sys.stdin:
    end, said = time.monotonic() + 20, "nothing"
    while time.monotonic() < end and said == "nothing":
        try:
            os.write(1, b"x")
            time.sleep(0.01)
        except BrokenPipeError:
            said = "EPIPE"
    print(said, file=sys.stderr, flush=True)
os._exit(7)
"""


def start(words, options=(), **streams):
    return subprocess.Popen([launch.program("msrun"), *options, *words], env=ENV, **streams)


def ended(child):
    try:
        return child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return "timeout"


def run(words, options=(), data=b""):
    child = start(words, options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = child.communicate(data, launch.LIMIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return "timeout", *child.communicate()
    return child.returncode, out, err


def tool(*words):
    done = subprocess.run([launch.program(words[0]), *words[1:]], env=ENV, capture_output=True, text=True, errors="replace", check=False,
                          timeout=launch.LIMIT_S)
    return done.returncode, done.stdout, done.stderr


def words_of(pid):
    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        return file.read().split("\0")


def ps(job):
    status, out, _ = tool("msrank-ps", job, "--json")
    return json.loads(out) if status == 0 else {"ranks": [], "hosts": []}


def daemons():
    """{host: pid}"""
    return {name: pid for pid in launch.named("msdaemon") for name in HOSTS if name in words_of(pid)}


def where(job):
    """(host, moves) of the job's only rank."""
    ranks = ps(job)["ranks"]
    return (ranks[0]["host"], ranks[0]["moves"]) if ranks else None


def used(job):
    """Processor seconds of its only rank."""
    return ps(job)["ranks"][0]["cpu_s"]


def endings():
    tap.equal(run(["sh", "-c", "echo out; echo err >&2; exit 3"]), (3, b"out\n", b"err\n"), "status 3, both outputs")
    tap.equal(run(["true"])[0], 0, "exit status 0")
    tap.equal(run(["sh", "-c", "kill -SEGV $$"])[0], -signal.SIGSEGV, "a program killed by SIGSEGV: so is msrun")
    status, _, err = run(["/no/such/program"])
    tap.ok(status == 127 and b"/no/such/program" in err, "no such program: 127 and its name", (status, err))
    for title, options, words, want in (("no program", [], [], b"usage"),
                                        ("a name with a slash", ["--job", "a/b"], ["true"], b"job"),
                                        ("no such host", ["--host", "no-such-host.invalid"], ["true"], b"no-such-host")):
        status, out, err = run(words, options)
        good = status == 255 and not out and want in err and err.count(b"\n") == 1
        tap.ok(good, f"{title}: 255 and one line", (status, out, err))


def signals():
    for signo in (signal.SIGTERM, signal.SIGINT):
        child = start(["sh", "-c", "echo up; exec sleep 1000"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        child.stdout.readline()
        child.send_signal(signo)
        tap.equal((child.wait(30), child.stdout.read()), (-signo, b""), f"{signo.name} ends the program, and msrun by it")
        child.stdout.close()
    child = start(["sh", "-c", "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.05; done"],
                  stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    tap.equal((child.stdout.read(), child.wait(30)), (b"got\n", 9), "a program that handles SIGTERM ends in its own way")
    child.stdout.close()
    child = start(["sleep", "1000"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tap.ok(tap.until(lambda: launch.named("sleep"), 20), "a sleeping program is up")
    child.kill()
    child.wait()
    tap.ok(tap.until(lambda: not launch.children(), 10), "SIGKILL to msrun ends everything", launch.children())


# A shell that gets a signal just before it reads handles it when it has read.
ON_TERMINAL = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("up", flush=True)
signal.sigwait({signal.SIGINT})
print("got", flush=True)
line = sys.stdin.readline()
for _ in signal.sigpending() & {signal.SIGINT}:
    print("got", flush=True)
print("end", line, flush=True)
sys.exit(6)
"""


def terminal():
    """Ctrl-C comes from the kernel to msrun and stub both, and to the program once."""
    pid, ours = pty.fork()
    if pid == 0:
        os.execve(launch.program("msrun"), ["msrun", sys.executable, "-c", ON_TERMINAL], ENV)
    said = b""

    def says(word):
        nonlocal said
        if select.select([ours], [], [], 0.1)[0]:
            try:
                said += os.read(ours, 1000)
            except OSError:  # nobody has the terminal any more
                pass
        return word in said

    tap.ok(tap.until(lambda: says(b"up"), 20), "a program on a terminal is up", said)
    os.write(ours, b"\x03")
    tap.ok(tap.until(lambda: says(b"got"), 20), "Ctrl-C reaches it", said)
    os.write(ours, b"line\n")
    tap.ok(tap.until(lambda: says(b"end line"), 20), "and it goes on", said)
    status = tap.until(lambda: os.waitpid(pid, os.WNOHANG)[1], 20)
    tap.equal((os.waitstatus_to_exitcode(status), said.count(b"got")), (6, 1), "it had one SIGINT, and ends as it likes")
    os.close(ours)


def streams():
    data = os.urandom(1 << 20)
    status, out, err = run(["cat"], data=data)
    tap.equal((status, hashlib.md5(out).hexdigest(), err), (0, hashlib.md5(data).hexdigest(), b""), "1 MB through cat")


def pauses():
    """The program has written all and ended; its reader takes its time."""
    slow = start(["seq", "30000"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    waits = {signo: start(["seq", "30000"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
             for signo in (signal.SIGTERM, signal.SIGINT)}
    stuck = start(["sh", "-c", "seq 30000; echo err >&2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    tap.equal(stuck.stderr.read(4), b"err\n", "the error output comes while nobody reads the output")
    stuck.kill()
    stuck.wait()
    tap.until(lambda: False, PAUSE_S)
    tap.equal((slow.stdout.read().count(b"\n"), slow.wait(20)), (30000, 0), f"all is there for a reader who comes after {PAUSE_S} s")
    for signo, child in waits.items():
        child.send_signal(signo)
        tap.equal(child.wait(20), -signo, f"{signo.name} ends msrun that waits for its reader")
    for child in (slow, stuck, *waits.values()):
        child.stdout.close()
    stuck.stderr.close()


def unread():
    """Nobody reads any more, or nothing can be written: the program sees it as it does by itself, also after a move."""
    child = start(["yes"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    child.stdout.readline()
    child.stdout.close()
    tap.equal(ended(child), -signal.SIGPIPE, "a program that goes on writing when its reader has gone ends by SIGPIPE")
    for words, want in ((["echo", "hi"], 255), (["yes"], -signal.SIGPIPE), (["sh", "-c", "echo hi; exit 3"], 3)):
        with open("/dev/full", "wb") as full:
            child = start(words, stdout=full, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        status, err = ended(child), child.stderr.read()
        child.stderr.close()
        good = status == want and err.count(b"\n") == 1 and b"cannot write the standard output: No space left on device" in err
        tap.ok(good, f"{' '.join(words)} to a full device: {want} and one line", (status, err))
    child = start([sys.executable, "-c", WRITES], ["--job", "unread", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE,
                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tap.equal(child.stdout.readline(), b"up\n", "a program that ignores SIGPIPE is up")
    child.stdout.close()
    for moved in range(3):
        child.stdin.write(b"write\n")
        child.stdin.flush()
        tap.equal(child.stderr.readline(), b"EPIPE\n", f"it gets EPIPE after {moved} moves")
        if moved < 2:
            status, out, err = tool("msrank-move", "--job", "unread", "0", HOSTS[moved + 1])
            tap.ok(status == 0, f"move {moved + 1}", (status, out, err))
    child.stdin.close()
    tap.equal(ended(child), 7, "and ends as it likes")
    child.stderr.close()


def moves():
    """The same program without msrun says what it shall say."""
    said = []
    for options in (None, ["--job", "computes", "--host", HOSTS[0], "--host", ",".join(HOSTS[1:])]):
        words = [sys.executable, "-c", COMPUTES]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = subprocess.Popen(words, **pipes) if options is None else start(words, options, **pipes)
        first = child.stdout.readline()
        for number, host in enumerate(HOSTS[1:] + HOSTS[:1], 1) if options else ():
            before = tap.until(lambda: max(0, used("computes") - number), launch.LIMIT_S) + number
            status, out, err = tool("msrank-move", "--job", "computes", "0", host)
            tap.ok(status == 0 and where("computes") == (host, number), f"move {number}, to {host}", (status, out, err))
            after = used("computes")
            tap.ok(number < before <= after, f"move {number}: its processor time goes on from {before:.2f} s", after)
        if options:
            status, _, err = run(["true"], ["--job", "computes"])
            good = status == 255 and b"job computes of yours is running already" in err
            tap.ok(good, "another job of that name: 255, it runs already", (status, err))
        else:
            tap.until(lambda: False, 0.5)
        child.send_signal(signal.SIGUSR1)
        out, err = child.communicate(b"typed\n" * 10000, launch.LIMIT_S)
        said.append((child.returncode, first + out, err))
    tap.equal(said[0][0], 7, "the program without msrun")
    tap.equal(said[1], said[0], "and with it, after three moves: the same status, output and error output")


def joined():
    """A member of a job that runs; its number is its own, also when it has ended."""
    child = start(["cat"], ["--job", "joined"], stdin=subprocess.PIPE)
    tap.ok(tap.until(lambda: where("joined"), launch.LIMIT_S), "a job is up")
    tap.equal(run(["sh", "-c", "echo here; exit 4"], ["--join", "joined", "--rank", "7"]), (4, b"here\n", b""), "a program joins it, and ends")
    status, out, err = run(["echo", "here"], ["--join", "joined", "--rank", "7"])
    tap.ok(status == 255 and not out and b"rank 0.7 has ended" in err and err.count(b"\n") == 1, "its number is not given again: 255 and one line",
           (status, out, err))
    tap.equal(run(["echo", "here"], ["--join", "joined", "--rank", "8"]), (0, b"here\n", b""), "another one is")
    child.communicate(b"", launch.LIMIT_S)


def silent():
    """A daemon that is stopped: msrank-ps waits for it, and says that it has not answered."""
    child = start(["cat"], ["--job", "silent", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE)
    tap.ok(tap.until(lambda: where("silent"), 20), "a job on three hosts is up")
    hosts = lambda told: [(host["up"], host["silent"]) for host in told["hosts"]]
    daemon = daemons()
    for number, host in enumerate(HOSTS[:2]):
        os.kill(daemon[host], signal.SIGSTOP)
        told = ps("silent")
        tap.equal(hosts(told), [(True, at == number) for at in range(3)], f"{host} is stopped, and shown as silent")
        tap.equal(told["ranks"][0]["cpu_s"] is None, host == HOSTS[0], "processor time is missing only of a rank that is there")
        _, table, _ = tool("msrank-ps", "silent")
        states = [line.split()[1] for line in table.split("\n\n")[1].splitlines()[1:]]
        tap.equal(states, ["silent" if at == number else "up" for at in range(3)], "so it is in the table")
        asked = subprocess.Popen([launch.program("msrank-ps"), "silent", "--json"], env=ENV, stdout=subprocess.PIPE, text=True)
        tap.until(lambda: asked.poll() is not None, 1)
        os.kill(daemon[host], signal.SIGCONT)
        told = json.loads(asked.communicate(timeout=launch.LIMIT_S)[0])
        good = hosts(told) == [(True, False)] * 3 and told["ranks"][0]["cpu_s"] is not None
        tap.ok(good, "an answer that comes a second later is waited for", told)
    child.communicate(b"", launch.LIMIT_S)


def echoes(child, line):
    child.stdin.write(line)
    child.stdin.flush()
    return child.stdout.readline() == line


def late():
    """The source's daemon hears of a move only when that was given up, and of that after the target's daemon."""
    child = start(["cat"], ["--job", "late", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tap.ok(echoes(child, b"one\n"), "a program is up")
    source = daemons()[HOSTS[0]]
    os.kill(source, signal.SIGSTOP)
    status, _, err = tool("msrank-move", "--job", "late", "--timeout", "0.5", "0", HOSTS[1])
    os.kill(source, signal.SIGCONT)
    tap.ok(status == 1 and "given up" in err, "its host's daemon stands still: a move is given up", (status, err))
    status, _, err = tool("msrank-move", "--job", "late", "0", HOSTS[1])
    tap.equal((status, err, where("late")[0]), (0, "", HOSTS[1]), "the daemon goes on: the same move again, to its end")
    tap.equal((echoes(child, b"two\n"), child.communicate(b"", launch.LIMIT_S)[0], child.returncode), (True, b"", 0), "and the program runs on")


def dropped():
    """A host leaves the job and joins again, while the daemon that it had is not yet at its end."""
    child = start(["cat"], ["--job", "dropped", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tap.ok(echoes(child, b"one\n"), "a program is up")
    move = ("msrank-move", "--job", "dropped")
    tap.equal([tool(*move, "0", host)[0] for host in (HOSTS[1], HOSTS[0])], [0, 0], "it moves to a host, and back: the daemons know each other")
    old = daemons()[HOSTS[1]]
    os.kill(old, signal.SIGSTOP)
    tap.equal(tool(*move, "--drop", HOSTS[1])[::2], (0, ""), "that host is dropped, its daemon does not see it yet")
    pid = ps("dropped")["ranks"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    words = [launch.program(move[0]), *move[1:], "--json=events", "0", HOSTS[1]]
    mover = subprocess.Popen(words, env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tap.ok(any('"ordered"' in line for line in mover.stdout), "a move to it: another daemon there makes ready for it")
    os.kill(old, signal.SIGCONT)
    tap.ok(tap.until(lambda: not os.path.exists(f"/proc/{old}"), 20), "meanwhile the old one ends")
    os.kill(pid, signal.SIGCONT)
    said = mover.communicate(timeout=launch.LIMIT_S)
    tap.equal((mover.returncode, where("dropped")[0]), (0, HOSTS[1]), "which the move does not notice")
    tap.note(said[1])
    tap.equal((echoes(child, b"two\n"), child.communicate(b"", launch.LIMIT_S)[0], child.returncode), (True, b"", 0), "and the program runs on")


def replaced():
    """A program that has replaced itself runs on; it is only not movable any more."""
    child = start(["sh", "-c", "exec cat"], ["--job", "replaced", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE,
                  stdout=subprocess.PIPE)
    child.stdin.write(b"one\n")
    child.stdin.flush()
    tap.equal(child.stdout.readline(), b"one\n", "a program after an exec is up")
    status, _, err = tool("msrank-move", "--job", "replaced", "--timeout", "3", "0", HOSTS[1])
    tap.ok(status == 1 and err.count("\n") == 1, "it cannot be moved: one line says so", (status, err))
    tap.equal((child.communicate(b"two\n", launch.LIMIT_S)[0], child.returncode), (b"two\n", 0), "and it runs on")


# Holds a FIFO whose name is no text: a byte of Latin-1, a line's end, and a letter of UTF-8.
HOLDS = r"""
import os, sys
name = sys.argv[1].encode() + b"/\xff\n\xc3\xa9"
os.mkfifo(name)
fd = os.open(name, os.O_RDWR)
os.write(1, b"up\n")
os.read(0, 1)
os.unlink(name)
"""


def nameless():
    """A refusal's reason names a file: it is one line of text all the same, and JSON."""
    child = start([sys.executable, "-c", HOLDS, TOP], ["--job", "nameless", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE,
                  stdout=subprocess.PIPE)
    child.stdout.readline()
    for options in ([], ["--check"]):
        status, out, err = tool("msrank-move", "--job", "nameless", *options, "--json", "0", HOSTS[1])
        told = json.loads(out)["error"] if out.strip() else None
        tap.ok(status == 1 and told and "/??é" in told and err.count("\n") == 1 and "/??é" in err,
               f"refused with a reason that is text and JSON {options}", (status, out, err))
    tap.equal(["/??é" in move["error"] for move in ps("nameless")["moves"]], [True], "msrank-ps --json has the refused move")
    with open(os.path.join(TOP, f"msock-{os.getuid()}", "nameless", "records.jsonl"), encoding="utf-8") as file:
        records = [line for line in map(json.loads, file) if "outcome" in line]
    tap.ok(records and all("/??é" in record.get("reason", "") for record in records), "and so have the records", records)
    child.communicate(b"x", launch.LIMIT_S)


def full():
    """What a tool could not write it says, and exits with 1."""
    child = start(["sh", "-c", "read x"], ["--job", "full", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE)
    tap.ok(tap.until(lambda: where("full"), 20), "a job is up")
    for words in (["msrank-ps", "full"], ["msrank-ps", "full", "--json"], ["msrank-ps", "full", "--comm"],
                  ["msrank-move", "--job", "full", "--check", "0", HOSTS[1]], ["msrank-move", "--job", "full", "--json", "0", HOSTS[1]],
                  ["msrank-move", "--job", "full", "--json=events", "0", HOSTS[2]],
                  ["msrank-balance", "full", "--watch", "0", "--dry-run"]):
        with open("/dev/full", "w", encoding="ascii") as file:
            done = subprocess.run([launch.program(words[0]), *words[1:]], env=ENV, stdout=file, stderr=subprocess.PIPE, text=True,
                                  check=False, timeout=launch.LIMIT_S)
        moved = words[0] == "msrank-move" and "--check" not in words
        good = done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr
        tap.ok(good and ("moved" in done.stderr) == moved, f"{' '.join(words)} >/dev/full: 1 and one line", (done.returncode, done.stderr))
    tap.equal(where("full"), (HOSTS[2], 2), "the rank has moved all the same")
    child.communicate(b"x\n", launch.LIMIT_S)


def misused():
    """What is wrong in the words of a command is named, in one line; nothing is done."""
    jobs = [start(["sh", "-c", "read x"], ["--job", name, "--host", ",".join(HOSTS)], stdin=subprocess.PIPE) for name in ("one", "two")]
    tap.ok(tap.until(lambda: where("one") and where("two"), 20), "two jobs are up")
    move = ["msrank-move", "--job", "one"]
    for words, status, want in ((["msrank-ps"], 1, "several jobs"), (["msrank-balance"], 1, "several jobs"),
                                ([*move, "--timeout", "abc", "0", HOSTS[1]], 1, "--timeout abc"),
                                ([*move, "--timeout", "5x", "0", HOSTS[1]], 1, "--timeout 5x"),
                                ([*move, "--via", "x", "0", HOSTS[1]], 1, "--via x"),
                                ([*move, "--limit", "5T", "0", HOSTS[1]], 1, "--limit 5T"),
                                ([*move, "--max-freeze", "-1", "0", HOSTS[1]], 1, "--max-freeze -1"),
                                ([*move, "--compress", "some", "0", HOSTS[1]], 1, "--compress some"),
                                ([*move, "--json=all", "0", HOSTS[1]], 1, "--json all"),
                                ([*move, "--avoid", HOSTS[2], "0", HOSTS[1]], 1, "--evacuate"),
                                ([*move, "--evacuate", HOSTS[0], "--avoid", f"{HOSTS[2]},no-such-host"], 1, "no-such-host"),
                                (["msrank-ps", "one", "extra"], 2, "extra"), (["msrank-balance", "one", "extra"], 2, "extra"),
                                (["msrank-drain", "--job"], 2, "--job needs"), (["msrank-drain", "--every"], 2, "--every needs")):
        got, out, err = tool(*words)
        good = (got, out) == (status, "") and err.count("\n") == 1 and want in err and "name one with" not in err
        tap.ok(good, f"{' '.join(words)}: {status} and one line", (got, out, err))
    tap.equal((where("one"), where("two")), ((HOSTS[0], 0), (HOSTS[0], 0)), "nothing has moved")
    status, _, err = tool(*move, "--limit", "5G", "--timeout", "20.5", "--max-freeze", "5000", "--compress", "never", "--evacuate", HOSTS[0],
                          "--avoid", HOSTS[2])
    tap.ok(status == 0 and where("one") == (HOSTS[1], 1), "with values that are right it moves", (status, err))
    for child in jobs:
        child.communicate(b"x\n", launch.LIMIT_S)
    status, out, err = tool("msrun", "--help")
    tap.ok(status == 0 and out.startswith("usage: msrun") and not err, "msrun --help", (status, out, err))


def drained():
    """msrank-drain, told by a sinfo of ours of nodes that drain: two of the job, one after the other, and one that is not in it."""
    where_sinfo = os.path.join(TOP, "bin")
    os.mkdir(where_sinfo)
    with open(os.path.join(where_sinfo, "sinfo"), "w", encoding="ascii") as file:
        file.write(f"#!/bin/sh\nprintf '%s\\n' 'another draining' '{HOSTS[0]} draining' '{HOSTS[1]} drained*' '{HOSTS[2]} mixed'\n")
        os.fchmod(file.fileno(), 0o755)
    child = start(["sh", "-c", "read x"], ["--job", "drained", "--host", ",".join(HOSTS)], stdin=subprocess.PIPE)
    tap.ok(tap.until(lambda: where("drained"), 20), "a job is up")
    done = subprocess.run([launch.program("msrank-drain"), "--job", "drained", "--once"], capture_output=True, text=True, check=False,
                          env=dict(ENV, SLURM_JOB_NODELIST="any", PATH=f"{where_sinfo}:{ENV['PATH']}"), timeout=launch.LIMIT_S)
    left_over = [host["host"] for host in ps("drained")["hosts"]]
    tap.equal((done.returncode, where("drained"), left_over), (0, (HOSTS[2], 1), HOSTS[2:]), "the rank is where no node drains, and both have left")
    said = done.stderr.splitlines()
    tap.ok(len(said) == 2 and said[0].startswith("rank 0.0: ") and HOSTS[1] in said[1], "which it says, and no more", done.stderr)
    child.communicate(b"x\n", launch.LIMIT_S)
    shutil.rmtree(where_sinfo)


def left():
    """Coordinator and msrun are killed: the job's name can be had again, and no process of the old job gets into the new one."""
    first = start(["sleep", "1000"], ["--job", "left"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tap.ok(tap.until(lambda: where("left"), 20), "a job is up")
    member = start(["sh", "-c", "echo up; sleep 1000"], ["--join", "left", "--rank", "7"], stdin=subprocess.DEVNULL,
                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tap.equal(member.stdout.readline(), b"up\n", "another program has joined it")
    coordinator, = launch.named("msrank-coord")
    first.send_signal(signal.SIGSTOP)  # it shall not start another one, and the coordinator not end by itself
    os.kill(coordinator, signal.SIGKILL)
    first.kill()
    first.wait()
    tap.ok(tap.until(lambda: coordinator not in launch.children(), 10), "its coordinator and its msrun are killed")
    files = os.path.join(TOP, f"msock-{os.getuid()}", "left")
    tap.ok(os.path.exists(os.path.join(files, "job.json")), "its directory is left")
    tap.equal(run(["sh", "-c", "sleep 1; echo here"], ["--job", "left"]), (0, b"here\n", b""), "a new job gets its name")
    out, err = member.communicate(timeout=launch.LIMIT_S)
    good = (member.returncode, out) == (255, b"") and err.count(b"\n") == 1 and b"its job has ended" in err
    tap.ok(good, "the program that had joined is not started again there", (member.returncode, out, err))
    tap.ok(tap.until(lambda: not launch.children(), 30), "the old job's processes end", launch.children())


def test():
    for part in (endings, signals, terminal, streams, pauses, unread, moves, joined, silent,
                 late, dropped, replaced, nameless, full, misused, left, drained):
        part()
        tap.ok(tap.until(lambda: not launch.children(), 5), f"{part.__name__}: no process is left", launch.children())
    files = [os.path.join(at, name) for at, _, names in os.walk(TOP) for name in names]
    tap.equal(files, [], "no file is left")


tap.main(test)
launch.kill_children()
shutil.rmtree(TOP, ignore_errors=True)
