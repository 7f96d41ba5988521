#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Servers and clients as they are, under msrun --sockets, moved again and again while they work; results checked."""
import hashlib
import os
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import programs  # noqa: E402
from programs import MOVES, PYTHON, TOP, Member, Progress, address, launch, tap  # noqa: E402

SERVER = address(0)

WEB = r"""
from http.server import *
SimpleHTTPRequestHandler.protocol_version = "HTTP/1.1"
SimpleHTTPRequestHandler.log_message = lambda *a: None
s = ThreadingHTTPServer(("", 8000), SimpleHTTPRequestHandler)
print("up")
s.serve_forever()
"""

# Fetches a file over and over on kept connections: says how often it was right.
FETCH = r"""
import hashlib, http.client, sys
connection, good = http.client.HTTPConnection(sys.argv[1], 8000), 0
while True:
    connection.request("GET", "/file")
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200 and hashlib.sha256(body).hexdigest() == sys.argv[2], (answer.status, len(body))
    good += 1
    print(good)
"""

ECHO = r"""
import asyncio
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 8000)
    print("up", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

# Twenty connections at once, messages of all sizes, each checked: says how many rounds.
TALK = r"""
import asyncio, random, sys
async def talk(number):
    reader, writer = await asyncio.open_connection(sys.argv[1], 8000)
    r = random.Random(number)
    while True:
        data = r.randbytes(r.choice((1, 100, 5000, 200000)))
        writer.write(data)
        back = await reader.readexactly(len(data))
        assert back == data
        yield
async def one(number):
    async for _ in talk(number):
        counts[number] += 1
        if number == 0:
            print(min(counts))
counts = [0] * 20
async def main():
    await asyncio.gather(*map(one, range(20)))
asyncio.run(main())
"""

# Asks about its connection all the time: it is there, whatever is done to it. Says how many lines came back.
ASK = r"""
import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], 8000))
f, number = s.makefile("rb"), 0
def ask():
    while True:
        try:
            state = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0]
        except OSError as error:
            state = error
        if state != 1:
            print(f"TCP_INFO: {state}", file=sys.stderr, flush=True)
            os._exit(1)
threading.Thread(target=ask, daemon=True).start()
while True:
    s.sendall(b"line %d\n" % number)
    assert f.readline() == b"line %d\n" % number
    number += 1
    print(number)
"""

# Perl's own sockets, buffered by its stdio: lines, answered in capitals.
PERL_SERVER = r"""
use IO::Socket::INET;
my $l = IO::Socket::INET->new(Listen => 5, LocalPort => 8000, ReuseAddr => 1) or die "listen: $!";
$| = 1; print "up\n";
my $c = $l->accept or die "accept: $!";
while (my $line = <$c>) { print $c uc $line; }
"""
PERL_CLIENT = r"""
use IO::Socket::INET;
my $c = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => 8000) or die "connect: $!";
$| = 1;
for (my $i = 1; ; $i++) {
    print $c "line $i of many\n";
    my $line = <$c>;
    die "got $line" unless $line eq "LINE $i OF MANY\n";
    print "$i\n" if $i % 100 == 0;
}
"""


def pair(name, server_words, client_words):
    """A client that says how often it was right."""
    job = name.replace(" ", "-")
    server = Member(job, 0, server_words)
    tap.equal(server.line(), "up", f"{name}: the server is up")
    client = Member(job, 1, client_words)
    progress = Progress(client)
    tap.ok(progress.grows(), f"{name}: they talk")
    programs.move_all(name, [server, client], progress.grows)
    programs.end_all(name, [client, server])


def web():
    data = os.urandom(3000000)
    with open(os.path.join(TOP, "file"), "wb") as file:
        file.write(data)
    pair("http.server", PYTHON + ["-c", WEB], PYTHON + ["-c", FETCH, SERVER, hashlib.sha256(data).hexdigest()])


def echo():
    pair("asyncio", PYTHON + ["-c", ECHO], PYTHON + ["-c", TALK, SERVER])


def info():
    pair("TCP_INFO", PYTHON + ["-c", ECHO], PYTHON + ["-c", ASK, SERVER])


def perl():
    pair("perl", ["perl", "-e", PERL_SERVER], ["perl", "-e", PERL_CLIENT, SERVER])


class Reader:
    """What a member writes to its output, hashed while the test does something else."""

    def __init__(self, member):
        self.digest = None
        self.thread = threading.Thread(target=self.run, args=(member.process.stdout,))
        self.thread.start()

    def run(self, file):
        self.digest = programs.read_digest(file)

    def done(self):
        return not self.thread.is_alive()

    def result(self, limit_s):
        self.thread.join(limit_s)
        return self.digest


def curl():
    """A file as large as it has to be to let all the moves happen meanwhile."""
    size, rate = ((1 << 30), "40M") if programs.LONG else (50 << 20, "25M")
    want = programs.big_file("big", size)
    server = Member("curl", 0, PYTHON + ["-c", WEB])
    tap.equal(server.line(), "up", "curl: the server is up")
    client = Member("curl", 1, ["curl", "-sS", "--limit-rate", rate, f"http://{SERVER}:8000/big"], text=False)
    reader = Reader(client)
    tap.ok(client.is_member(), "curl: a client")
    moves, failed = programs.move_until([client, server], reader.done)
    tap.ok(moves >= 2 and not failed, f"curl: {size >> 20} MB; moves during it", (moves, failed))
    tap.note(f"{moves} moves")
    tap.equal(reader.result(4 * launch.LIMIT_S), want, "curl: sha256")
    tap.equal(client.process.wait(launch.LIMIT_S), 0, "curl: the client ends well")
    programs.end_all("curl", [server])


class Feeder:
    """Bytes into a member's input for as long as it is wanted, hashed on their way."""

    def __init__(self, member):
        self.member, self.enough, self.hash, self.size = member, threading.Event(), hashlib.sha256(), 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        block = os.urandom(1 << 16)
        with self.member.process.stdin as file:
            while not self.enough.is_set() and self.member.runs():
                piece = self.size.to_bytes(8, "little") + block
                self.hash.update(piece)
                self.size += file.write(piece)

    def end(self):
        self.enough.set()
        self.thread.join()
        return self.hash.hexdigest()


def pipeline():
    """socat, a relay of socat's, nc: bytes that flow as long as the moves take, and an answer back."""
    word = b"the answer" * 10000
    holder = Member("pipeline", 0, ["cat"], stdin=subprocess.PIPE) # the job ends with its first member
    tap.ok(holder.is_member(), "pipeline: a job")
    sink = Member("pipeline", 1, ["nc", "-l", "8000"], stdin=subprocess.PIPE, text=False)
    sink.process.stdin.write(word)
    sink.process.stdin.close()
    received = Reader(sink)
    tap.ok(sink.is_member(), "pipeline: nc listens")
    relay = Member("pipeline", 2, ["socat", "TCP-LISTEN:8001", f"TCP:{address(1)}:8000,retry=600,interval=0.1"])
    tap.ok(relay.is_member(), "pipeline: a relay")
    source = Member("pipeline", 3, ["socat", "-t", "60", "STDIO", f"TCP:{address(2)}:8001,retry=600,interval=0.1"],
                    stdin=subprocess.PIPE, text=False)
    answer, feeder, members = Reader(source), Feeder(source), [source, relay, sink]
    tap.ok(source.is_member(), "pipeline: a source")
    moves, failed = programs.move_until(members, received.done)
    given = feeder.end()
    tap.equal((moves, failed), (3 * MOVES, []), "pipeline: moves of source, relay and sink")
    tap.note(f"{moves} moves, {feeder.size >> 20} MB")
    tap.equal(received.result(4 * launch.LIMIT_S), given, "pipeline: the bytes are the same")
    tap.equal(answer.result(launch.LIMIT_S), hashlib.sha256(word).hexdigest(), "pipeline: so is the answer")
    tap.equal([member.process.wait(launch.LIMIT_S) for member in members], [0, 0, 0], "pipeline: all end well")
    holder.process.terminate() # its input stays open: the end of that might overtake the signal
    tap.equal(holder.process.wait(launch.LIMIT_S), -signal.SIGTERM, "pipeline: the job ends")
    holder.stop()


# Takes all that comes on a connection: says how much and whether it is right.
TAKE = r"""
import socket
l = socket.create_server(("", 8000))
print("up", flush=True)
while True:
    c, data = l.accept()[0], b""
    while part := c.recv(100000):
        data += part
    print(len(data), data == b"0123456789" * 300000, flush=True)
"""
LEAVE = r"""
import os, socket, sys
c = socket.create_connection((sys.argv[1], 8000))
c.sendall(b"0123456789" * 300000)
if sys.argv[2] == "_exit":
    os._exit(3)
sys.exit(4)
"""


def leaving():
    """What was written arrives, though the writer ends at once."""
    server = Member("leaving", 0, PYTHON + ["-c", TAKE])
    tap.equal(server.line(), "up", "a server that reads to the end")
    for rank, (how, status) in enumerate((("_exit", 3), ("exit", 4)), 1):
        client = Member("leaving", rank, PYTHON + ["-c", LEAVE, SERVER, how])
        tap.equal((server.line(), client.wait()[0]), ("3000000 True", status), f"{how}: all has arrived")
    programs.end_all("leaving", [server])


# Opens a socket of the host, and closes it when told.
HOST_SOCKET = r"""
import socket, sys
l = socket.create_server(("127.0.0.1", 0))
v = socket.create_server(("", 8000))
print("open", flush=True)
sys.stdin.readline()
l.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def refused():
    """A socket of the kernel's own is named; the program goes on, and moves when it is closed."""
    server = Member("refused", 0, PYTHON + ["-c", HOST_SOCKET], stdin=subprocess.PIPE)
    tap.equal(server.line(), "open", "a program with a socket of the host")
    status, said = server.move()
    tap.ok(status == 1 and "socket" in said and said.count("\n") == 1, "is not moved, and one line says why", (status, said))
    server.process.stdin.write("\n")
    server.process.stdin.flush()
    tap.equal(server.line(), "closed", "it goes on")
    tap.equal(server.move()[0], 0, "and moves when it has closed it")
    server.process.stdin.write("\n")
    tap.equal((server.wait(), server.complaints()), ((0, ""), ""), "it ends well")


# What is run: by what program, which is skipped where it is not installed.
TESTS = {"http.server": (web, "python3"), "asyncio": (echo, "python3"), "info": (info, "python3"), "perl": (perl, "perl"), "curl": (curl, "curl"),
         "pipeline": (pipeline, "socat nc"), "leaving": (leaving, "python3"), "refused": (refused, "python3")}

tap.main(lambda: programs.run(TESTS))
programs.close()
