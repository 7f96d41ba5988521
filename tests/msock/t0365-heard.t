#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Two programs connect UDP sockets to each other and send all the time, while either or both of them move: each hears all that
the other has sent, as far as the kernel does not drop it at a full buffer, and no move waits for a member that does not answer.
"""
import os
import re
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
JOIN = {"MSOCK_JOIN": "sockets,udp", "MSOCK_CHECK": "1", "MSOCK_DEBUG": "info"}
MOVES = tap.number("MOVES", 40 if tap.number("LONG", 0) else 8)
random = tap.seed()

# ME OTHER: numbered datagrams, 1000 a second, until it is told to stop; reads until nothing has come for a while.
PEER = r"""
import select, socket, struct, sys, time
me, other = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
s.bind((me, 5050))
print("bound", flush=True)
sys.stdin.readline()
s.connect((other, 5050))
seen, sent, stop, last, next = set(), 0, False, time.monotonic(), time.monotonic()
while not stop or time.monotonic() - last < 3:
    ready = select.select([s] if stop else [s, sys.stdin], [], [], 0.001)[0]
    now = time.monotonic()
    if s in ready:
        number, = struct.unpack("I", s.recv(64)[:4])
        assert number not in seen, number
        seen.add(number)
        last = now
    if sys.stdin in ready:
        stop, last = True, now
    while not stop and now >= next:
        s.send(struct.pack("I", sent) + bytes(sent % 50))
        sent, next = sent + 1, next + 0.001
print(sent, len(seen), flush=True)
"""


def overflows():
    with open("/proc/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Udp:")]
    return int(values[names.index("RcvbufErrors")])


def sockets():
    """[(local, remote)] of all UDP sockets, each as (address, port)."""
    def end(text):
        ip, port = text.split(":")
        return socket.inet_ntoa(bytes.fromhex(ip)[::-1]), int(port, 16)
    with open("/proc/net/udp", encoding="ascii") as file:
        return [(end(line.split()[1]), end(line.split()[2])) for line in file if line.split()[0] != "sl"]


def one_at_a_time(at):
    """
    Who is connected to a place has a pen at the same port: when its socket is turned to that, or back, only the address
    changes, and what a thread writes just then goes to one of the two.
    """
    all_of_them = sockets()
    bound = {local for local, _ in all_of_them}
    pairs = [(local, remote) for local, remote in all_of_them if (local[0], remote[0]) in ((at[0], at[1]), (at[1], at[0]))]
    return len(pairs) == 2 and all((local[0], remote[1]) in bound for local, remote in pairs)


def test():
    job = launch.Launch(HOSTS)
    logs = [tempfile.TemporaryFile("w+") for _ in range(2)]
    at, ends, dropped = [HOSTS[0], HOSTS[1]], [], overflows()
    for rank in (0, 1):
        words = [sys.executable, "-c", PEER, f"100.64.0.{rank + 1}", f"100.64.0.{2 - rank}"]
        ends.append(job.stub(rank, words, at[rank], env=JOIN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=logs[rank], text=True))
        assert ends[rank].stdout.readline() == "bound\n"
    for end in ends:
        end.stdin.write("connect\n")
        end.stdin.flush()
    failed = []
    for number in range(MOVES):
        movers = []
        for rank in ((0,), (1,), (0, 1), (0, 1))[number % 4]:
            at[rank] = random.choice([host for host in HOSTS if host != at[rank]])
            movers.append(subprocess.Popen([launch.program("msrank-move"), str(rank), at[rank]], env=job.env, stdout=subprocess.PIPE,
                                           stderr=subprocess.STDOUT, text=True))
        for mover in movers:
            out, _ = mover.communicate(timeout=launch.LIMIT_S)
            failed += [out] if mover.returncode else []
    tap.equal(failed, [], f"{MOVES} moves, of one, the other, and both")
    if at[0] == at[1]:
        at[0] = next(host for host in HOSTS if host != at[1])
        assert job.tool("msrank-move", "0", at[0])[0] == 0
    tap.ok(tap.until(lambda: one_at_a_time(at), launch.LIMIT_S), "address and port of a socket never change at once", sockets())
    for end in ends:
        end.stdin.write("stop\n")
        end.stdin.flush()
    said = [list(map(int, end.stdout.read().split())) for end in ends]
    tap.equal([end.wait(launch.LIMIT_S) for end in ends], [0, 0], "both end")
    lost = [said[0][0] - said[1][1], said[1][0] - said[0][1]] if all(map(len, said)) else None
    dropped = overflows() - dropped
    tap.note(f"sent and heard {said}, lost {lost}, dropped by the kernel {dropped}")
    tap.ok(lost and min(lost) >= 0 and sum(lost) <= dropped, "each has heard all that the other sent", lost)
    late = []
    for log in logs:
        log.seek(0)
        late += re.findall("member .* does not hold back its datagrams", log.read())
    tap.equal(late, [], "each is told of the other's moves")
    tap.equal(job.end(), 0, "the job ends")
    job.close()


tap.main(test)
launch.kill_children()
