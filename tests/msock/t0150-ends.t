#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Members that end while another one moves: the move is made, and its streams with them come to their end."""
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
JOIN = {"MSOCK_JOIN": "sockets"}
MOVES = tap.number("MOVES", 20 if tap.number("LONG", 0) else 6)
PYTHON = "/usr/bin/python3"

# Reads each connection to its end, in whatever order they end: says how many have ended so.
SERVER = r"""
import selectors, socket
l = socket.create_server(("", 8000))
s, number = selectors.DefaultSelector(), 0
s.register(l, selectors.EVENT_READ)
print("up", flush=True)
while True:
    for key, _ in s.select():
        if key.fileobj is l:
            s.register(l.accept()[0], selectors.EVENT_READ)
            print("accepted", flush=True)
            continue
        try:
            if key.fileobj.recv(1000):
                continue
        except ConnectionResetError:
            pass
        s.unregister(key.fileobj)
        key.fileobj.close()
        number += 1
        print(number, flush=True)
"""
# Connected until its input ends.
CLIENT = r"""
import os, socket, sys
c = socket.create_connection((sys.argv[1], 8000))
c.sendall(b"here")
sys.stdin.read()
os._exit(0)
"""


class Ends(threading.Thread):
    """Members that end at once, one after the other."""

    def __init__(self, job, first):
        super().__init__()
        self.job, self.rank, self.enough = job, first, False

    def run(self):
        while not self.enough:
            self.job.stub(self.rank, ["true"], HOSTS[self.rank % 3], env=JOIN, stdin=subprocess.DEVNULL).wait(launch.LIMIT_S)
            self.rank += 1


def test():
    job = launch.Launch(HOSTS)
    server = job.stub(0, [PYTHON, "-c", SERVER], HOSTS[0], env=JOIN, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    tap.equal(server.stdout.readline(), "up\n", "a server")
    address = "100.64.0.1"
    ending = [Ends(job, 1000 * n) for n in (1, 2)]
    for thread in ending:
        thread.start()
    failed, said = [], []
    for number in range(MOVES):
        client = job.stub(1 + number, [PYTHON, "-c", CLIENT, address], HOSTS[0], env=JOIN, stdin=subprocess.PIPE)
        said.append(server.stdout.readline())
        words = ["--via", ("auto", "drain", "mirror")[number % 3], "0", HOSTS[(number + 1) % 3]]
        move = subprocess.Popen([launch.program("msrank-move"), *words], env=job.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        client.stdin.close()
        out = move.communicate(timeout=2 * launch.LIMIT_S)[0]
        if move.returncode:
            failed.append(out)
        said.append(server.stdout.readline())
        client.wait(launch.LIMIT_S)
    for thread in ending:
        thread.enough = True
        thread.join()
    tap.note(f"{sum(thread.rank % 1000 for thread in ending)} members have ended meanwhile")
    tap.equal(failed, [], f"{MOVES} moves")
    tap.equal(said, [word for number in range(MOVES) for word in ("accepted\n", f"{number + 1}\n")], "each stream comes to its end")
    server.terminate()
    server.communicate(timeout=launch.LIMIT_S)
    tap.equal(job.end(), 0, "the job ends")
    job.close()


tap.main(test)
launch.kill_children()
