#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
States of a TCP stream, times who moves, times how, times how the ends wait: two programs do the same as over plain
sockets without msock, and must see the same.  A cell is a list of lines of Python for the server (s) and the client (c);
at MOVE there is a move, or two at once.
"""
import os
import select
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
JOIN = {"MSOCK_JOIN": "sockets", "MSOCK_CHECK": "1"}
random = tap.seed()

# Runs the lines that come, and says what came of each. `way` is how the end waits.
PROGRAM = r"""
import errno, hashlib, os, select, signal, socket, struct, sys, threading
from socket import *
way, address, listens = sys.argv[1:4]
port = 7700
l = k = None
epolls = {}

def wait(sock, event):
    if way == "block":
        sock.setblocking(True)
    elif way == "poll":
        sock.setblocking(False)
        p = select.poll()
        p.register(sock, select.POLLIN if event == "r" else select.POLLOUT)
        p.poll()
    elif way == "select":
        sock.setblocking(False)
        select.select([sock] if event == "r" else [], [sock] if event == "w" else [], [])
    else:
        sock.setblocking(False)
        if sock.fileno() not in epolls:
            epolls[sock.fileno()] = select.epoll()
            epolls[sock.fileno()].register(sock, select.EPOLLIN | select.EPOLLOUT | (select.EPOLLET if way == "edge" else 0))
        bit = select.EPOLLIN if event == "r" else select.EPOLLOUT
        while not epolls[sock.fileno()].poll()[0][1] & (bit | select.EPOLLERR | select.EPOLLHUP):
            pass

def when(sock, event, call):
    while True:
        if way != "edge":
            wait(sock, event)
        try:
            return call()
        except BlockingIOError:
            if way == "edge":
                wait(sock, event)

def prepare(sock):
    sock.setblocking(way == "block")
    if sock.fileno() in epolls:
        epolls.pop(sock.fileno()).close()
    return sock

def take(sock, n):
    "Exactly n bytes, or as many as there are: (how many, their sum)."
    got = b""
    while len(got) < n:
        part = when(sock, "r", lambda: sock.recv(n - len(got)))
        if not part:
            break
        got += part
    return len(got), hashlib.md5(got).hexdigest()

def to_end(sock):
    return take(sock, 1 << 30)

def give(sock, data):
    while data:
        data = data[when(sock, "w", lambda: sock.send(data)):]

def stuff(sock, byte):
    "As much as goes: how much."
    sock.setblocking(False)
    n = 0
    try:
        while True:
            n += sock.send(byte * 65536)
    except BlockingIOError:
        return n

def serve(backlog=5):
    global l
    l = prepare(socket(AF_INET, SOCK_STREAM))
    l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    l.bind((listens, port))
    l.listen(backlog)
    return l.getsockname() == (listens, port)

def get():
    s, peer = when(l, "r", l.accept)
    assert peer == s.getpeername() and s.getsockname() == (address, port), (peer, s.getsockname())
    return prepare(s)

def call():
    s = socket(AF_INET, SOCK_STREAM)
    s.connect((address, port))
    assert s.getpeername() == (address, port)
    return prepare(s)

def later():
    s = socket(AF_INET, SOCK_STREAM)
    s.setblocking(False)
    e = s.connect_ex((address, port))
    assert e in (0, errno.EINPROGRESS), e
    return s

def settled(s):
    p = select.poll()
    p.register(s, select.POLLOUT)
    p.poll()
    return errno.errorcode.get(s.getsockopt(SOL_SOCKET, SO_ERROR), 0)

def reset(sock):
    sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

def ready(sock, *events):
    "What poll says at once, of these."
    p = select.poll()
    p.register(sock, sum(events))
    return [bit for _, bits in p.poll(0) for bit in (1, 4, 8, 16, 0x2000) if bits & bit]

def soon(sock, event):
    p = select.poll()
    p.register(sock, event)
    return bool(p.poll(20000))

def run(line):
    try:
        return eval(line, globals())
    except SyntaxError:
        exec(line, globals())
        return None

for line in sys.stdin:
    try:
        result = run(line)
    except OSError as error:
        result = errno.errorcode.get(error.errno, error)
    except Exception as error:
        result = repr(error)
    print(repr(result) if not isinstance(result, socket) else "socket", flush=True)
"""

STREAM = ["s serve()", "c k = call()", "s k = get()"]
WORKS = ["c give(k, b'ping' * 1000)", "s take(k, 4000)", "s give(k, b'pong' * 1000)", "c take(k, 4000)"]
CLOSE = ["c k.close()", "s to_end(k)", "s k.close()", "s l.close()"]

STATES = {
    "idle": STREAM + ["MOVE"] + WORKS + CLOSE,
    "a listener, nobody waits": ["s serve()", "MOVE", "c k = call()", "s k = get()"] + WORKS + CLOSE,
    "a listener, five wait": ["s serve()", "c ks = [call() for i in range(5)]", "c [s.send(b'%d' % i) for i, s in enumerate(ks)]",
                              "s soon(l, 1)", "MOVE", "s ks = [get() for i in range(5)]",
                              "s sorted(s.recv(1) for s in map(prepare, ks) if soon(s, 1))", "c [s.close() for s in ks]",
                              "s [s.close() for s in ks]", "s l.close()"],
    "a listener, full": ["s serve(1)", "c ks = [later() for i in range(3)]", "s soon(l, 1)", "MOVE",
                         "s ks = [get() for i in range(3)]", "c [settled(s) for s in ks]", "c [s.send(b'x') for s in ks]",
                         "s [take(prepare(s), 1) for s in ks]", "c [s.close() for s in ks]", "s [s.close() for s in ks]",
                         "s l.close()"],
    "nobody listens": ["MOVE", "c call()", "c s = later()", "c settled(s)", "c s.close()"],
    "unread bytes": STREAM + ["c give(k, b'abc' * 30000)", "s soon(k, 1)", "MOVE", "s take(k, 90000)"] + WORKS + CLOSE,
    "unread bytes at both ends": STREAM + ["c give(k, b'abc' * 9000)", "s give(k, b'xyz' * 9000)", "s soon(k, 1)", "c soon(k, 1)",
                                           "MOVE", "s take(k, 27000)", "c take(k, 27000)"] + WORKS + CLOSE,
    "a part was peeked at": STREAM + ["c give(k, b'abcdef')", "s soon(k, 1)", "s k.recv(3)", "s k.recv(2, MSG_PEEK)", "MOVE",
                                      "s k.recv(2, MSG_PEEK)", "s k.recv(3)"] + WORKS + CLOSE,
    "full both ways": STREAM + ["c n = stuff(k, b'a')", "s n = stuff(k, b'b')", "s soon(k, 1)", "c soon(k, 1)", "MOVE",
                                "c k.shutdown(SHUT_WR)", "s k.shutdown(SHUT_WR)", "s t = to_end(k)", "c t = to_end(k)", "c k.close()", "s k.close()", "s l.close()"],
    "half closed by the client": STREAM + ["c give(k, b'last')", "c k.shutdown(SHUT_WR)", "s soon(k, 1)", "MOVE", "s to_end(k)",
                                           "s give(k, b'reply' * 100)", "c take(k, 500)", "s k.close()", "c to_end(k)",
                                           "c k.close()", "s l.close()"],
    "half closed by the server": STREAM + ["s give(k, b'last')", "s k.shutdown(SHUT_WR)", "c soon(k, 1)", "MOVE", "c to_end(k)",
                                           "c give(k, b'reply' * 100)", "s take(k, 500)", "c k.close()", "s to_end(k)",
                                           "s k.close()", "s l.close()"],
    "the end was read": STREAM + ["c k.shutdown(SHUT_WR)", "s to_end(k)", "MOVE", "s to_end(k)", "s give(k, b'more')",
                                  "c take(k, 4)", "s k.close()", "c to_end(k)", "c k.close()", "s l.close()"],
    "closed by the peer, unread": STREAM + ["c give(k, b'final' * 1000)", "c k.close()", "s soon(k, 0x2000)", "MOVE", "s to_end(k)",
                                            "s k.close()", "s l.close()"],
    "closed with bytes unread": STREAM + ["s give(k, b'unread')", "c soon(k, 1)", "c k.close()", "s soon(k, 16 | 8)", "MOVE",
                                          "s k.recv(1)", "s k.recv(1)", "s k.close()", "s l.close()"],
    "reset by the client": STREAM + ["c reset(k)", "s soon(k, 8)", "MOVE", "s k.recv(1)", "s k.recv(1)", "s k.close()", "s l.close()"],
    "reset, the error was read": STREAM + ["c reset(k)", "s soon(k, 8)", "s errno.errorcode[k.getsockopt(SOL_SOCKET, SO_ERROR)]",
                                           "MOVE", "s k.getsockopt(SOL_SOCKET, SO_ERROR)", "s k.recv(1)", "s k.close()", "s l.close()"],
    "duplicated": STREAM + ["s d = k.dup()", "s os.dup2(k.fileno(), 77)", "MOVE", "c give(k, b'abcdef')", "s d.setblocking(True)",
                            "s d.recv(2, MSG_WAITALL)", "s os.read(77, 2)", "s k.recv(2)", "s k.close()", "s d.close()",
                            "c ready(k, 1)", "s os.write(77, b'x')", "c take(k, 1)", "s os.close(77)", "c to_end(k)", "c k.close()",
                            "s l.close()"],
    "options": STREAM + ["s k.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)", "s k.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)",
                         "s k.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 77)", "s k.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack('ll', 0, 50000))",
                         "MOVE", "s [k.getsockopt(*o) for o in ((IPPROTO_TCP, TCP_NODELAY), (SOL_SOCKET, SO_KEEPALIVE), (IPPROTO_TCP, "
                         "TCP_KEEPIDLE), (SOL_SOCKET, SO_TYPE), (SOL_SOCKET, SO_ACCEPTCONN), (SOL_SOCKET, SO_ERROR), (SOL_SOCKET, SO_DOMAIN))]",
                         "s l.getsockopt(SOL_SOCKET, SO_ACCEPTCONN)", "s k.getsockopt(SOL_SOCKET, SO_RCVTIMEO, 16)",
                         "s k.setsockopt(IPPROTO_TCP, 9999, 1)", "s k.setblocking(True)", "s k.recv(1)", "s os.get_inheritable(k.fileno())",
                         "s prepare(k)"] + WORKS + CLOSE,
    "not connected yet": ["s serve()", "c k = socket()", "c k.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)", "MOVE",
                          "c k.getsockopt(IPPROTO_TCP, TCP_NODELAY)", "c k.getpeername()", "c k.connect((address, port))", "c prepare(k)",
                          "s k = get()"] + WORKS + CLOSE,
    "sendfile": STREAM + ["c f = open('/usr/bin/env', 'rb')", "c n = os.path.getsize(f.fileno())",
                          "s t = threading.Thread(target=lambda: globals().update(got=to_end(k)))", "s t.start()", "MOVE", "c k.setblocking(True)",
                          "c sum(iter(lambda: os.sendfile(k.fileno(), f.fileno(), None, 5000), 0)) == n", "c k.close()", "s t.join()",
                          "s got", "s k.close()", "s l.close()"],
    "bound again as soon as closed": ["s [(serve(), l.close())[0] for i in range(50)]", "s u = socket()", "s u.bind((listens, port))", "s u.close()",
                                      "MOVE", "s u = socket()", "s u.bind((listens, port))", "s u.close()",
                                      "s [(serve(), l.close())[0] for i in range(50)]"] + STREAM + WORKS + CLOSE,
    "both ends its own": ["s serve()", "s o = call()", "s k = get()", "s give(o, b'ab' * 1000)", "s soon(k, 1)", "MOVE", "s take(k, 2000)",
                          "s give(k, b'cd' * 1000)", "s take(o, 2000)", "s o.close()", "s to_end(k)", "s k.close()", "s o = call()", "s k = get()",
                          "s give(k, b'x')", "s take(o, 1)", "s o.close()", "s k.close()", "s l.close()"],
    "a child has it too": STREAM + ["s pid = os.fork() or (k.setblocking(True), k.send(b'from the child'), os._exit(7))",
                                    "s os.waitpid(pid, 0)[1]", "MOVE", "c take(k, 14)"] + WORKS + CLOSE,
}

# What is left out: connects in progress other than to a full listener; urgent bytes, which are refused.
WAYS = ["block", "poll", "select", "epoll", "edge"]


class End:
    def __init__(self, argv, start):
        self.process = start([sys.executable, "-c", PROGRAM, *argv])

    def run(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], launch.LIMIT_S)[0]:
            raise TimeoutError(line)
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        return self.process.wait(launch.LIMIT_S)


class Movers:
    """The two members, and where they are."""

    def __init__(self, job):
        self.job, self.at, self.failed = job, {0: HOSTS[0], 1: HOSTS[1]}, []

    def move(self, ranks, via):
        running = []
        for rank in ranks:
            self.at[rank] = random.choice([host for host in HOSTS if host != self.at[rank]])
            running.append(subprocess.Popen([launch.program("msrank-move"), "--via", via, str(rank), self.at[rank]], env=self.job.env,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for process in running:
            out, _ = process.communicate(timeout=launch.LIMIT_S)
            if process.returncode:
                self.failed.append(out)


def play(cell, ends, move):
    said = []
    for line in cell:
        if line == "MOVE":
            move()
        else:
            said.append((line, ends[line[0]].run(line[2:])))
    return said


def pipes(job=None, rank=0):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    if job is None:
        return lambda words: subprocess.Popen(words, **streams)
    return lambda words: job.stub(rank, words, HOSTS[rank], env=JOIN, **streams)


def test():
    job = launch.Launch(HOSTS)
    movers = Movers(job)
    alone = f"127.{100 + os.getpid() // 65536 % 100}.{os.getpid() // 256 % 256}.{os.getpid() % 256}" # others may run this too
    plain = {way: {"s": End([way, alone, alone], pipes()), "c": End([way, alone, alone], pipes())} for way in WAYS}
    moving = {"s": End(["block", "100.64.0.1", "0.0.0.0"], pipes(job, 0))}
    moving["s"].run("1")
    moving["c"] = End(["block", "100.64.0.1", "0.0.0.0"], pipes(job, 1))
    moving["c"].run("1")
    chosen = [(state, who, via) for state in STATES for who in ((0,), (1,), (0, 1)) for via in ("drain", "mirror")]
    chosen = [(*cell, way) for cell in chosen for way in (WAYS if tap.number("LONG", 0) else [random.choice(WAYS)])]
    only = os.environ.get("MSOCK_TEST_CELL")
    for state, who, via, way in chosen:
        name = f"{state}; {' and '.join('server client'.split()[i] for i in who)} by {via}; {way}"
        if only and only not in name:
            continue
        if len(who) == 2 and via == "drain":
            via = "auto"
        if not tap.number("LONG", 0) and state != "idle" and random.randrange(4):
            continue
        for end in moving.values():
            end.run(f"way = {way!r}")
        want = play(STATES[state], plain[way], lambda: None)
        got = play(STATES[state], moving, lambda who=who, via=via: movers.move(who, via))
        tap.equal(got, want, name)
    tap.equal(movers.failed, [], "every move was made")
    tap.equal([end.close() for end in (*moving.values(), *(e for w in WAYS for e in plain[w].values()))], [0] * 12, "all end well")
    tap.equal(job.end(), 0, "the job ends")
    job.close()


tap.main(test)
launch.kill_children()
