#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Programs that know nothing of msock keep their TCP streams while both ends move, however they read, write and wait."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
WAYS = ["threads", "poll", "select", "epoll", "edge", "oneshot", "echo", "whole", "timed"]
VIAS = ["auto", "drain", "mirror"]
JOIN = {"MSOCK_JOIN": "sockets", "MSOCK_CHECK": "1"}
MOVES = tap.number("MOVES", 4)
random = tap.seed()


class End:
    """One program; its messages by lines."""

    def __init__(self, job, rank, words, host):
        self.job, self.rank, self.host = job, rank, host
        self.process = job.stub(rank, words, host, env=JOIN, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def line(self):
        return self.process.stdout.readline().split()

    def move(self, via):
        host = random.choice([name for name in HOSTS if name != self.host])
        status, out, err = self.job.tool("msrank-move", "--via", via, str(self.rank), host)
        if status == 0:
            self.host = host
        return status, out, err

    def counts(self):
        """Bytes written and read so far."""
        self.process.send_signal(signal.SIGUSR2)
        word, *numbers = self.line() or ["end of output"]
        assert word == "at", (word, self.result())
        return [int(number) for number in numbers]

    def finish(self):
        self.process.send_signal(signal.SIGUSR1)

    def result(self):
        """(exit status, bytes written, bytes read, what it complained of)"""
        try:
            out, err = self.process.communicate(timeout=launch.LIMIT_S)
        except subprocess.TimeoutExpired:
            return "timeout", None, None, ""
        words = out.split()
        err = "\n".join(line for line in err.splitlines() if not line.startswith("msock"))
        return (self.process.returncode, *map(int, words[-2:]), err) if words[-3:-2] == ["done"] else \
            (self.process.returncode, None, None, err)


def grows(end, before):
    return tap.until(lambda: (now := end.counts()) and now[0] > before[0] and now[1] > before[1], launch.LIMIT_S, 0.02)


def talk(job, number, ways):
    """One pair: moved in turn and both at once."""
    talker = launch.program("tests/msock/talk")
    port, ranks = str(7000 + number), (2 * number, 2 * number + 1)
    server = End(job, ranks[0], [talker, "listen", port, ways[0], str(2 * number)], random.choice(HOSTS))
    tap.equal(server.line(), ["listening"], f"{ways}: a listener")
    address = f"100.64.0.{ranks[0] + 1}"
    client = End(job, ranks[1], [talker, "connect", address, port, ways[1], str(2 * number + 1)], random.choice(HOSTS))
    names = f"100.64.0.{ranks[1] + 1}:32768"
    tap.equal((server.line(), client.line()), (["accepted", f"{address}:{port}", names],
                                               ["connected", names, f"{address}:{port}"]), f"{ways}: the names")
    failed = []
    for move in range(MOVES):
        end, via = (server, client)[move % 2], random.choice(VIAS)
        flows = grows(server, server.counts()) and grows(client, client.counts())
        status, out, err = end.move(via)
        if status or not flows:
            failed.append((via, flows, out, err))
    tap.equal(failed, [], f"{ways}: {MOVES} moves with data flowing")
    tap.ok(grows(server, server.counts()) and grows(client, client.counts()), f"{ways}: it goes on flowing")
    server.finish()
    client.finish()
    there, here = server.result(), client.result()
    tap.ok(there[0] == here[0] == 0 and there[1] == here[2] and there[2] == here[1] and there[1],
           f"{ways}: both ends read what the other wrote", (there, here))


def test():
    job = launch.Launch(HOSTS)
    tap.ok(job.said.startswith("ready"), "a job", job.said)
    for number, way in enumerate(WAYS):
        other = way if way == "echo" else random.choice([name for name in WAYS if name != "echo"])
        talk(job, number, (way, other) if random.randrange(2) else (other, way))
    tap.equal(job.end(), 0, "the job ends")
    tap.equal(job.leftovers(), [], "nothing is left")
    job.close()


tap.main(test)
launch.kill_children()
