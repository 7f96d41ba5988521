# SPDX-License-Identifier: MIT
"""Programs that fork, and do in both processes what a test tells them; what the job knows of their children."""
import json
import os
import re
import select
import subprocess
import sys
import time

import launch
from launch import tap

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
JOIN = {"MSOCK_JOIN": "sockets", "MSOCK_CHECK": "1"}
VIAS = ("auto", "drain", "mirror")

# Evaluates lines, also in children that it forks: kid(name), tell(name, line); start and finish, when that takes time.
ACTOR = r"""
import errno, os, select, signal, socket, sys
kids = {}
def evaluate(line):
    try:
        code = compile(line, "", "eval")
    except SyntaxError:
        return exec(line, globals())
    return eval(code, globals())
def serve(lines, out):
    for line in lines:
        try:
            value = evaluate(line)
        except OSError as error:
            value = errno.errorcode.get(error.errno, str(error))
        print(repr(value), file=out, flush=True)
def kid(name):
    there, to = os.pipe()
    back, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        for _, *files in kids.values():
            for file in files:
                file.close()
        kids.clear()
        os.close(to)
        os.close(back)
        serve(os.fdopen(there), os.fdopen(here, "w"))
        os._exit(0)
    os.close(there)
    os.close(here)
    kids[name] = pid, os.fdopen(to, "w"), os.fdopen(back)
    return pid
def start(name, line):
    print(line, file=kids[name][1], flush=True)
def finish(name):
    return eval(kids[name][2].readline())
def tell(name, line):
    start(name, line)
    return finish(name)
def reap(name):
    pid, *files = kids.pop(name)
    for file in files:
        file.close()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def worker(first): # a child that does what it is told over its connection, and at first this, to share nothing
    pid = os.fork()
    if pid == 0:
        evaluate(first)
        lines = c.makefile("rw")
        c.close()
        serve(lines, lines)
        os._exit(0)
    c.close()
    return pid
def ask_worker(line):
    print(line, file=f, flush=True)
    return eval(f.readline())
def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def take(s, n):
    data = b""
    while len(data) < n and (part := s.recv(n - len(data))):
        data += part
    return data
serve(sys.stdin, sys.stdout)
"""


class Actor:
    """One program, which does what it is told."""

    def __init__(self, job, rank):
        self.job, self.rank, self.host, self.said = job, rank, HOSTS[rank % 3], b""
        self.err = open(os.path.join(job.top, f"{rank}.err"), "w+", encoding="utf-8")
        self.process = job.stub(rank, [sys.executable, "-c", ACTOR], self.host, env=JOIN, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=self.err)
        self.address = self.ask("os.environ['MSOCK_ADDRESS']")

    def say(self, line):
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def hear(self):
        end = time.monotonic() + launch.LIMIT_S
        while b"\n" not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                return f"no answer: {self.complaints()}"
            self.said += more
        line, self.said = self.said.split(b"\n", 1)
        return eval(line) # noqa: what a program of ours says

    def ask(self, line):
        self.say(line)
        return self.hear()

    def move(self, via="auto", limit_s=60):
        """(exit status, what was said)"""
        host = HOSTS[(HOSTS.index(self.host) + 1) % 3]
        status, out, err = self.job.tool("msrank-move", "--via", via, "--timeout", str(limit_s), str(self.rank), host)
        if status == 0:
            self.host = host
        return status, out + err

    def complaints(self):
        with open(self.err.name, encoding="utf-8", errors="replace") as file:
            return "".join(line for line in file if "msmirror" not in line)

    def end(self):
        self.process.stdin.close()
        try:
            return self.process.wait(launch.LIMIT_S), self.complaints()
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "timeout", self.complaints()


def rows(job):
    """{member: what msrank-ps says}"""
    status, out, _ = job.tool("msrank-ps", "--json")
    return {entry["member"]: entry for entry in json.loads(out)["ranks"]} if status == 0 else {}


def child_of(job, parent, pid):
    """Its name, if it is a member that runs."""
    return next((name for name, row in rows(job).items()
                 if row.get("parent") == parent and row["pid"] == pid and row["state"] == "running"), None)


def is_direct(pid, number):
    """The kernel's TCP connection itself is under this number."""
    inode = os.readlink(f"/proc/{pid}/fd/{number}").strip("socket:[]")
    with open("/proc/net/tcp", encoding="ascii") as file:
        return any(line.split()[9] == inode and line.split()[3] == "01" for line in file)


def echo(client, holder, name):
    """Bytes go both ways between the client's s and the server's c, of which holder(line) is asked."""
    client.ask("s.sendall(b'there' * 1000)")
    got = holder("take(c, 5000)")
    holder("c.sendall(b'back' * 1000)")
    return tap.equal((got, client.ask("take(s, 4000)")), (b"there" * 1000, b"back" * 1000), name)


def connect(server, client, port=8000):
    tap.equal(client.ask(f"s = socket.create_connection(('{server.address}', {port}))"), None, "a connection")
    return tap.equal(server.ask("c = l.accept()[0]") or server.ask("c.getpeername()[0]"), client.address, "and it is accepted")


def moves(client, holder, name):
    for via in VIAS:
        status, said = client.move(via)
        tap.equal((status, said if status else ""), (0, ""), f"{name}: its peer is moved, {via}")
        echo(client, holder, f"{name}: and goes on with it")


def shown(server, pid):
    """The number that a child has outside of the namespace that a move has put its parent into."""
    for entry in launch.children():
        try:
            with open(f"/proc/{entry}/status", encoding="utf-8", errors="replace") as file:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since it was listed
        if fields.get("NSpid", "").split()[-1:] == [str(pid)] and fields["Name"].startswith(("python", "sleep")):
            return entry
    return 0


def names(said, server, pids):
    """In one line, by the numbers that they have in the namespace whose /proc the program sees."""
    numbers = re.findall(r"\d+", said.split("process", 1)[-1])
    return said.count("\n") == 1 and all({str(pid), str(shown(server, pid))} & set(numbers) for pid in pids)


class Worker:
    """A forked child that serves one connection and can move."""

    def __init__(self, job, server, client, first="l.close()"):
        connect(server, client)
        client.ask("f = s.makefile('rw')")
        self.job, self.server, self.client, self.host = job, server, client, server.host
        self.pid = server.ask(f"worker({first!r})")
        self.parent = f"0.{server.rank}"
        number = shown(server, self.pid)
        tap.ok(tap.until(lambda: child_of(job, self.parent, number), launch.LIMIT_S), "a child serves, and is a member", rows(job))
        self.name = child_of(job, self.parent, number)

    def ask(self, line):
        return self.client.ask(f"ask_worker({line!r})")

    def move(self, host, via="auto", *options):
        """(exit status, what was said)"""
        status, out, err = self.job.tool("msrank-move", "--via", via, *options, self.name, host)
        if status == 0:
            self.host = host
        return status, out + err

    def moves(self, host, via="auto"):
        status, said = self.move(host, via)
        tap.equal((status, said if status else "", self.ask("os.getpid()")), (0, "", self.pid), f"the child moves to {host}, {via}, and serves")
        row = rows(self.job).get(self.name, {})
        tap.equal((row.get("host"), row.get("parent")), (host, self.parent), "and is listed there, as its parent's child")

    def refused(self, host, *words):
        """One line that has all these words."""
        status, said = self.move(host)
        return tap.ok(status == 1 and said.count("\n") == 1 and all(word in said for word in words), f"refused: {' '.join(words)}", (status, said))

    def told(self, line):
        """It will not answer."""
        self.client.ask(f"print({line!r}, file=f, flush=True)")

    def ends(self, status, name):
        tap.equal(self.server.ask(f"ended({self.pid})"), status, name)
        self.client.ask("f.close(), s.close()")
        tap.ok(tap.until(lambda: self.name not in rows(self.job), launch.LIMIT_S), "it is not listed any more", rows(self.job))
