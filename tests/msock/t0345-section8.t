#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Section 8 of the msocket paper: its programs (section8.c), its tests. MSOCK_TEST_LONG=1 takes the paper's counts."""
import os
import select
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
JOIN = {"MSOCK_JOIN": "sockets,udp", "MSOCK_CHECK": "1"}
VIAS = ["auto", "drain", "mirror"]
LONG = tap.number("LONG", 0)
MOVES = tap.number("MOVES", 50 if LONG else 2)          # of producer and of consumer
PONG_MOVES = tap.number("PONG_MOVES", 400 if LONG else 4)
random = tap.seed()


class Program:
    """One of the programs, a member; it says lines."""
    count = 0

    def __init__(self, job, name, *words, host=None):
        self.job, self.rank, self.name = job, Program.count, name
        Program.count += 1
        self.address = f"100.64.0.{self.rank + 1}" # of who joins in this order
        self.host, self.text = host or random.choice(HOSTS), b""
        self.process = job.stub(self.rank, [launch.program("tests/msock/section8"), name, *map(str, words)], self.host, env=JOIN,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)

    def line(self, seconds=None):
        """The next line; None at the end, or when none comes."""
        while b"\n" not in self.text:
            if not select.select([self.process.stdout], [], [], seconds or launch.LIMIT_S)[0]:
                return None
            more = self.process.stdout.read()
            if not more:
                return None
            self.text += more
        line, self.text = self.text.split(b"\n", 1)
        return line.decode()

    def skip_to(self, word):
        while (line := self.line()) is not None and line.split()[0] != word:
            pass
        return line

    def passed(self):
        """How much went by so far; it says so by a signal."""
        self.process.send_signal(signal.SIGUSR2)
        line = self.skip_to("at")
        return int(line.split()[1]) if line else -1

    def grows(self):
        before = self.passed()
        return tap.until(lambda: not 0 <= self.passed() <= before, launch.LIMIT_S, 0.02) and self.process.poll() is None

    def move(self, host=None, via=None):
        """None, or what was wrong."""
        host = host or random.choice([name for name in HOSTS if name != self.host])
        status, out, err = self.job.tool("msrank-move", "--via", via or random.choice(VIAS), str(self.rank), host)
        self.host = host if status == 0 else self.host
        return (self.name, out, err) if status else None

    def finish(self):
        self.process.send_signal(signal.SIGUSR1)

    def end(self):
        """(exit status, the number behind "done", its lines before that, what it complained of)"""
        lines = []
        while (line := self.line()) is not None:
            lines.append(line)
        status = self.process.wait(launch.LIMIT_S) if not lines or lines[-1].startswith("done") else self.process.poll()
        done = int(lines.pop().split()[1]) if lines and lines[-1].startswith("done") else None
        err = self.process.stderr.read().decode(errors="replace")
        return status, done, lines, err

def well(name, *programs, wrote=None):
    """All end with 0 and without complaint; the first has passed on what the last has, or `wrote`."""
    ends = [program.end() for program in programs]
    good = all(status == 0 and not err for status, _, _, err in ends)
    wanted = ends[-1][1] if wrote is None else wrote
    tap.ok(good and wanted and ends[0][1] == wanted, f"{name}: all of it arrived, no byte was wrong", ends)
    return ends


def consume(job, port=5000, **options):
    consumer = Program(job, "rndcons", port, 10000, 4711, **options)
    assert consumer.line() == "listening"
    return consumer


def produce(job, consumer, count=100, port=5000, **options):
    return Program(job, "rndprod", consumer.address, port, 8192, count, 4711, **options)


def establishing(job):
    """8.1: connections that are made before, after and during moves; tcpcons takes one, and closes its listener."""
    consumer = consume(job)
    producer = produce(job, consumer)
    well("established before any move", consumer, producer)
    consumer = consume(job)
    failed = [move for move in (consumer.move(), consumer.move()) if move]
    producer = produce(job, consumer)
    well("established after two moves", consumer, producer)
    overtaken = []
    for turn in range(5 if LONG else 2):
        held = turn % 2 == 0 # else the consumer may be at its end before its move is
        consumer = consume(job)
        mover = threading.Thread(target=lambda to=failed if held else overtaken: to.append(consumer.move()))
        mover.start()
        producer = produce(job, consumer, 0 if held else 100)
        mover.join()
        if held:
            tap.ok(consumer.grows(), "data flows when the consumer has moved")
            producer.finish()
        well(f"established during a move, {turn + 1}", consumer, producer)
    tap.equal([x for x in failed if x], [], "every move was made")
    tap.equal([x for x in overtaken if x and "has ended" not in x[2] and "it ended" not in x[2]], [], "or its rank had ended")
    consumer = Program(job, "tcpcons", 5001)
    consumer.line()
    producer = Program(job, "tcpprod", consumer.address, 5001, 20, 50)
    failed = [consumer.skip_to("message"), consumer.move(), producer.move()]
    status, _, lines, err = consumer.end()
    tap.equal((status, lines, err, failed), (0, [f"message {i}" for i in range(2, 51)], "", ["message 1", None, None]),
              "tcpcons prints each message once, in order, moved with its producer")
    producer.end()


def forking(job):
    """tcpconsfork: a child for each connection. While children live the parent stays; then it moves, and serves again."""
    consumer = Program(job, "tcpconsfork", 5002, 3)
    tap.equal((consumer.line(), consumer.move()), ("listening", None), "tcpconsfork has moved before anybody came")
    producer = Program(job, "tcpprod", consumer.address, 5002, 50, 40)
    consumer.skip_to("message")
    refused = consumer.move()
    tap.ok(refused and "child" in refused[2], "with a child that serves it is refused, and told why", refused)
    got = []
    while len(got) < 39 and (line := consumer.skip_to("message")):
        got.append(line)
    producer.end()
    tap.equal(got, [f"message {i}" for i in range(2, 41)], "the child has served its connection")
    moved = tap.until(lambda: consumer.move() is None, launch.LIMIT_S, 0.1)
    others = [Program(job, "tcpprod", consumer.address, 5002, 1, 20) for _ in range(2)]
    status, done, lines, err = consumer.end()
    tap.equal((moved, status, done, err, sorted(line for line in lines if line.startswith("message"))),
              (True, 0, 3, "", sorted([f"message {i}" for i in range(1, 21)] * 2)),
              "when the child has ended it moves, and serves two at once")
    for other in others:
        other.end()


def swap(job):
    """8.2: consumer and producer change places while data flows."""
    consumer = consume(job, host=HOSTS[0])
    producer = produce(job, consumer, 0, host=HOSTS[1])
    flows = consumer.grows()
    failed = [consumer.move(HOSTS[1])]
    flows = flows and consumer.grows()
    failed.append(producer.move(HOSTS[0]))
    tap.equal((failed, flows, consumer.grows()), ([None, None], True, True), "load swap: each moved to the other's host, data flows")
    producer.finish()
    well("load swap", consumer, producer)


def walking(job):
    """8.3: the pipe between them walks over all hosts."""
    consumer = consume(job, host=HOSTS[0])
    pipe = Program(job, "rndpipe", consumer.address, 5000, 5003, 10000, host=HOSTS[0])
    pipe.line()
    producer = produce(job, pipe, 0, 5003, host=HOSTS[3])
    failed = []
    for number in range(12 if LONG else 5):
        failed.append(pipe.move(HOSTS[(number + 1) % 4]))
        failed.append(None if consumer.grows() else "nothing flows")
    tap.equal([x for x in failed if x], [], f"walking pipe: {number + 1} steps over 4 hosts, data flows after each")
    producer.finish()
    ends = well("walking pipe", consumer, producer)
    tap.equal(pipe.end()[:2], (0, ends[0][1]), "walking pipe: the pipe has passed on just that")


def stability(job):
    """8.5: many moves of producer and consumer, and of pong."""
    consumer = consume(job)
    producer = produce(job, consumer, 0)
    tap.ok(consumer.grows(), "stability: data flows")
    failed = []
    for _ in range(MOVES):
        for program in (producer, consumer):
            failed.append(program.move())
            failed.append(None if consumer.grows() else "nothing flows")
    tap.equal([x for x in failed if x], [], f"{MOVES} moves of producer and of consumer")
    producer.finish()
    well("stability", consumer, producer)
    pong = Program(job, "pong", 5004)
    pong.line()
    ping = Program(job, "ping", pong.address, 5004, 64, 0)
    failed = [f"{number}: {wrong}" for number in range(PONG_MOVES) if (wrong := pong.move() or (None if ping.grows() else "nothing flows"))]
    tap.equal(failed, [], f"{PONG_MOVES} moves of pong")
    ping.finish()
    status, done, _, err = ping.end()
    tap.equal((status, err, pong.end()[:2]), (0, "", (0, 64 * done)), "pong: every message came back")


def overflows():
    """Datagrams that the kernel has dropped since their receiver's buffer was full, of all sockets."""
    with open("/proc/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Udp:")]
    return int(values[names.index("RcvbufErrors")])


def datagrams(job, how):
    """8.6: UDP during moves of either end and of both. None is lost but what the kernel drops at a full buffer."""
    name = "connected" if how else "not connected"
    dropped = overflows()
    # Each has its address when it says its first line.
    consumer = Program(job, "udpcons", 5005, 17)
    first = [consumer.line()]
    producer = Program(job, "udpprod", consumer.address, 5005, 1, 0, 17, *how)
    first.append(producer.line())
    pong = Program(job, "udppong", 5006)
    first.append(pong.line())
    ping = Program(job, "udpping", pong.address, 5006, 0, *how)
    first.append(ping.line())
    tap.equal(first, ["bound", "open"] * 2, f"UDP, {name}: four programs")
    failed = []
    for number in range(MOVES):
        for programs in ((consumer,), (producer,), (pong, ping)):
            movers = [threading.Thread(target=lambda p=p: failed.append(p.move())) for p in programs]
            for mover in movers:
                mover.start()
            for mover in movers:
                mover.join()
            failed.append(None if consumer.grows() and ping.grows() else "nothing flows")
    tap.equal([x for x in failed if x], [], f"UDP, {name}: {MOVES} moves of each of four, and they go on")
    producer.finish()
    sent, got = producer.end(), consumer.end()
    ping.finish()
    status, done, lines, err = ping.end()
    back = pong.end()
    dropped = overflows() - dropped
    tap.note(f"UDP, {name}: {sent[1]} datagrams sent, {sent[1] - got[1]} lost, {got[2]}; {done} there and back, {lines}; {dropped} dropped")
    tap.ok(sent[0] == got[0] == 0 and got[1] <= sent[1] <= got[1] + dropped and not sent[3] + got[3],
           f"UDP, {name}: all came, right, once, from the same address", (sent, got))
    lost = int(lines[-1].split()[-1]) if lines else -1
    tap.ok(status == 0 and not err and 0 <= lost <= dropped and back[0] == 0, f"UDP, {name}: each came back as it was", (status, lines, err, back))


def test():
    job = launch.Launch(HOSTS)
    tap.ok(job.said.startswith("ready"), "a job", job.said)
    only = os.environ.get("MSOCK_TEST_ONLY", "").split()
    for part in (establishing, forking, swap, walking, stability):
        if not only or part.__name__ in only:
            part(job)
    for how in ((), ("c",)):
        if not only or "datagrams" in only:
            datagrams(job, how)
    tap.equal((job.end(), job.leftovers()), (0, []), "the job ends, nothing is left")
    job.close()


tap.main(test)
launch.kill_children()
