#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A program that does not read: each drain carries more, and the one that would exceed the limit is refused at once, not at its deadline."""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
JOIN = {"MSOCK_JOIN": "sockets", "MSOCK_CHECK": "1"}
TIMEOUT_S = 60  # of a move; a drain waits half of it
AT_ONCE_S = 10
MOVES = 60

# Reads nothing until it is told to.
READER = r"""
import hashlib, socket, sys
l = socket.create_server(("0.0.0.0", 7950))
print("ready", flush=True)
c = l.accept()[0]
sys.stdin.readline()
sums, n = hashlib.md5(), 0
while data := c.recv(1 << 20):
    sums.update(data)
    n += len(data)
print(n, sums.hexdigest(), flush=True)
"""

# Writes as much as goes; says so each time that nothing goes for a while.
WRITER = r"""
import hashlib, os, select, socket, sys
k = socket.socket()
k.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
k.connect(("100.64.0.1", 7950))
k.setblocking(False)
sums, n, stop, said = hashlib.md5(), 0, False, -1
while not stop:
    ready = select.select([sys.stdin], [k], [], 0.2)
    stop = sys.stdin in ready[0]
    if ready[1]:
        data = os.urandom(1 << 16)
        try:
            went = k.send(data)
        except BlockingIOError:
            continue
        sums.update(data[:went])
        n += went
    elif n > said:
        print("stuck", n, flush=True)
        said = n
k.close()
print(n, sums.hexdigest(), flush=True)
"""


def test():
    job = launch.Launch(HOSTS)
    options = {"env": JOIN, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    reader = job.stub(0, [sys.executable, "-c", READER], HOSTS[0], **options)
    tap.equal(reader.stdout.readline(), "ready\n", "a reader that does not read")
    writer = job.stub(1, [sys.executable, "-c", WRITER], HOSTS[1], **options)
    here, status, took, err = 0, 0, 0.0, ""
    for number in range(MOVES):
        words = writer.stdout.readline().split()
        assert words[0] == "stuck", words
        start = time.monotonic()
        status, _, err = job.tool("msrank-move", "--timeout", str(TIMEOUT_S), "--via", "drain", "0", HOSTS[(here + 1) % len(HOSTS)])
        took = time.monotonic() - start
        if status:
            break
        here = (here + 1) % len(HOSTS)
    tap.note(f"{number} moves, {int(words[1]) >> 20} MiB on their way, the last move took {took:.1f} s")
    tap.ok(status != 0 and "its carry is full" in err, "a drain is refused when the carry is full", err)
    tap.ok(took < AT_ONCE_S, f"it is so at once, and not after {TIMEOUT_S // 2} s", took)
    for again in range(2):
        start = time.monotonic()
        status, _, err = job.tool("msrank-move", "--timeout", str(TIMEOUT_S), "--via", "drain", "0", HOSTS[(here + 1) % len(HOSTS)])
        tap.ok(status and "its carry is full" in err and time.monotonic() - start < AT_ONCE_S, "and again", (status, err, time.monotonic() - start))
    # The rest waits at the old host until the program reads: the tool may stop waiting for that.
    status, _, err = job.tool("msrank-move", "--timeout", "2", "0", HOSTS[(here + 1) % len(HOSTS)])
    tap.equal((status, job.ps()[0]["host"]), (2, HOSTS[(here + 1) % len(HOSTS)]), "by a mirror it is moved")
    reader.stdin.write("read\n")
    reader.stdin.flush()
    writer.stdin.write("stop\n")
    writer.stdin.flush()
    lines = [line for line in writer.stdout.read().splitlines() if not line.startswith("stuck")]
    tap.equal(lines, [reader.stdout.readline().strip()], "all bytes arrive")
    tap.equal((writer.wait(launch.LIMIT_S), reader.wait(launch.LIMIT_S), job.end()), (0, 0, 0), "all end")
    job.close()


tap.main(test)
launch.kill_children()
