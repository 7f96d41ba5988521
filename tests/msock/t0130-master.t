#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The address server is killed, again and again: it comes back, knows what it knew, and who asked meanwhile gets an answer."""
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
WAIT_S = 20
KILLS = 10
SHORT_S = 0.3  # what shall not happen is given so long to happen


class Rank(launch.Talker):
    """A knock under a stub; its answers line by line."""
    name = "tests/msock/knock"
    wait_s = WAIT_S


def server(job, host):
    rank = Rank(job, "serve", host)
    rank.address = rank.line()
    return rank


def caller(job, host):
    rank = Rank(job, "call", host)
    return rank if rank.line() == "up" else None


def master(others=()):
    """The address server's pid, once there is one that is not among the others."""
    return tap.until(lambda: next((pid for pid in launch.named("msmaster") if pid not in others), None), WAIT_S)


def stopped():
    pid = master()
    os.kill(pid, signal.SIGSTOP)
    return pid


def killed(pid):
    os.kill(pid, signal.SIGKILL)


def records(job):
    with open(os.path.join(job.dir, "records.jsonl"), encoding="utf-8") as file:
        return file.read()


def waits(job, calls):
    """What is asked of an address server that says nothing waits, and is answered by the next one."""
    early = server(job, HOSTS[0])
    tap.equal(calls.ask(early.address), "ok", "a connection while the address server lives")
    second = server(job, HOSTS[0])
    pid = stopped()
    calls.say(second.address)
    late = Rank(job, "serve", HOSTS[2])
    tap.equal((calls.line(SHORT_S), late.line(SHORT_S)), (None, None), "a name asked for and a member that joins: both wait")
    tap.equal(job.tool("msrank-move", str(early.number), HOSTS[1])[0], 0, "a member moves meanwhile")
    ordered = f'"step":"ordered","actor":"source daemon","host":"{HOSTS[2]}","member":"0.{late.number}"'
    mover = subprocess.Popen([launch.program("msrank-move"), "--timeout", str(WAIT_S), str(late.number), HOSTS[0]], env=job.env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    tap.ok(tap.until(lambda: ordered in records(job), WAIT_S), "the one that joins is told to move, too")
    killed(pid)
    tap.equal(calls.line(), "ok", "the address server is killed: the connection is made")
    late.address = late.line()
    tap.ok(late.address, "and the member has joined")
    said = mover.communicate()[0]
    tap.equal(mover.returncode, 0, "and moves, as it was told before it had joined")
    tap.note(said)
    tap.ok(master({pid}), "another one runs")
    other = caller(job, HOSTS[2])
    for title, rank in (("the one that moved", early), ("the one that joined", late), ("one from before", second)):
        tap.equal(other.ask(rank.address), "ok", f"by a caller that knows nothing yet: {title}")
    tap.equal(calls.ask(early.address), "ok", "by a caller that knows an old place")
    return [early, second, late]


def ends(job, calls):
    """A member that ended while nobody kept its name is not there afterwards."""
    gone = server(job, HOSTS[1])
    pid = stopped()
    gone.child.kill()
    gone.child.wait()
    killed(pid)
    tap.equal(calls.ask(gone.address), f"errno {errno.ECONNREFUSED}", "a member that ended meanwhile: connection refused")
    tap.equal(calls.ask("100.64.200.1 1024"), f"errno {errno.ECONNREFUSED}", "an address that nobody has: connection refused")


def storm(job, servers, rng):
    """Kills at any time, while fresh callers look up names and servers move."""
    over = threading.Event()
    kills = []

    def killer():
        while not over.wait(rng.uniform(0, 0.2)):
            pid = master(kills)
            if pid:
                killed(pid)
                kills.append(pid)

    thread = threading.Thread(target=killer)
    thread.start()
    answers, moves = [], []
    try:
        turn, end = 0, launch.time.monotonic() + launch.LIMIT_S
        while (turn < 6 or len(kills) < KILLS) and launch.time.monotonic() < end:
            fresh = caller(job, HOSTS[turn % 3])
            answers += [fresh and fresh.ask(rank.address) for rank in servers]
            if turn % 2 == 0:
                rank = servers[turn // 2 % len(servers)]
                here = job.ps()[rank.number]["host"]
                moves.append(job.tool("msrank-move", str(rank.number), HOSTS[(HOSTS.index(here) + 1) % 3])[0])
                answers.append(fresh and fresh.ask(rank.address))
            fresh.child.stdin.close()
            fresh.child.wait(WAIT_S)
            turn += 1
    finally:
        over.set()
        thread.join()
    tap.equal(set(answers), {"ok"}, f"{len(answers)} connections")
    tap.equal(set(moves), {0}, f"{len(moves)} moves")
    tap.ok(len(kills) >= KILLS, f"while the address server was killed {KILLS} times or more", len(kills))


CONFIG = """# three subnets
subnet 10.71.0.0/16
subnet 100.64.0.0/16 master 127.0.0.3
[job other*]
subnet 10.0.0.0/8
[job 4711-*]
subnet 10.72.0.0/16
subnet 100.65.0.0/16 master 127.0.0.3
subnet 172.29.7.0/29
"""


def configured(text, **options):
    """A job with that configuration file; its name, and the job."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text)
        file.flush()
        os.environ["MSOCK_CONF"] = file.name
        try:
            return file.name, launch.Launch(HOSTS, **options)
        finally:
            del os.environ["MSOCK_CONF"]


def three():
    """Three subnets, three address servers: each is killed alone."""
    _, job = configured(CONFIG, err=subprocess.PIPE)
    tap.ok(job.said.startswith("ready "), "three subnets: the coordinator is ready", job.said)
    pids = {}
    for pid in launch.named("msmaster"):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            pids[file.read().split(b"\0")[1].decode().split(".")[0]] = pid
    tap.equal(sorted(pids), ["10", "100", "172"], "an address server for each subnet of this job")
    tap.equal([ip for ip, _ in launch.listening(pids["100"])], ["127.0.0.3"], "one is where the file says")
    servers = [server(job, HOSTS[n % 3]) for n in range(6)]
    nets = [rank.address.rsplit(".", 2)[0] for rank in servers]
    tap.equal(sorted(nets), ["10.72"] * 2 + ["100.65"] * 2 + ["172.29"] * 2, "addresses are given out of each in turn")
    calls = caller(job, HOSTS[0])
    for net in ("10", "100", "172"):
        mine = [rank.address for rank in servers if rank.address.split(".")[0] == net]
        others = [rank.address for rank in servers if rank.address.split(".")[0] != net]
        fresh = caller(job, HOSTS[1])
        tap.equal(calls.ask(mine[0]), "ok", f"a name in {net}.")
        os.kill(pids[net], signal.SIGSTOP)
        tap.equal({fresh.ask(address) for address in others}, {"ok"}, f"the address server of {net}. stands still: names in others")
        fresh.say(mine[1])
        tap.equal(fresh.line(SHORT_S), None, f"and names in {net}. wait")
        os.kill(pids[net], signal.SIGKILL)
        tap.equal(fresh.line(), "ok", "until it is killed and comes back")
    tap.equal(calls.ask("10.71.0.1 1024"), f"errno {errno.ECONNREFUSED}", "an address of no subnet of this job")
    tap.equal(job.end(), 0, "the job ends")
    tap.equal(job.coord.stderr.read(), b"", "nothing on stderr")
    job.close()


def broken():
    name, job = configured("subnet 10.0.0.0/8\nsubnet 10.1.0.0/16\n")
    tap.equal(job.said, f"error {name}:2: 10.1.0.0/16: has addresses of the subnet in line 1", "a broken file: its line, and why")
    tap.equal(job.end(), 1, "and the job does not start")
    job.close()
    _, job = configured("subnet 10.0.0.0/30\n")
    one, two = server(job, HOSTS[0]), server(job, HOSTS[1])
    tap.equal([rank.address.split()[0] for rank in (one, two)], ["10.0.0.1", "10.0.0.2"], "the two addresses of a small subnet")
    status, _, err = job.run(77, ["true"])
    tap.ok(status == 255 and b"no virtual address is left" in err and err.count(b"\n") == 1, "no third: one line says so", err)
    job.end()
    job.close()


def test():
    rng = tap.seed()
    job = launch.Launch(HOSTS, err=subprocess.PIPE)
    tap.ok(job.said.startswith("ready "), "the coordinator is ready", job.said)
    calls = caller(job, HOSTS[1])
    servers = waits(job, calls)
    ends(job, calls)
    storm(job, servers, rng)
    tap.equal(job.end(), 0, "the job ends")
    tap.equal(job.coord.stderr.read(), b"", "nothing on stderr")
    tap.equal(job.leftovers(), [], "no process and no file is left")
    job.close()
    three()
    broken()


tap.main(test)
