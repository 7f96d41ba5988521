#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Programs as they are that talk by UDP, under msrun --udp, moved again and again while they do; and what is refused, by name."""
import functools
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import programs  # noqa: E402
from programs import MOVES, PYTHON, Progress, address, launch, tap  # noqa: E402

Member = functools.partial(programs.Member, sockets="--udp")
SERVER = address(0)
WINDOW = 8  # lines under way at once: far fewer than any queue holds, so none may be lost


def overflows():
    """Datagrams that the kernel has dropped since a receiver's buffer was full, of all sockets."""
    with open("/proc/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Udp:")]
    return int(values[names.index("RcvbufErrors")])


ECHO = r"""
import asyncio
class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, who):
        self.transport.sendto(data, who)
    def error_received(self, error):
        raise SystemExit(f"error: {error}")
async def serve(reader, writer):
    while data := await reader.readline():
        writer.write(data)
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 8000)
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("0.0.0.0", 8000))
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

# Endpoints that are connected and that are not, each with several datagrams under way; every one comes back, once, from the
# server's address. A TCP connection, which was there before them, goes on beside them. Says how many rounds the slowest has made.
TALK = r"""
import asyncio, sys
SERVER = (sys.argv[1], 8000)
class Talk(asyncio.DatagramProtocol):
    def __init__(self, number):
        self.number, self.sent, self.under_way, self.rounds = number, 0, set(), 0
    def connection_made(self, transport):
        self.transport, self.to = transport, None if transport.get_extra_info("peername") else SERVER
        self.fill()
    def fill(self):
        while len(self.under_way) < 4:
            data = b"%d:%d:" % (self.number, self.sent) + bytes([self.sent % 251]) * (self.sent * 37 % 1400)
            self.sent += 1
            self.under_way.add(data)
            self.transport.sendto(data, self.to)
    def datagram_received(self, data, who):
        assert who == SERVER, who
        self.under_way.remove(data)
        self.rounds += 1
        self.fill()
        if self.number == 0:
            print(min(lines, *(talk.rounds for talk in talks)))
    def error_received(self, error):
        raise SystemExit(f"error: {error}")
talks, lines = [Talk(number) for number in range(6)], 0
async def stream(reader, writer):
    global lines
    while True:
        writer.write(b"line %d\n" % lines)
        assert await reader.readline() == b"line %d\n" % lines
        lines += 1
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: sys.exit(str(context)))
    beside = stream(*await asyncio.open_connection(*SERVER))
    for talk in talks:
        how = {"remote_addr": SERVER} if talk.number % 2 else {"local_addr": ("0.0.0.0", 0)}
        await loop.create_datagram_endpoint(lambda: talk, **how)
    await asyncio.create_task(beside)
asyncio.run(main())
"""


def echo():
    server = Member("asyncio", 0, PYTHON + ["-c", ECHO])
    tap.equal(server.line(), "up", "asyncio: the server is up")
    client = Member("asyncio", 1, PYTHON + ["-c", TALK, SERVER])
    progress = Progress(client)
    tap.ok(progress.grows(), "asyncio: they talk")
    programs.move_all("asyncio", [server, client], progress.grows)
    tap.note(f"asyncio: {6 * progress.look()} datagrams there and back, at least")
    programs.end_all("asyncio", [client, server])


class Lines:
    """Numbered lines through members, WINDOW of them under way; how many have come, each once."""

    def __init__(self, source, sink):
        self.source, self.sink, self.sent, self.under_way, self.text, self.strange = source, sink, 0, set(), "", []
        os.set_blocking(sink.process.stdout.fileno(), False)

    def fill(self):
        while len(self.under_way) < WINDOW:
            line = f"{self.sent} {'x' * (self.sent * 37 % 900)}"
            self.source.process.stdin.write(line + "\n")
            self.under_way.add(line)
            self.sent += 1
        self.source.process.stdin.flush()

    def look(self):
        self.fill()
        try:
            more = os.read(self.sink.process.stdout.fileno(), 1 << 16).decode()
        except BlockingIOError:
            return self.sent
        *lines, self.text = (self.text + more).split("\n")
        self.strange += [line for line in lines if line not in self.under_way]
        self.under_way -= set(lines)
        return self.sent

    def grows(self):
        """All that was under way arrives."""
        target = self.look()
        arrived = lambda: self.look() and all(int(line.split()[0]) >= target for line in self.under_way)
        return tap.until(arrived, launch.LIMIT_S) and self.sink.runs() and not self.strange


def lines_through(name, source, sink, members):
    lines = Lines(source, sink)
    tap.ok(lines.grows(), f"{name}: they talk", lines.strange)
    programs.move_all(name, members, lines.grows)
    tap.equal(lines.strange, [], f"{name}: {lines.sent} lines, each came once and right")


def socat():
    """Sockets that are connected at both ends, and a relay of sockets that are not."""
    server = Member("socat", 0, ["socat", "UDP-LISTEN:8000", "PIPE"])
    tap.ok(server.is_member(), "socat: a server that echoes")
    client = Member("socat", 1, ["socat", "STDIO", f"UDP:{SERVER}:8000"], stdin=subprocess.PIPE)
    tap.ok(client.is_member(), "socat: a client")
    lines_through("socat", client, client, [server, client])
    sink = Member("socat", 2, ["socat", "-u", "UDP-RECV:8001", "STDOUT"])
    tap.ok(sink.is_member(), "socat: a sink", (sink.move(), sink.runs(), sink.complaints())) # who joins next has the next address
    relay = Member("socat", 3, ["socat", "-u", "UDP-RECV:8002", f"UDP-SENDTO:{address(2)}:8001"])
    tap.ok(relay.is_member(), "socat: a relay")
    source = Member("socat", 4, ["socat", "-u", "STDIN", f"UDP-SENDTO:{address(3)}:8002"], stdin=subprocess.PIPE)
    tap.ok(source.is_member(), "socat: a source")
    lines_through("socat relay", source, sink, [source, relay, sink])
    programs.end_all("socat", [source, relay, sink, client, server])


def iperf(name, option):
    """It measures for as long as the moves take; each second has to bring datagrams, and none is lost but at a full buffer."""
    seconds, dropped = 2 * MOVES + 6, overflows()
    run = programs.iperf(name, seconds, ["-u", "-b", "10M", "-l", "1200", *option], Member)
    end = run.report.get("end", {}).get("sum", {})
    tap.ok(run.status == 0 and "error" not in run.report and not run.silent, f"{name}: no error, no second without bytes",
           (run.status, run.report.get("error"), run.silent, run.out[-500:]))
    dropped = overflows() - dropped
    tap.ok(end.get("packets", 0) > 1000 and end.get("lost_packets", -1) <= dropped, f"{name}: no datagram is lost", (end, dropped))
    tap.note(f"{name}: {end.get('packets')} datagrams, {end.get('lost_packets')} lost, {dropped} dropped in {seconds} s with {run.moves} moves")
    programs.end_all(name, [run.server])


def iperf3():
    iperf("iperf3", [])
    iperf("iperf3-back", ["-R"])


# Waits for a datagram with a time limit, in each of the calls; what is read from the input goes to it. ctypes, as python makes
# a call again that was interrupted.
WAITING = r"""
import ctypes, errno, struct, sys, threading
from socket import *
libc = ctypes.CDLL(None, use_errno=True)
s, other = socket(AF_INET, SOCK_DGRAM), socket(AF_INET, SOCK_DGRAM)
s.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("ll", 60, 0))
s.bind(("0.0.0.0", 8000))
class Part(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("room", ctypes.c_uint), ("parts", ctypes.POINTER(Part)), ("count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_bytes", ctypes.c_size_t), ("flags", ctypes.c_int), ("pad", ctypes.c_int), ("size", ctypes.c_uint)]
space = ctypes.create_string_buffer(100)
part = Part(ctypes.addressof(space), 100)
message = Message(None, 0, ctypes.pointer(part), 1, None, 0, 0, 0, 0)
calls = {"read": (space, 100), "readv": (ctypes.byref(part), 1), "recv": (space, 100, 0), "recvfrom": (space, 100, 0, None, None),
         "recvmsg": (ctypes.byref(message), 0), "recvmmsg": (ctypes.byref(message), 1, 0, None)}
def feed():
    for line in sys.stdin:
        other.sendto(line.strip().encode(), (sys.argv[1], 8000))
threading.Thread(target=feed, daemon=True).start()
for name, arguments in calls.items():
    print(name, flush=True)
    got = getattr(libc, name)(s.fileno(), *arguments)
    got = message.size if name == "recvmmsg" else got
    print(space[:got].decode() if got >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
s.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("ll", 0, 200000))
print(libc.read(s.fileno(), space, 100), ctypes.get_errno(), flush=True)
"""


def timed():
    """A call that waits for a datagram with a time limit goes on when its process moves; the limit is kept."""
    member = Member("timed", 0, PYTHON + ["-c", WAITING, SERVER], stdin=subprocess.PIPE)
    moves = []
    for call in ("read", "readv", "recv", "recvfrom", "recvmsg", "recvmmsg"):
        said = member.line()
        moves += [member.move() for _ in range(2)]
        member.process.stdin.write(call + "!\n")
        member.process.stdin.flush()
        tap.equal((said, member.line()), (call, call + "!"), f"{call} with a time limit goes on across moves")
    tap.equal([said for status, said in moves if status], [], f"timed: {len(moves)} moves")
    tap.equal(member.line(), "-1 11", "and ends when its time is over")
    tap.equal((member.wait(), member.complaints()), ((0, ""), ""), "timed: it ends well")


# Opens a socket beside one that is virtual, and does with it what it is told; "echo" asks whether the other still serves.
HOST_SOCKETS = r"""
import select, socket, sys
from socket import *
def new():
    return socket(AF_INET, SOCK_DGRAM)
virtual = new()
virtual.bind(("0.0.0.0", 8000))
peer = new()
peer.connect((sys.argv[1], 8000))
host = "127.0.0.1"
print("up", flush=True)
for line in sys.stdin:
    said = "done"
    try:
        exec(line)
    except OSError as error:
        said = error.strerror
    print(said, flush=True)
"""
SERVES = 'peer.send(b"x"); said = virtual.recv(10).decode()'
# What makes a socket the kernel's, and what is said about it.
KERNELS = {
    "bound to an address of its host": "s = new(); s.bind((host, 0))",
    "connected to an address outside the job": "s = new(); s.connect((host, 9))",
    "used with an address outside the job": "s = new(); s.sendto(b'x', (host, 9))",
    "a member of a multicast group": "s = new(); s.setsockopt(IPPROTO_IP, IP_ADD_MEMBERSHIP, inet_aton('239.1.2.3') + inet_aton(host))",
    "bound to a device": "s = new(); s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'lo')",
}
# Calls on a socket that is bound to the virtual address by name: there is no way to the world.
NO_WAY = ["s = new(); s.bind((sys.argv[1], 0)); s.connect((host, 9))", "s = new(); s.bind((sys.argv[1], 0)); s.sendto(b'x', (host, 9))"]


def refused():
    """A socket of the kernel's own is named; the program goes on, and moves when it is closed."""
    member = Member("refused", 0, PYTHON + ["-c", HOST_SOCKETS, SERVER], stdin=subprocess.PIPE)

    def does(line):
        member.process.stdin.write(line + "\n")
        member.process.stdin.flush()
        return member.line()

    tap.equal((member.line(), does(SERVES)), ("up", "x"), "refusals: a program with virtual sockets")
    for why, line in KERNELS.items():
        tap.equal(does(line), "done", f"refusals: a socket is {why}")
        status, said = member.move()
        tap.ok(status == 1 and why in said and said.count("\n") == 1, "is not moved, and one line says why", (status, said))
        tap.equal((does(SERVES), does("s.close()")), ("x", "done"), "it goes on, and closes it")
        status, said = member.move()
        tap.equal((status, does(SERVES)), (0, "x"), "and moves then")
    for line in NO_WAY:
        tap.equal(does(line), os.strerror(101), "refusals: " + line.split("; ")[-1])
        does("s.close()")
    tap.equal((member.move()[0], does(SERVES)), (0, "x"), "and it moves")
    member.process.stdin.write("raise SystemExit\n")
    tap.equal((member.wait(), member.complaints()), ((0, ""), ""), "refusals: it ends well")
    # with --sockets alone
    member = programs.Member("alone", 0, PYTHON + ["-c", "from socket import *; import sys; s = socket(AF_INET, SOCK_DGRAM); s.bind(('', 0)); "
                                                   "print('up', flush=True); sys.stdin.readline(); s.close(); print('closed', flush=True); sys.stdin.readline()"],
                             stdin=subprocess.PIPE)
    tap.equal(member.line(), "up", "refusals: a UDP socket, without --udp")
    status, said = member.move()
    tap.ok(status == 1 and "socket" in said and said.count("\n") == 1, "is not moved, and one line says why", (status, said))
    tap.equal((does(""), member.move()[0]), ("closed", 0), "and moves when it has closed it")
    member.process.stdin.write("\n")
    tap.equal((member.wait(), member.complaints()), ((0, ""), ""), "refusals: it ends well")


TESTS = {"asyncio": (echo, "python3"), "socat": (socat, "socat"), "iperf3": (iperf3, "iperf3"), "timed": (timed, "python3"), "refused": (refused, "python3")}

tap.main(lambda: programs.run(TESTS))
programs.close()
