#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Clients under msrun --sockets end at any moment, some with much unread, while their server is moved: no move hangs, the server lives.

MSOCK_TEST_MOVES: how often the server moves (10; in check-long 300). Who ends when is drawn from MSOCK_TEST_SEED.
"""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import programs  # noqa: E402
from programs import PYTHON, Member, address, tap  # noqa: E402

MOVES = tap.number("MOVES", 300 if programs.LONG else 10)
CLIENTS = 3
LONGEST_S = 15

# Four times what it gets, so that nobody keeps up with it.
SERVER = r"""
import socket, threading
listener = socket.create_server(("0.0.0.0", 8000), backlog=64)
def serve(peer):
    try:
        while data := peer.recv(65536):
            peer.sendall(data * 4)
    except OSError:
        pass
    peer.close()
print("up", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
CLIENT = r"""
import os, random, signal, socket, sys, threading, time
address, seed, seconds, way = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
choice = random.Random(seed)
s = socket.create_connection((address, 8000))
def send():
    try:
        while True:
            s.sendall(b"x" * choice.choice((10, 5000, 60000)))
    except OSError:
        pass
threading.Thread(target=send, daemon=True).start()
end = time.monotonic() + seconds
if way == "lazy":
    time.sleep(seconds)
while time.monotonic() < end and s.recv(65536):
    pass
if way == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if way == "close":
    s.close()
os._exit(0)
"""


class Crowd(threading.Thread):
    """So many clients at a time, each for a while."""

    def __init__(self, rng):
        super().__init__()
        self.rng, self.ended, self.rank, self.clients, self.stuck = rng, threading.Event(), 0, [], []

    def run(self):
        while not self.ended.wait(0.1):
            self.clients = [client for client in self.clients if client.runs()]
            if len(self.clients) < CLIENTS:
                self.rank += 1
                words = [address(0), str(self.rank), f"{self.rng.uniform(0.3, 2.5):.2f}", self.rng.choice(("kill", "exit", "close", "lazy"))]
                self.clients.append(Member("sudden", self.rank, PYTHON + ["-c", CLIENT, *words]))
        self.stuck = [client.rank for client in self.clients if client.wait(LONGEST_S)[0] == "timeout"]


def test():
    rng = tap.seed()
    server = Member("sudden", 0, PYTHON + ["-c", SERVER])
    tap.equal(server.line(), "up", "a server")
    crowd, slow, refused = Crowd(rng), [], []
    crowd.start()
    for _ in range(MOVES):
        begun = time.monotonic()
        status, said = server.move()
        took = time.monotonic() - begun
        if took > LONGEST_S:
            slow.append(f"{took:.1f} s: {said}")
        if status:
            refused.append(said)
        if not server.runs():
            break
        threading.Event().wait(rng.uniform(0, 0.3))
    tap.ok(server.runs(), f"it lives after {MOVES} moves", server.complaints()[-2000:])
    crowd.ended.set()
    crowd.join()
    tap.note(f"{crowd.rank} clients have ended meanwhile")
    tap.equal(crowd.stuck, [], "each client ends")
    tap.equal(slow, [], "no move hangs")
    tap.equal(refused, [], "each move is made")
    tap.equal(server.stop()[0], -15, "the server ends as it is told")


tap.main(test)
programs.close()
