# SPDX-License-Identifier: MIT
"""A stranger who calls on every port of a job while it runs and moves, and says what he should not know."""
import errno
import select
import socket
import struct
import threading
import time

LEG_MAGIC, LEG_CONNECT, LEG_HELLO = 0x4c534d4d, 1, 3
VIRTUAL_NET = 0x64400000
SCAN = 256  # ports asked for at once


def leg_frame(kind, body):
    return struct.pack("<IBBH", LEG_MAGIC, 1, kind, len(body)) + body


def words(rng, kind, ranks):
    """What a stranger says."""
    noise = rng.randbytes
    rank = rng.randrange(ranks)
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
    def __init__(self, rng, ports, ranks, calls, held=100, limit_s=120):
        """ports: a function that finds where the job listens now, as {(address, port): pid}. So many calls to each; so many of them stay open."""
        super().__init__()
        self.rng, self.ports, self.ranks, self.wanted, self.most_held, self.limit_s = rng, ports, ranks, calls, held, limit_s
        self.calls, self.refused, self.held = {}, 0, []

    def full(self):
        return [port for port, calls in self.calls.items() if calls >= self.wanted]

    def call(self, port):
        number = self.calls[port] = self.calls.get(port, 0) + 1
        try:
            sock = socket.create_connection(port, 5)
            sock.sendall(words(self.rng, number % 7, self.ranks))
        except OSError:
            self.refused += 1  # its owner has moved away
            return
        if number <= self.most_held:
            self.held.append(sock)
            return
        if number % 3 == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as port scanners do
        sock.close()

    def run(self):
        began = time.monotonic()
        ports = self.ports()
        while ports and time.monotonic() - began < self.limit_s:
            for port in ports:
                for _ in range(self.wanted // 10):
                    if self.calls.get(port, 0) < self.wanted:
                        self.call(port)
            ports = {port: pid for port, pid in self.ports().items() if self.calls.get(port, 0) < self.wanted}
        for sock in self.held:
            sock.close()


def scan(address):
    """Every port of an address, connected to and closed: those that are open."""
    found = []
    for first in range(1, 1 << 16, SCAN):
        asked = {}
        for port in range(first, min(first + SCAN, 1 << 16)):
            sock = socket.socket()
            sock.setblocking(False)
            if sock.connect_ex((address, port)) in (0, errno.EINPROGRESS):
                asked[sock.fileno()] = sock, port
            else:
                sock.close()
        poll = select.poll()
        for fd in asked:
            poll.register(fd, select.POLLOUT)
        for fd, _ in poll.poll(1000):
            if asked[fd][0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(asked[fd][1])
        for sock, _ in asked.values():
            sock.close()
    return found
