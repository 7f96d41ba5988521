#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Servers and clients as they are, under msrun --sockets, moved again and again while they work; results checked."""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
TOP = tempfile.mkdtemp(prefix="msock-programs-")
ENV = dict(os.environ, MSOCK_RUNDIR=TOP, MSOCK_HELPERDIR=f"{launch.BUILD}:{launch.BUILD}/msock/image",
           MSOCK_LIBDIR=os.path.join(launch.BUILD, ".libs"), PYTHONUNBUFFERED="1")
MOVES = tap.number("MOVES", 4)
SERVER, CLIENT = "100.64.0.1", 1

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


def start(words, *options, stdin=subprocess.DEVNULL):
    return subprocess.Popen([launch.program("msrun"), "--sockets", *options, "--", *words], env=ENV, cwd=TOP, stdin=stdin,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def move(job, rank, host, via):
    done = subprocess.run([launch.program("msrank-move"), "--job", job, "--via", via, str(rank), host], env=ENV, capture_output=True,
                          text=True, check=False, timeout=launch.LIMIT_S)
    return done.returncode, done.stdout + done.stderr


class Progress:
    """The numbers that a client says."""

    def __init__(self, process):
        os.set_blocking(process.stdout.fileno(), False)
        self.file, self.number, self.text = process.stdout, 0, ""

    def look(self):
        try:
            self.text += os.read(self.file.fileno(), 1 << 20).decode()
        except BlockingIOError:
            pass
        *lines, self.text = self.text.split("\n")
        self.number = int(lines[-1]) if lines else self.number
        return self.number

    def grows(self, process):
        before = self.look()
        return tap.until(lambda: self.look() > before or process.poll() is not None, launch.LIMIT_S) and process.poll() is None


def pair(name, server_words, client_words, up):
    job = name.replace(" ", "-")
    server = start(server_words, "--job", job, "--host", ",".join(HOSTS))
    if up:
        tap.equal(server.stdout.readline(), up, f"{name}: the server is up")
    client = start(client_words, "--join", job, "--rank", "1", "--host", HOSTS[1])
    progress, failed = Progress(client), []
    tap.ok(progress.grows(client), f"{name}: they talk")
    for number in range(MOVES):
        for rank in (0, 1):
            status, said = move(job, rank, HOSTS[(number + rank + 1 + rank) % 3], ("auto", "drain", "mirror")[number % 3])
            if status or not progress.grows(client):
                failed.append((rank, status, said))
    tap.equal(failed, [], f"{name}: {2 * MOVES} moves, and it goes on after each")
    tap.ok(client.poll() is None and server.poll() is None, f"{name}: both run", (client.poll(), server.poll()))
    for process in (client, server):
        process.send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=launch.LIMIT_S)[1] for process in (client, server)]
    tap.ok(not any("Traceback" in text or "assert" in text or " at -e line" in text for text in errors), f"{name}: no complaint", errors)


def digest(name):
    with open(os.path.join(TOP, name), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def transfer(name, server_words, client_words, up, result):
    """One file from end to end, while both are moved as often as there is time for; then they end."""
    server = start(server_words, "--job", name, "--host", ",".join(HOSTS))
    if up:
        tap.equal(server.stdout.readline(), up, f"{name}: the server is up")
    else: # it says nothing; who can be moved is a member
        tap.ok(tap.until(lambda: move(name, 0, HOSTS[1], "auto")[0] == 0, launch.LIMIT_S), f"{name}: the server is a member")
    client = start(client_words, "--join", name, "--rank", "1", "--host", HOSTS[1])
    moves = 0
    while client.poll() is None and server.poll() is None and moves < 2 * MOVES:
        moves += move(name, moves % 2, HOSTS[(moves + 2) % 3], ("auto", "mirror")[moves % 2])[0] == 0
    status = client.wait(launch.LIMIT_S)
    if up: # else the server ends by itself, and the job with it, perhaps before the client's end is told
        tap.equal(status, 0, f"{name}: the client ends well")
        server.send_signal(signal.SIGTERM)
    server.communicate(timeout=launch.LIMIT_S)
    tap.note(f"{moves} moves")
    tap.equal(digest(result), digest("big"), f"{name}: the file is the same")


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
    server = start(["/usr/bin/python3", "-c", TAKE], "--job", "leaving", "--host", ",".join(HOSTS))
    tap.equal(server.stdout.readline(), "up\n", "a server that reads to the end")
    for rank, (how, status) in enumerate((("_exit", 3), ("exit", 4)), 1):
        client = start(["/usr/bin/python3", "-c", LEAVE, SERVER, how], "--join", "leaving", "--rank", str(rank), "--host", HOSTS[1])
        tap.equal((server.stdout.readline(), client.wait(launch.LIMIT_S)), ("3000000 True\n", status), f"{how}: all has arrived")
        client.communicate()
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=launch.LIMIT_S)


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
    server = start(["/usr/bin/python3", "-c", HOST_SOCKET], "--job", "refused", "--host", ",".join(HOSTS), stdin=subprocess.PIPE)
    tap.equal(server.stdout.readline(), "open\n", "a program with a socket of the host")
    status, said = move("refused", 0, HOSTS[1], "auto")
    tap.ok(status == 1 and "socket" in said and said.count("\n") == 1, "is not moved, and one line says why", (status, said))
    server.stdin.write("\n")
    server.stdin.flush()
    tap.equal(server.stdout.readline(), "closed\n", "it goes on")
    tap.equal(move("refused", 0, HOSTS[1], "auto")[0], 0, "and moves when it has closed it")
    tap.equal((server.communicate("\n", launch.LIMIT_S), server.returncode), (("", ""), 0), "it ends well")


def test():
    data = os.urandom(3000000)
    with open(os.path.join(TOP, "file"), "wb") as file:
        file.write(data)
    python = ["/usr/bin/python3"]
    pair("http.server", python + ["-c", "from http.server import *; import os; SimpleHTTPRequestHandler.protocol_version = 'HTTP/1.1'; "
                                  "SimpleHTTPRequestHandler.log_message = lambda *a: None; "
                                  "s = ThreadingHTTPServer(('', 8000), SimpleHTTPRequestHandler); print('up'); s.serve_forever()"],
         python + ["-c", FETCH, SERVER, hashlib.sha256(data).hexdigest()], "up\n")
    pair("asyncio", python + ["-c", ECHO], python + ["-c", TALK, SERVER], "up\n")
    if shutil.which("perl"):
        pair("perl", ["perl", "-e", PERL_SERVER], ["perl", "-e", PERL_CLIENT, SERVER], "up\n")
    else:
        tap.skip("perl", "not installed")
    with open(os.path.join(TOP, "big"), "wb") as file:
        for _ in range(10 * tap.number("SIZE", 5)):
            file.write(os.urandom(1 << 20))
    if shutil.which("curl"):
        transfer("curl", python + ["-c", "from http.server import *; s = HTTPServer(('', 8000), SimpleHTTPRequestHandler); print('up'); "
                                         "s.serve_forever()"],
                 ["curl", "-s", "--limit-rate", "25M", "-o", "got", f"http://{SERVER}:8000/big"], "up\n", "got")
    else:
        tap.skip("curl", "not installed")
    if shutil.which("socat"):
        transfer("socat", ["socat", "-u", "TCP-LISTEN:8000", "CREATE:received"], ["socat", "-u", "OPEN:big", f"TCP:{SERVER}:8000,retry=600,interval=0.1"], None,
                 "received")
    else:
        tap.skip("socat", "not installed")
    leaving()
    refused()


tap.main(test)
launch.kill_children()
shutil.rmtree(TOP, ignore_errors=True)
