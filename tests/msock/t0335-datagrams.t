#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
UDP of programs that know nothing of msock: each call gives what it gives without msock, before and after moves of either
end and of both, and no datagram that was sent is lost.  A cell is a list of calls of udptalk.c for the server (s) and the
client (c); at MOVE there is a move, or two at once; what stands behind "=" is wanted of the members, and is not compared.
"""
import os
import select
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
JOIN = {"MSOCK_JOIN": "sockets,udp", "MSOCK_CHECK": "1"}
LONG = tap.number("LONG", 0)
random = tap.seed()

SERVER = ["s new 0 4", "s bind 0 any 5000"]
CLIENT = ["c new 0 4", "c bind 0 any 6000"]
BOTH = SERVER + CLIENT
CLOSE = ["s close 0", "c close 0"]
# SOL_SOCKET 1, SO_REUSEADDR 2, SO_TYPE 3, SO_BROADCAST 6, SO_SNDBUF 7, SO_RCVBUF 8, SO_REUSEPORT 15; IP_TOS 1, IP_TTL 2, IP_PKTINFO 8
CELLS = {
    "there and back": BOTH + ["c put 0 sendto ping other 5000", "s get 0 recvfrom", "MOVE", "s put 0 sendto pong other 6000",
                              "c get 0 recvfrom", "c put 0 sendto ping other 5000", "s get 0 recvfrom"] + CLOSE,
    "nothing was sent before": BOTH + ["MOVE", "c put 0 sendto ping other 5000", "s get 0 recvfrom", "s put 0 sendto pong other 6000",
                                       "c get 0 recvfrom"] + CLOSE,
    "a port that was chosen": SERVER + ["c new 0 4", "c put 0 sendto a other 5000", "s get 0 recvfrom = 1 a from other chosen", "c name 0 = 0.0.0.0 chosen", "MOVE",
                                        "c put 0 sendto b other 5000", "s get 0 recvfrom = 1 b from other chosen", "c name 0 = 0.0.0.0 chosen"] + CLOSE,
    "names": BOTH + ["s name 0 = 0.0.0.0 5000", "s peer 0", "c connect 0 other 5000", "c name 0", "c peer 0", "MOVE", "c name 0",
                     "c peer 0", "s name 0 = 0.0.0.0 5000", "c disconnect 0", "c peer 0", "c name 0 = 0.0.0.0 6000"] + CLOSE,
    "the name of a connect goes": SERVER + ["c new 0 4", "c connect 0 other 5000", "c name 0 = me chosen", "c disconnect 0", "c name 0 = 0.0.0.0 0",
                                            "MOVE", "c put 0 sendto x other 5000", "s get 0 recvfrom = 1 x from other chosen"] + CLOSE,
    "binds": ["s new 0 4", "s name 0", "s bind 0 me 5000", "s name 0", "s bind 0 me 5001", "s new 1 4", "s bind 1 me 5000", "MOVE", "s bind 1 me 5000",
              "s bind 1 me 5001", "s close 0", "s new 2 4", "s bind 2 me 5000", "s close 1", "s close 2"],
    "errors": ["s new 0 4", "s put 0 write x", "s put 0 send x", "s peer 0", "s put 0 sendto x other 0", "MOVE", "s put 0 write x", "s nonblock 0 1",
               "s bind 0 any 5000", "s get 0 recvfrom", "s nonblock 0 0", "s timeo 0 50", "s get 0 recvfrom", "s get 0 recv", "s close 0"],
    "every way to write": BOTH + ["c put 0 sendto a1 other 5000", "c put 0 sendmsg a2 other 5000", "c put 0 sendmmsg a3 other 5000",
                                  "c connect 0 other 5000", "c put 0 write b1", "c put 0 writev b2", "c put 0 send b3", "c put 0 sendto b4",
                                  "c put 0 sendmsg b5", "c put 0 sendmmsg b6", "c put 0 sendto b7 other 5000", "MOVE", "c put 0 write c1",
                                  "c put 0 writev c2", "c put 0 send c3", "c put 0 sendto c4", "c put 0 sendmsg c5", "c put 0 sendmmsg c6",
                                  "c put 0 sendto c7 other 5000"] + ["s get 0 recvfrom"] * 20 + CLOSE,
    "every way to read": BOTH + [f"c put 0 sendto d{i} other 5000" for i in range(9)] + ["s wait 0 poll 5000", "MOVE", "s fionread 0", "s get 0 read",
         "s get 0 readv", "s get 0 recv", "s get 0 peek", "s get 0 recvfrom", "s get 0 trunc", "s get 0 recvmsg", "s get 0 recvmmsg", "s get 0 recvfrom"] + CLOSE,
    "waits": BOTH + [line for way in ("poll", "select", "epoll") for line in (f"s wait 0 {way} 0", f"c put 0 sendto {way} other 5000", f"s wait 0 {way} 5000")] +
         ["MOVE"] + [line for way in ("poll", "select", "epoll") for line in (f"s wait 0 {way} 5000", "s get 0 recvfrom", f"c put 0 sendto {way} other 5000",
                                                                         f"s wait 0 {way} 5000")] + ["s get 0 recv"] * 3 + ["s wait 0 epoll 0"] + CLOSE,
    "edges": BOTH + ["s wait 0 edge 0", "c put 0 sendto a other 5000", "s wait 0 edge 5000", "s get 0 recv", "MOVE", "c put 0 sendto b other 5000",
                     "s wait 0 edge 5000", "s get 0 recvfrom", "s wait 0 edge 0"] + CLOSE,
    "one shot": BOTH + ["c put 0 sendto a other 5000", "s wait 0 oneshot 5000", "s get 0 recv", "MOVE", "s wait 0 oneshot 0", "c put 0 sendto b other 5000",
                        "s wait 0 oneshot 5000", "s get 0 recvfrom"] + CLOSE,
    "empty datagrams": BOTH + ["c connect 0 other 5000", "c shut 0 rd", "c put 0 sendto x", "s get 0 recvfrom", "MOVE", "c put 0 sendto y", "s get 0 recvfrom"] + CLOSE,
    "connected at both ends": BOTH + ["c connect 0 other 5000", "s connect 0 other 6000", "c put 0 write a", "s get 0 recv", "s put 0 write b", "c get 0 recv",
                                      "c put 0 write c", "s wait 0 poll 5000", "MOVE", "s get 0 recvfrom", "s put 0 write d", "c get 0 recvfrom", "c put 0 write e",
                                      "s get 0 read"] + CLOSE,
    "only the peer is heard": BOTH + ["s connect 0 other 6000", "c new 1 4", "c bind 1 any 6001", "c put 1 sendto no other 5000", "c put 0 sendto yes other 5000",
                                      "s get 0 recvfrom", "MOVE", "c put 1 sendto no other 5000", "c put 0 sendto yes other 5000", "s get 0 recvfrom",
                                      "s nonblock 0 1", "s get 0 recv", "c close 1"] + CLOSE,
    "nobody is there": ["c new 0 4", "c connect 0 other 5009", "c put 0 write x", "c get 0 recv", "MOVE", "c put 0 write x", "c get 0 recv", "c put 0 send x",
                        "c error 0", "c error 0", "s new 0 4", "s bind 0 any 5009", "c wait 0 poll 1500 = 0", "c put 0 write x", "s get 0 recv"] + CLOSE,
    "closed by the other": SERVER + ["c new 0 4", "c connect 0 other 5000", "c put 0 write x", "s get 0 recv", "s close 0", "c wait 0 poll 300 = 0", "MOVE",
                                     "c put 0 write y", "c get 0 recv", "c close 0"],
    "duplicates": BOTH + ["s dup 0 1", "c put 0 sendto a other 5000", "c put 0 sendto b other 5000", "c put 0 sendto c other 5000", "s wait 0 poll 5000", "MOVE",
                          "s get 1 recvfrom", "s close 0", "s get 1 recvfrom", "c put 0 sendto d other 5000", "s get 1 recv", "s get 1 recv", "s close 1", "c close 0"],
    "options": ["s new 0 4", "s set 0 1 2 1", "s set 0 1 6 1", "s set 0 1 7 30000", "s set 0 1 8 40000", "s set 0 0 1 16", "s set 0 0 2 77", "s set 0 0 8 1",
                "s bind 0 any 5000", "MOVE"] + [f"s opt 0 {o}" for o in ("1 2", "1 3", "1 6", "1 7", "1 8", "1 15", "0 1", "0 2", "0 8")] + ["s close 0"],
    "pktinfo": BOTH + ["s set 0 0 8 1", "c put 0 pktinfo a other 5000", "s get 0 pktinfo", "MOVE", "c put 0 pktinfo b other 5000", "s get 0 pktinfo"] + CLOSE,
    "shared ports": ["s new 0 4", "s new 1 4", "s set 0 1 2 1", "s bind 0 me 5000", "s bind 1 me 5000", "s set 1 1 2 1", "s bind 1 me 5000", "s connect 1 other 6000",
                     "MOVE"] + CLIENT + ["c new 1 4", "c bind 1 any 6001", "c put 0 sendto a other 5000", "s get 1 recvfrom", "c put 1 sendto b other 5000",
                                         "s get 0 recvfrom", "s put 1 write c", "c get 0 recvfrom", "s close 0", "s close 1", "c close 0", "c close 1"],
    "mapped addresses": ["s new 0 6", "s bind 0 any 5000", "c new 0 6", "c bind 0 any 6000", "c put 0 sendto a other 5000", "s get 0 recvfrom", "s connect 0 other 6000",
                         "s peer 0", "s name 0", "MOVE", "s put 0 write b", "c get 0 recvfrom", "c put 0 sendmsg c other 5000", "s get 0 recvmsg"] + CLOSE,
    "with itself": ["s new 0 4", "s bind 0 any 5000", "s new 1 4", "s bind 1 any 5001", "s put 1 sendto a me 5000", "s connect 1 me 5000", "s put 1 write b", "MOVE",
                    "s get 0 recvfrom", "s get 0 recvfrom", "s put 0 sendto c me 5001", "s get 1 recvfrom", "s put 1 write d", "s get 0 recvfrom", "s close 0",
                    "s put 1 write e", "s get 1 recv", "s close 1"],
    "a child sends": BOTH + ["c put 0 sendto a other 5000", "s get 0 recvfrom", "MOVE", "c put 0 sendto b other 5000", "s get 0 recvfrom", "c fork 0 child other 5000",
                             "s get 0 recvfrom"] + CLOSE,
    "many are waiting": BOTH + ["c pour 0 100 other 5000", "s wait 0 poll 5000", "MOVE", "s count 0 100", "c put 0 sendto x other 5000", "s get 0 recvfrom"] + CLOSE,
    "many, connected": BOTH + ["c connect 0 other 5000", "s connect 0 other 6000", "c pour 0 100", "s pour 0 100", "s wait 0 poll 5000", "c wait 0 poll 5000", "MOVE",
                               "s count 0 100", "c count 0 100", "c put 0 write x", "s get 0 recvfrom"] + CLOSE,
    "sent and closed": SERVER + ["c new 0 4", "c put 0 sendto last other 5000", "c close 0", "s wait 0 poll 5000", "MOVE", "s get 0 recv", "s close 0"],
}


class End:
    def __init__(self, argv, start):
        self.process = start([launch.program("tests/msock/udptalk"), *argv])

    def run(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], launch.LIMIT_S)[0]:
            return "no answer"
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        return self.process.wait(launch.LIMIT_S)


class Movers:
    """The two members, and where they are."""

    def __init__(self, job):
        self.job, self.at, self.failed, self.count = job, {0: HOSTS[0], 1: HOSTS[1]}, [], 0

    def move(self, ranks, via):
        running = []
        for rank in ranks:
            self.at[rank] = random.choice([host for host in HOSTS if host != self.at[rank]])
            running.append(subprocess.Popen([launch.program("msrank-move"), "--via", via, str(rank), self.at[rank]], env=self.job.env,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for process in running:
            out, _ = process.communicate(timeout=launch.LIMIT_S)
            self.count += 1
            if process.returncode:
                self.failed.append(out)


def play(cell, ends, move):
    """What was answered; what is wanted of the members alone is in its place."""
    said = []
    for line in cell:
        if line == "MOVE":
            move()
            continue
        call, _, want = line.partition(" = ")
        got = ends[line[0]].run(call[2:])
        said.append((call, want if want and ends.get("plain") else got))
        if got == "no answer":
            raise TimeoutError(said)
    return said


def pipes(job=None, rank=0):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    if job is None:
        return lambda words: subprocess.Popen(words, **streams)
    return lambda words: job.stub(rank, words, HOSTS[rank], env=JOIN, **streams)


def test():
    job = launch.Launch(HOSTS)
    movers = Movers(job)
    alone = [f"127.{100 + os.getpid() // 32768 % 100}.{os.getpid() // 128 % 256}.{os.getpid() % 128 * 2 + i}" for i in (0, 1)]
    plain = {"s": End([alone[0], alone[1], alone[0]], pipes()), "c": End([alone[1], alone[0], alone[1]], pipes()), "plain": True}
    names = ["100.64.0.1", "100.64.0.2"]
    moving, here = {}, []
    for rank, end in enumerate("sc"): # who joins first has the first address
        moving[end] = End([names[rank], names[1 - rank], "0.0.0.0"], pipes(job, rank))
        here.append(moving[end].run("error 9"))
    tap.equal(here, ["0", "0"], "two members")
    only = os.environ.get("MSOCK_TEST_CELL", "")
    for name, cell in CELLS.items():
        for who in ((), (0,), (1,), (0, 1)) if LONG else (random.choice(((0,), (1,), (0, 1))),):
            via = random.choice(("auto", "drain", "mirror"))
            title = f"{name}; {' and '.join('server client'.split()[i] for i in who) or 'no move'}"
            if only not in title:
                continue
            want = play(cell, plain, lambda: None)
            got = play(cell, moving, lambda who=who, via=via: movers.move(who, via))
            tap.equal([x for x in zip(got, want) if x[0] != x[1]], [], title)
    tap.equal(movers.failed, [], f"every move of {movers.count} was made")
    tap.equal([end.close() for end in (*moving.values(), plain["s"], plain["c"])], [0] * 4, "all end well")
    tap.equal((job.end(), job.leftovers()), (0, []), "the job ends, nothing is left")
    job.close()


signal.signal(signal.SIGPIPE, signal.SIG_DFL)
tap.main(test)
launch.kill_children()
