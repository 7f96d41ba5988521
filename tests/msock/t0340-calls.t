#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""doc/calls.md's table of calls: each is there, is done as it says, and does what it does without msock, before and after moves."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
JOIN = {"MSOCK_JOIN": "sockets", "MSOCK_CHECK": "1"}
DOC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../doc/calls.md")
MOVES = tap.number("MOVES", 10 if tap.number("LONG", 0) else 2)

ECHO = r"""
import socket, sys
l = socket.create_server((sys.argv[1], int(sys.argv[2])))
print(l.getsockname()[1], flush=True)
c = l.accept()[0]
while data := c.recv(65536):
    c.sendall(data)
"""


def table():
    """({how: names}, all words of the document) of the table of all calls."""
    with open(DOC, encoding="utf-8") as file:
        text = file.read()
    rows = re.findall(r"^\| (The preload stands in|Passed through) \| (.*) \|$", text, re.M)
    return {how: set(re.findall(r"\w+", names)) - {"and"} for how, names in rows}, set(re.findall(r"\w+", text))


def exports():
    out = subprocess.run(["nm", "-D", "--defined-only", launch.program(".libs/libmsock-preload.so")], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in out.stdout.splitlines()}


def variant(name, names):
    """Is it another name of one of these, as the C library or the compiler uses it?"""
    plain = re.sub(r"^_+(xpg_)?", "", name)
    return name in names or plain in names or re.sub(r"(_chk|64)$", "", plain) in names


def documented():
    rows, words = table()
    stands, passed = rows.get("The preload stands in", set()), rows.get("Passed through", set())
    have = exports()
    tap.equal(sorted(stands - have), [], "the preload has what the table says that it stands in for")
    tap.equal(sorted(passed & have), [], "and nothing of what is passed through")
    tap.equal(sorted(name for name in have if not name.startswith("msock__") and not variant(name, words)), [], "all that it has is in the document")
    return stands | passed


def outcomes(process):
    """One round: {call: outcome}"""
    process.stdin.write("\n")
    process.stdin.flush()
    found = {}
    for line in process.stdout:
        if line == "end\n":
            return found
        name, found[name] = line.split()
    return found


STREAMS = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


def plainly(calls):
    """What the calls do without msock."""
    pid = os.getpid()
    here = f"127.{100 + pid // 65536 % 100}.{pid // 256 % 256}.{pid % 256}"
    with launch.socket.socket() as s:
        s.bind((here, 0))
        own = str(s.getsockname()[1])
    echo = subprocess.Popen([sys.executable, "-c", ECHO, here, "0"], **STREAMS)
    process = subprocess.Popen([calls, here, echo.stdout.readline().strip(), here, own], **STREAMS)
    found = outcomes(process)
    process.communicate(timeout=launch.LIMIT_S)
    echo.communicate(timeout=launch.LIMIT_S)
    return found


def alike(got, want, name):
    tap.equal({call: outcome for call, outcome in got.items() if outcome != want[call]}, {}, name)
    tap.equal(len(got), len(want), f"{name}: all")


def test():
    names = documented()
    calls = launch.program("tests/msock/calls")
    want = plainly(calls)
    tap.equal(sorted(names), sorted(want), f"all {len(want)} calls of the table are made")
    tap.equal([name for name, outcome in want.items() if int(outcome) < 0 and name != "setsockopt"], [], "without msock all do something")
    job = launch.Launch(HOSTS)
    echo = job.stub(0, [sys.executable, "-c", ECHO, "", "8000"], HOSTS[0], env=JOIN, **STREAMS)
    tap.equal(echo.stdout.readline(), "8000\n", "a member that sends back")
    process = job.stub(1, [calls, "100.64.0.1", "8000", "100.64.0.2", "8001"], HOSTS[1], env=JOIN, **STREAMS)
    alike(outcomes(process), want, "the calls of a member")
    for number in range(MOVES):
        for rank in (1, 0):
            via = ("auto", "drain", "mirror")[number % 3]
            status, _, err = job.tool("msrank-move", "--via", via, str(rank), HOSTS[(number + rank + 1) % 3])
            tap.ok(status == 0, f"{('the other', 'it')[rank]} moves", err)
            alike(outcomes(process), want, f"the calls after {number + 1} moves of {('each', 'it')[rank]}")
    process.communicate(timeout=launch.LIMIT_S)
    echo.communicate(timeout=launch.LIMIT_S)
    tap.equal((process.returncode, echo.returncode), (0, 0), "both end well")
    tap.equal(job.end(), 0, "the job ends")
    job.close()


tap.main(test)
launch.kill_children()
