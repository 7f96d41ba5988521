#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A stranger calls on every port of a job that runs and moves (200 times; 1000 in check-long): a few lines in the log is all."""
import os
import re
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "msock"))
import jobs  # noqa: E402
import launch  # noqa: E402
import tap  # noqa: E402

RANKS = 4
MOVES = tap.number("MOVES", 50 if jobs.LONG else 4)
CALLS = 1000 if jobs.LONG else 200  # to each port
HELD = 100  # of them stay open to the end
LEG_MAGIC, LEG_CONNECT, LEG_HELLO = 0x4c534d4d, 1, 3
VIRTUAL_NET = 0x64400000
HELPERS = ("msdaemon", "msmaster", "msrank-coord")
LINE = re.compile(r"^(msdaemon|msmaster|msrank-coord): (a caller from .* was turned away|somebody called for an image|\d+ lines like)")


def leg_frame(kind, body):
    return struct.pack("<IBBH", LEG_MAGIC, 1, kind, len(body)) + body


def words(rng, kind):
    """What a stranger says."""
    noise = rng.randbytes
    rank = rng.randrange(RANKS)
    if kind == 0:
        return b""
    if kind == 1:
        return noise(rng.randrange(1, 300))
    if kind == 2:  # the greeting of a link, then a proof of nothing
        return b"mslink\0\1" + noise(32) + noise(56)
    if kind == 3:  # the next leg of a stream that may be there, with a token of his own
        return leg_frame(LEG_HELLO, struct.pack("<QIQ", rank << 32 | rng.randrange(1, 8), rng.randrange(1, 4), rng.randrange(1, 4)) +
                         noise(16) + struct.pack("<QB", rng.randrange(1 << 20), 0))
    if kind == 4:  # a connect to a listener that is there, with a cookie of his own
        return leg_frame(LEG_CONNECT, struct.pack("<QIQIHIH", noise(1)[0] << 32 | 1, rank, 0, VIRTUAL_NET + 9, 40000,
                                                  VIRTUAL_NET + 1 + rank, 1025) + noise(16))
    if kind == 5:  # ATTACH to a mirror
        body = struct.pack("<BBIQ", 1, 1, rank, 1) + noise(16) + struct.pack("<H", 0)
        return struct.pack("<I", len(body)) + body
    return struct.pack("<I", 0xffffffff) + noise(40)  # a frame without end


class Stranger(threading.Thread):
    def __init__(self, rng):
        super().__init__()
        self.rng, self.calls, self.refused, self.held = rng, {}, 0, []

    def ports(self):
        """Of msock's processes. Hydra's own port, which its children inherit, is not ours: it believes whoever calls."""
        found, hydra = {}, set()
        for pid in jobs.descendants():
            if "mpiexec" in jobs.describe(pid).split(" ")[0]:
                hydra.update(launch.listening(pid))
            else:
                found.update({port: pid for port in launch.listening(pid)})
        return {port: pid for port, pid in found.items() if port not in hydra}

    def call(self, port):
        number = self.calls[port] = self.calls.get(port, 0) + 1
        try:
            sock = socket.create_connection(port, 5)
            sock.sendall(words(self.rng, number % 7))
        except OSError:
            self.refused += 1  # its owner has moved away
            return
        if number <= HELD:
            self.held.append(sock)
            return
        if number % 3 == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as port scanners do
        sock.close()

    def run(self):
        began = time.monotonic()
        ports = self.ports()
        while ports and time.monotonic() - began < jobs.LIMIT_S / 2:
            for port in ports:
                for _ in range(CALLS // 10):
                    if self.calls.get(port, 0) < CALLS:
                        self.call(port)
            ports = {port: pid for port, pid in self.ports().items() if self.calls.get(port, 0) < CALLS}
        for sock in self.held:
            sock.close()


def descriptors():
    """Of the job's processes that stay where they are."""
    found = {}
    for pid in jobs.descendants():
        name = os.path.basename(jobs.describe(pid).split(" ")[0])
        if name in HELPERS:
            try:
                found[pid] = len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:  # a child of one, which has its name until it runs another program
                pass
    return found


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.User):
        stop = os.path.join(place.shared, "stop")
        job = jobs.Job(place, [jobs.program("exchange"), str(1 << 20), stop], RANKS)
        tap.ok(job.wait_line("round 1 right", count=RANKS), "a ring of ranks runs", job.story())
        mover = jobs.Mover(job, RANKS, rng, pause=0.1)
        mover.run(1)
        before = descriptors()
        stranger = Stranger(rng)
        stranger.start()
        mover.run(MOVES)
        stranger.join()
        mover.run(MOVES + 1)
        # A rank that has come brings its pipes with it.
        grown = lambda: {pid: (before[pid], n) for pid, n in descriptors().items() if n > before.get(pid, n) + 12 * RANKS}
        tap.until(lambda: not grown(), 10)
        left = grown()
        with open(stop, "w", encoding="ascii"):
            pass
        status = job.wait()
        full = [port for port, calls in stranger.calls.items() if calls >= CALLS]
        tap.note(f"{sum(stranger.calls.values())} calls to {len(stranger.calls)} ports, {stranger.refused} refused; "
                 f"{len(job.err)} lines of log in {job.seconds:.0f} s")
        tap.ok(len(full) >= 5, "every port of coordinator, address server and daemons had its calls", stranger.calls)
        tap.equal(mover.failures, [], f"{MOVES + 1} moves committed")
        jobs.job_ended(job, status)
        tap.equal([line for line in job.err if not LINE.match(line)], [], "nothing on stderr but that callers were turned away")
        limit = 4 * len(stranger.calls) * (2 + job.seconds / 10)
        tap.ok(0 < len(job.err) <= limit, f"in not more than {limit:.0f} lines", len(job.err))
        tap.equal(left, {}, "no descriptor of theirs is left")
        os.unlink(stop)
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
