#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Files, pipes and pairs of sockets that come and go, and a log that grows: no move is refused, and no byte is wrong.

MSOCK_TEST_MOVES: how often it is moved (20).
"""
import os
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "msock"))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3"]
MOVES = tap.number("MOVES", 20)
KEPT = tempfile.TemporaryDirectory(prefix="msock-files-")
TOP = KEPT.name
ENV = launch.environment(TOP)

# A file of its own has a name for a while, and none from then on; the log is written by somebody else.
MEMBER = r"""
import mmap, os, socket, sys, threading
top = sys.argv[1]
going, count = True, [0] * 5
def brief(number):
    path = os.path.join(top, f"brief-{number}")
    while going:
        with open(path, "x+b") as file, open(path, "rb") as other:
            text = b"%d of %d" % (count[number], number)
            for _ in range(50):
                os.pwrite(file.fileno(), text, 0)
            os.unlink(path)
            assert other.read() == text
        count[number] += 1
def follow():
    with open(os.path.join(top, "log")) as log:
        while going:
            line = log.readline()
            while line and not line.endswith("\n"):
                line += log.readline()
            if line:
                assert line == f"line {count[2]}\n", (line, count[2])
                count[2] += 1
def mapped():
    path = os.path.join(top, "mapped")
    while going:
        with open(path, "x+b") as file:
            text = b"%08d" % count[3] * 1250
            file.write(text)
            file.flush()
            with mmap.mmap(file.fileno(), 10000, access=mmap.ACCESS_COPY) as area:
                for _ in range(50):
                    assert area[:] == text
                os.unlink(path)
                assert area[:] == text
        count[3] += 1
def pairs():
    while going:
        reader, writer = os.pipe()
        one, other = socket.socketpair()
        os.write(writer, b"pipe")
        one.send(b"pair")
        os.close(writer)
        one.close()
        assert os.read(reader, 9) == b"pipe" and other.recv(9) == b"pair"
        os.close(reader)
        other.close()
        count[4] += 1
threads = [threading.Thread(target=brief, args=(n,)) for n in range(2)]
threads += [threading.Thread(target=f) for f in (follow, mapped, pairs)]
for t in threads:
    t.start()
print("up", flush=True)
sys.stdin.read()
going = False
for t in threads:
    t.join()
print("counted" if all(count) else count)
"""


def write_log(ended):
    number = 0
    with open(os.path.join(TOP, "log"), "a", buffering=1, encoding="ascii") as file:
        while not ended.wait(0.0005):
            file.write(f"line {number}\n")
            number += 1


def test():
    ended = threading.Event()
    open(os.path.join(TOP, "log"), "w", encoding="ascii").close()
    writer = threading.Thread(target=write_log, args=(ended,))
    writer.start()
    member = subprocess.Popen([launch.program("msrun"), "--job", "mine", "--host", HOSTS[0], "--host", HOSTS[1], sys.executable,
                               "-c", MEMBER, TOP], env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    first, refused = member.stdout.readline(), []
    for number in range(MOVES):
        done = subprocess.run([launch.program("msrank-move"), "--job", "mine", "0", HOSTS[(number + 1) % 2]], env=ENV,
                              capture_output=True, text=True, check=False, timeout=launch.LIMIT_S)
        if done.returncode:
            refused.append(done.stderr)
    out, _ = member.communicate(None, launch.LIMIT_S)
    ended.set()
    writer.join()
    tap.equal(refused, [], f"moved {MOVES} times while files come and go")
    tap.equal((member.returncode, first + out), (0, b"up\ncounted\n"), "each file was what it should be")


tap.main(test)
