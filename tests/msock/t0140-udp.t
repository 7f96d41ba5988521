#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Virtual UDP sockets while their members move: addresses stay, peers find them, what had arrived is not lost."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
WAIT_S = 40
RULES = """bind: ok
bind again: Invalid argument
the same port: Address already in use
the same port of any address: Address already in use
another's address: Cannot assign requested address
send without address: Destination address required
connect: ok
send: ok
where nobody is bound: Connection refused
connect to ours: ok
send to ours: ok
receive: ok
receive again: Resource temporarily unavailable
close: ok
bind after close: ok
a bad number: Bad file descriptor
"""


class Rank(launch.Talker):
    """A datagram under a stub; its answers line by line."""
    name = "tests/msock/datagram"
    wait_s = WAIT_S

    def __init__(self, job, what, host):
        super().__init__(job, what, host)
        self.address = self.line()

    def line(self, seconds=None):
        line = super().line(seconds)
        return line and line.strip()

    def move(self):
        """To the next host; the exit status of msrank-move."""
        self.host = HOSTS[(HOSTS.index(self.host) + 1) % len(HOSTS)]
        return self.job.tool("msrank-move", str(self.number), self.host)[0]


def finds(job):
    """Peers that have sent, and those that have not, find a socket that moves; and it finds them when they move."""
    server, calls = Rank(job, "echo", HOSTS[0]), Rank(job, "call", HOSTS[1])
    tap.ok(server.address.endswith(" 5000"), "a server is bound to its port", server.address)
    tap.equal(calls.ask(f"{server.address} 20"), "ok", "datagrams there and back")
    tap.equal((server.move(), calls.ask(f"{server.address} 20")), (0, "ok"), "the server has moved: the caller finds it")
    fresh = Rank(job, "call", HOSTS[2])
    tap.equal(fresh.ask(f"{server.address} 5"), "ok", "and so does one that never sent before")
    tap.equal((calls.move(), calls.ask(f"{server.address} 20")), (0, "ok"), "the caller has moved: answers find it")
    done = []
    for turn in range(4):
        for rank in (calls, fresh):
            rank.say(f"{server.address} 60")
        done += [rank.move() for rank in ((server, calls), (server,), (calls, server), (fresh,))[turn]]
        done += [rank.line() for rank in (calls, fresh)]
    tap.equal([x for x in done if x not in (0, "ok")], [], "both sides move while datagrams go there and back")
    return server


def keeps(job):
    """What is in the kernel's queue when the member is frozen comes first where it goes on."""
    sink, pour = Rank(job, "sink", HOSTS[0]), Rank(job, "pour", HOSTS[1])
    tap.equal(pour.ask(f"{sink.address} 1 1"), "ok", "one datagram")
    got = tap.until(lambda: sink.ask(""), WAIT_S)
    tap.equal(got, "1", "comes, when it is looked for")
    pour.ask(f"{sink.address} 2 40")
    tap.equal(sink.move(), 0, "39 more; their receiver moves before it has read any")
    # The sender may not have heard of the move yet; then this one is lost and the next is sent.
    first, more, number = sink.ask("").split(), [], 41
    while not more and number < 400:
        pour.ask(f"{sink.address} {number} {number}")
        number += 1
        more = sink.ask("").split()
    tap.equal(first, [str(n) for n in range(2, 41)], "they all come, in their order")
    tap.ok(more and int(more[0]) >= 41, "and then what was sent afterwards", more)


def test():
    job = launch.Launch(HOSTS, err=subprocess.PIPE)
    tap.ok(job.said.startswith("ready "), "the coordinator is ready", job.said)
    status, out, _ = job.run(900, [launch.program("tests/msock/datagram"), "rules"])
    tap.equal((status, out.decode()), (0, RULES), "bind, connect and errors are as the kernel's")
    finds(job)
    keeps(job)
    tap.equal(job.end(), 0, "the job ends")
    tap.equal(job.coord.stderr.read(), b"", "nothing on stderr")
    tap.equal(job.leftovers(), [], "no process and no file is left")
    job.close()


tap.main(test)
