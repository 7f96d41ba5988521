#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Many streams of an unmodified program: all go on after each move, and what grows with their number is done outside the freeze."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
STREAMS = tap.number("STREAMS", 600)
MOVES = tap.number("MOVES", 6)


def backlog(host, pid):
    """Of the kernel listener of the member: what ss calls Send-Q."""
    ports = {port for address, port in launch.listening(pid) if address == host}
    out = subprocess.run(["ss", "-ltnH", "src", host], capture_output=True, text=True, check=True).stdout
    found = [int(words[2]) for words in map(str.split, out.splitlines()) if int(words[3].rsplit(":", 1)[1]) in ports]
    return found[0] if len(found) == 1 else found


def test():
    work = tempfile.mkdtemp(prefix="msock-crowd-")
    program = launch.program("tests/bench/crowd")
    job = launch.Launch(HOSTS)
    said = [open(os.path.join(work, name), "w+b") for name in ("serve", "call")]
    options = {"env": {"MSOCK_JOIN": "sockets", "MSOCK_CHECK": "1", "MSOCK_DEBUG": "info"}, "stdout": subprocess.PIPE, "text": True}
    server = job.stub(0, [program, "serve", "7900", str(STREAMS)], HOSTS[0], stdin=subprocess.DEVNULL, stderr=said[0], **options)
    tap.equal(server.stdout.readline(), "ready\n", "a server")
    client = job.stub(1, [program, "call", "100.64.0.1", "7900", str(STREAMS)], HOSTS[1], stdin=subprocess.PIPE, stderr=said[1], **options)
    tap.equal((client.stdout.readline(), server.stdout.readline()), ("all\n", "all\n"), f"{STREAMS} streams")
    here, failed, reports = [0, 1], [], []
    for number in range(MOVES):
        who, via = number % 2, ("drain", "mirror", "auto")[number // 2 % 3]
        here[who] = ({0, 1, 2} - set(here)).pop()
        status, out, err = job.tool("msrank-move", "--json", "--via", via, str(who), HOSTS[here[who]])
        client.stdin.write("go\n")
        client.stdin.flush()
        if status or not client.stdout.readline().startswith("all "):
            failed.append((via, who, out, err))
        else:
            reports.append(json.loads(out))
    tap.equal(failed, [], f"{MOVES} moves, each stream answers after each")
    tap.note([(round(report["freeze_ms"], 1), round(report["stall_ms"], 1)) for report in reports])
    if shutil.which("ss"):
        pids = [job.ps()[rank]["pid"] for rank in (0, 1)]
        queues = [backlog(HOSTS[here[rank]], pids[rank]) for rank in (0, 1)]
        tap.ok(all(queue >= STREAMS for queue in queues), "as many may dial a moved member at once", queues)
    else:
        tap.skip("as many may dial a moved member at once", "no ss")
    client.stdin.close()
    tap.equal((client.wait(launch.LIMIT_S), server.wait(launch.LIMIT_S)), (0, 0), "both end")
    for file in said:
        file.seek(0)
    lines = [line for file in said for line in file.read().decode().splitlines()]
    made = [tuple(map(int, pair)) for line in lines for pair in re.findall(r"(\d+) pairs of sockets were made before the freeze, (\d+) in it", line)]
    tap.ok(len(made) == MOVES and all(before >= STREAMS and late == 0 for before, late in made), "no pair of sockets is made in a freeze", made)
    tap.equal(sum("said nothing" in line for line in lines), 0, "nobody who dials is taken for a stranger")
    tap.equal(job.end(), 0, "the job ends")
    job.close()
    shutil.rmtree(work)


tap.main(test)
launch.kill_children()
