#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Two jobs joined by MPI_Comm_connect: ranks of both move while they talk; what is refused; what a lost job leaves."""
import os
import random
import re
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

SERVERS, CALLERS = 3, 2
MOVES = tap.number("MOVES", 200 if jobs.LONG else 8)  # of each job
VIAS = ("auto", "drain", "mirror")


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def checksum(side, senders, receivers, rounds):
    """What joined.c says of so many rounds: the sum of the messages' keys."""
    return sum(mix(r * 8191 + side * 4096 + i * 64 + k + 1 & 0xFFFFFFFF)
               for r in range(rounds) for i in range(senders) for k in range(receivers)) & 0xFFFFFFFF


def start(place, words, ranks):
    """A job that can be told from the others."""
    before = place.jobs()
    job = jobs.Job(place, [jobs.program("joined"), *words], ranks)
    new = tap.until(lambda: place.jobs() - before, 30)
    job.name = ["--job", new.pop()] if len(new) == 1 else []
    return job


def said(job, pattern):
    found = [re.match(pattern, line) for line in job.out]
    return [match.group(1) for match in found if match]


def server(place, stop, callers=1, ranks=SERVERS):
    job = start(place, ["serve", stop, str(callers)], ranks)
    tap.ok(job.wait_line("^port "), "a server opens its port", job.story())
    return job, said(job, "port (.*)")[0]


def ended(what, job, side, rounds):
    jobs.job_ended(job, job.wait(), what=what)
    senders, receivers = (CALLERS, SERVERS) if side == 0 else (SERVERS, CALLERS)
    want = [f"{checksum(1 - side, senders, receivers, int(n)):08x}" for n in rounds]
    tap.equal((said(job, "rounds (.*)"), said(job, "checksum (.*)"), job.err), (rounds, want, []), f"{what} has got all of it")


def moved(place, rng):
    """Both jobs' ranks move, both ways of leaving among them, while all talk with all of the other."""
    stop = os.path.join(place.shared, "stop")
    serving, port = server(place, stop)
    calling = start(place, ["call", stop, port], CALLERS)
    tap.ok(serving.wait_line("^talking") and calling.wait_line("^talking"), "they talk", serving.story() + calling.story())
    movers = [jobs.Mover(job, ranks, random.Random(rng.random()), VIAS, 0.1)
              for job, ranks in ((serving, SERVERS), (calling, CALLERS))]
    threads = [threading.Thread(target=mover.run, args=(MOVES,)) for mover in movers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mover, what in zip(movers, ("serving", "calling")):
        tap.equal((mover.done, mover.failures), (MOVES, []), f"{MOVES} moves of the {what} job")
    open(stop, "w", encoding="ascii").close()
    rounds = [re.sub("rounds ", "", line) for line in serving.out if line.startswith("rounds")]
    calling.wait()
    rounds = said(calling, "rounds (.*)")
    ended("the calling job", calling, 1, rounds)
    ended("the serving job", serving, 0, rounds)
    tap.note(f"rounds: {rounds}")
    os.unlink(stop)
    return port


def refused(place, job, port, why):
    trying = start(place, ["try", port], 1)
    jobs.job_ended(trying, trying.wait(), what=f"a call {why}")
    tap.ok(any(line.startswith("MPI_ERR_PORT") for line in trying.out), "and is told MPI_ERR_PORT", trying.story())
    tap.ok(trying.seconds < 20, "soon", f"{trying.seconds:.1f} s")
    if job:
        tap.ok(job.child.poll() is None, "the other job does not mind", job.story())


def one_after_the_other(place, old):
    """A server with two callers in turn, and with callers that are turned away between them."""
    stop = os.path.join(place.shared, "stop")
    refused(place, None, old, "to a job that has ended")
    serving, port = server(place, stop, callers=2)
    last = port.rindex("$")
    false = port[:last - 1] + ("0" if port[last - 1] != "0" else "1") + port[last:]
    refused(place, serving, false, "with a false key")
    open(stop, "w", encoding="ascii").close()
    rounds = []
    for _ in range(2):
        calling = start(place, ["call", stop, port], CALLERS)
        calling.wait()
        rounds += said(calling, "rounds (.*)")
        ended("a caller", calling, 1, rounds[-1:])
    ended("the server of both", serving, 0, rounds)
    os.unlink(stop)


def lost(place):
    """The calling job is killed: the other does not wait for it for ever, be it in the middle of a large message (one in four is)."""
    stop = os.path.join(place.shared, "stop")
    serving, port = server(place, stop)
    calling = start(place, ["call", stop, port], CALLERS)
    tap.ok(serving.wait_line("^talking") and calling.wait_line("^talking"), "they talk", serving.story() + calling.story())
    calling.kill()
    status = serving.wait()
    tap.ok(status not in (0, "timeout") and serving.seconds < 60, "when one is killed the other ends with an error", f"{status}\n{serving.story()}")


def by_socket(place):
    hearing = start(place, ["hear"], 1)
    tap.ok(hearing.wait_line("^tcp "), "one listens on TCP", hearing.story())
    dialling = start(place, ["dial", said(hearing, "tcp (.*)")[0]], 1)
    for job, number in ((hearing, 1), (dialling, 0)):
        jobs.job_ended(job, job.wait())
        tap.equal(job.out[-1:], [f"joined with {number}"], "MPI_Comm_join has joined them")


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.User):
        port = moved(place, rng)
        one_after_the_other(place, port)
        for _ in range(8):
            lost(place)
        by_socket(place)
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
