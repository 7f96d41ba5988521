#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Servers that fork for each connection, under msrun --sockets: their clients are moved again and again, and miss nothing."""
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import programs  # noqa: E402
from programs import PYTHON, Member, Progress, address, launch, tap  # noqa: E402

SERVER = address(0)

# Answers each line with as many bytes as it says, and ends: the child may be gone before anybody knows of it.
ANSWERS = r"""
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            self.wfile.write(b"y" * int(line))
class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 50
server = Server(("", 8000), Handler)
print("up", flush=True)
server.serve_forever()
"""

# One connection for each question; every fifth is kept for a hundred of them.
ASKS = r"""
import socket, sys
def take(s, n):
    data = b""
    while len(data) < n and (part := s.recv(n - len(data))):
        data += part
    return data
number = 0
while True:
    s = socket.create_connection((sys.argv[1], 8000))
    for _ in range(100 if number % 5 == 0 else 1):
        n = number * 37 % 5000 + 1
        s.sendall(b"%d\n" % n)
        assert take(s, n) == b"y" * n, n
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
    s.close()
    number += 1
    print(number)
"""

# socat's child sends back what comes.
ECHOES = r"""
import random, socket, sys
number, r = 0, random.Random(1)
while True:
    s = socket.create_connection((sys.argv[1], 8000))
    for _ in range(r.choice((1, 1, 1, 50))):
        data, back = r.randbytes(r.choice((1, 100, 5000))), b""
        s.sendall(data)
        while len(back) < len(data) and (part := s.recv(100000)):
            back += part
        assert back == data, (len(back), len(data))
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
    s.close()
    number += 1
    print(number)
"""


def serve(name, server_words, client):
    server = Member(name, 0, server_words)
    tap.ok(server.line() == "up" if "python" in server_words[0] else server.is_member(), f"{name}: the server is up")
    clients = [Member(name, rank, PYTHON + ["-c", client, SERVER]) for rank in (1, 2)]
    counts = [Progress(one) for one in clients]
    tap.ok(all(count.grows() for count in counts), f"{name}: two clients are served")
    programs.move_all(name, clients, lambda: all(count.grows() for count in counts))
    tap.note(f"{sum(count.look() for count in counts)} connections")
    running = [one.runs() for one in clients]
    for one in clients:
        one.stop()
    tap.equal((running, [one.complaints() for one in clients]), ([True, True], ["", ""]), f"{name}: the clients run on, no complaint")
    tap.ok(tap.until(lambda: server.move()[0] == 0, launch.LIMIT_S), f"{name}: the server moves when its children have ended")
    tap.ok(server.runs(), f"{name}: it runs on")
    server.stop()


def forking():
    serve("ForkingTCPServer", PYTHON + ["-c", ANSWERS], ASKS)


def socat():
    serve("socat", [shutil.which("socat"), "TCP-LISTEN:8000,fork,reuseaddr,backlog=50", "PIPE"], ECHOES)


tap.main(lambda: programs.run({"ForkingTCPServer": (forking, "python3"), "socat": (socat, "socat")}))
programs.close()
