#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Servers that fork for each connection, under msrun --sockets: their clients, and a child, are moved again and again, and miss nothing."""
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import programs  # noqa: E402
from programs import ENV, HOSTS, PYTHON, Member, Progress, address, launch, tap  # noqa: E402

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


class Messages(threading.Thread):
    """Reads what a consumer says: numbered messages, each once and in order."""

    def __init__(self, file):
        super().__init__()
        self.file, self.count, self.wrong, self.other = file, 0, "", []
        self.start()

    def run(self):
        for line in self.file:
            if not line.startswith("message"):
                self.other.append(line.rstrip())
            elif line == f"message {self.count + 1}\n":
                self.count += 1
            elif not self.wrong:
                self.wrong = f"after {self.count}: {line}"

    def grows(self):
        before = self.count
        return tap.until(lambda: self.count > before + 1000 or not self.is_alive() or self.wrong, launch.LIMIT_S) and self.is_alive()


def tool(*words):
    return subprocess.run([launch.program(words[0]), *words[1:]], env=ENV, capture_output=True, text=True,
                          timeout=2 * launch.LIMIT_S, check=False)


def paper():
    """The paper's forking consumer: its child moves there and back while the producer sends as fast as it can."""
    section8 = launch.program("tests/msock/section8")
    consumer = Member("tcpconsfork", 0, [section8, "tcpconsfork", "5002", "1"])
    tap.equal(consumer.line(), "listening", "tcpconsfork listens")
    producer = Member("tcpconsfork", 1, [section8, "tcpprod", SERVER, "5002", "0", "2000000000"])
    got = Messages(consumer.process.stdout)
    tap.ok(got.grows(), "its child serves the producer")
    failed = []
    for number in range(2 * programs.MOVES):
        done = tool("msrank-move", "--job", "tcpconsfork", "--via", ("auto", "drain", "mirror")[number % 3], "1022.0", HOSTS[1 - number % 2])
        if done.returncode or not got.grows() or got.wrong:
            failed.append((number, done.stdout + done.stderr, got.wrong))
    tap.equal(failed, [], f"the child moves {2 * programs.MOVES} times and takes what comes")
    ranks = {row["member"]: row for row in json.loads(tool("msrank-ps", "--json", "tcpconsfork").stdout)["ranks"]}
    tap.equal((ranks["1022.0"]["moves"], ranks["1022.0"]["parent"]), (2 * programs.MOVES, "0.0"), "the job knows of it")
    producer.process.send_signal(signal.SIGUSR1)
    sent = producer.wait()[1].split()
    status = consumer.process.wait(launch.LIMIT_S)
    got.join(launch.LIMIT_S)
    tap.equal((status, sent, got.wrong, got.other), (0, ["connected", "done", str(got.count)], "", ["accepted", "done 1"]),
              f"{got.count} messages, each once and in order")
    tap.equal((consumer.complaints(), producer.complaints()), ("", ""), "nobody complains")


tap.main(lambda: programs.run({"tcpconsfork": (paper, ""), "ForkingTCPServer": (forking, "python3"), "socat": (socat, "socat")}))
programs.close()
