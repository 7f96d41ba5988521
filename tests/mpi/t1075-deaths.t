#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Each process of a job is killed while a rank moves: the job goes on, or ends with a word about the cause, as the table of
doc/failures.md says; and nothing is left. One time each here; MSOCK_TEST_ROUNDS times, and after the freeze too, in check-long."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 3
ROUNDS = tap.number("ROUNDS", 20 if jobs.LONG else 1)
HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
SOURCE, TARGET = HOSTS[1], HOSTS[3]

# victim: (does the job go on?, words of which one is on mpiexec's stderr, statuses of msrank-move)
TABLE = {
    "msrank-move": (True, None, [-9]),
    "address server": (True, None, [0]),
    "target's daemon": (True, None, [1]),
    "source's daemon": (False, [SOURCE], [1]),
    "another daemon": (False, [HOSTS[0]], [0, 1]),
    "coordinator": (True, None, [0]),
    "coordinator, twice": (False, ["killed a second time"], [1]),
    "stub of the rank": (False, ["BAD TERMINATION", "KILLED BY SIGNAL"], [1]),
    "proxy": (False, None, [0, 1]),
    "mpiexec": (False, None, [0, 1]),
}
# The same at any moment of the move; the commit may be over.
IN_THE_IMAGE = {"msrank-move": [0, -9], "address server": [0], "target's daemon": [0, 1], "stub of the rank": [0, 1], "source's daemon": [0, 1],
                "coordinator": [0], "coordinator, twice": [0, 1]}

# Then it is the commit that says whether the rank was there: if the job ends it names this host.
EITHER = {"target's daemon": TARGET, "source's daemon": SOURCE}


def environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def find(victim, job, mover):
    """Its pid."""
    if victim == "msrank-move":
        return mover.pid
    if victim == "mpiexec":
        return job.child.pid
    for pid in jobs.descendants():
        words = jobs.describe(pid).split(" ")
        name = os.path.basename(words[0])
        if (victim.startswith("coordinator") and name == "msrank-coord" or victim == "address server" and name == "msmaster"
                or victim == "target's daemon" and name == "msdaemon" and TARGET in words
                or victim == "source's daemon" and name == "msdaemon" and SOURCE in words
                or victim == "another daemon" and name == "msdaemon" and HOSTS[0] in words
                or victim == "proxy" and name == "hydra_pmi_proxy"
                or victim == "stub of the rank" and name == "msrank-stub" and b"PMI_RANK=1" in environment(pid)):
            return pid
    return None


def another(victim, first):
    pid = find(victim, None, None)
    return pid if pid != first else None


def strike(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except (ProcessLookupError, TypeError):
        return False


def goes_on(job):
    seen = sum(1 for line in job.out if line.startswith("rank 1:"))
    return job.wait_line("^rank 1:", count=seen + 3, seconds=60)


def scene(place, victim, held, number):
    """held: a peer is stopped, so that the move waits before its freeze; else the blow comes when it is on its way."""
    title = f"{victim}, {'before the freeze' if held else 'at any moment of the move'}"
    on, words, statuses = TABLE[victim]
    if not held:
        statuses = IN_THE_IMAGE[victim]
    stop = os.path.join(place.shared, f"stop-{number}")
    job = jobs.Job(place, [jobs.program("exchange"), "65536", stop], RANKS, hosts=HOSTS, seconds=150)
    if not tap.ok(job.wait_line("^rank 1: round 2 "), f"{title}: the job runs", job.story()):
        job.kill()
        return
    peer = job.ps()[0]["pid"]
    if held:
        os.kill(peer, signal.SIGSTOP)
    mover = subprocess.Popen(place.prefix + [jobs.command("msrank-move"), "--via", "drain", "1", TARGET],
                             env=place.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    moving = tap.until(lambda: job.ps().get(1, {}).get("state") == "moving" or mover.poll() is not None, 30)
    first = find(victim, job, mover)
    tap.ok(moving and strike(first), f"{title}: killed while rank 1 moves", f"{mover.poll()} {job.ps()}")
    if victim == "coordinator, twice":  # job.ps waits for the next one
        tap.ok(tap.until(job.ps, 30) and strike(tap.until(lambda: another(victim, first), 10)), f"{title}: and again", job.story())
    if held:
        try:
            os.kill(peer, signal.SIGCONT)
        except ProcessLookupError:
            pass
    try:
        _, err = mover.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        mover.kill()
        _, err = mover.communicate()
    tap.ok(mover.returncode in statuses and (mover.returncode != 1 or err.count("\n") == 1),
           f"{title}: msrank-move ends, and says why in one line", f"{mover.returncode}, wanted {statuses}: {err}")
    lives = goes_on(job) if on or (not held and victim in EITHER) else False
    if not held and victim in EITHER:
        on, words = lives, [EITHER[victim]]
    if on:
        tap.ok(lives, f"{title}: the job goes on", job.story())
        open(stop, "w", encoding="ascii").close()
        tap.equal(job.wait(), 0, f"{title}: and ends well")
    else:
        status = job.wait()
        text = "\n".join(job.err + job.out)
        tap.ok(status not in (0, "timeout") and (not words or any(word in text for word in words)), f"{title}: the job ends with a word about it",
               f"{status}\n{job.story()}")
    tap.equal(place.leftovers(), [], f"{title}: nothing is left")


def test():
    number = 0
    for place in jobs.places(jobs.User):
        for _ in range(ROUNDS):
            for victim in TABLE:
                scene(place, victim, True, number)
                number += 1
            for victim in IN_THE_IMAGE if jobs.LONG else ():
                scene(place, victim, False, number)
                number += 1


tap.main(test)
