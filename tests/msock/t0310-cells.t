#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
States of a TCP stream, times who moves, times how, times how the ends wait: two programs (actor.py) do the same as over
plain sockets without msock, and must see the same: bytes, their order, errno, end of file, readiness and signals.

A cell is a list of lines for the server (s) and the client (c).  At MOVE there is a move, or two at once.  "s? EXPR" says
what must be true, or else the cell has not come to its state.  "= s EXPR == c EXPR" compares what the two say; what each
of them says is free then.
"""
import concurrent.futures
import os
import select
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
JOIN = {"MSOCK_JOIN": "sockets", "MSOCK_CHECK": "1"}
ACTOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "actor.py")
PORT = 7700 # of the virtual addresses
LONG = tap.number("LONG", 0)
random = tap.seed()

WAYS = ["block", "threads", "poll", "select", "epoll", "edge"]
MOVERS = [(0,), (1,), (0, 1)]
VIAS = ["drain", "mirror"]

STREAM = ["s serve()", "c k = call()", "s k = get()"]
WORKS = ["c give(k, b'ping' * 1000)", "s take(k, 4000)", "s give(k, b'pong' * 1000)", "c take(k, 4000)"]
CLOSE = ["c k.close()", "s to_end(k)", "s k.close()", "s l.close()"]


def listener_empty(way):
    """Somebody waits in accept for the first one; by threads two of them."""
    names = ["a", "b"] if way == "threads" else ["a"]
    lines = ["s serve()"] + [f"s bg('{name}', 'get()')" for name in names] + [f"s? parked('{name}')" for name in names] + ["MOVE"]
    lines += [f"s? running('{name}')" for name in names] + [f"c {name} = call()" for name in names]
    lines += [f"c give({name}, b'12')" for name in names] + [f"s {name} = result('{name}')" for name in names]
    lines += [f"s take({name}, 2)" for name in names] + [f"s {name}.close()" for name in names]
    return lines + [f"c to_end({name})" for name in names] + ["s k = l.close()"]


LISTENER_FIVE = ["s serve()", "c ks = [call() for i in range(5)]", "c [s.send(b'%d' % i) for i, s in enumerate(ks)]", "s? soon(l, IN)", "MOVE",
                 "s ks = [get() for i in range(5)]", "s [soon(s, IN) and s.recv(1) for s in ks]", "s ready(l, IN)",
                 "s bg('a', 'get()')", "s? parked('a')", "c k = call()", "s k = result('a')"] + WORKS

LISTENER_FULL = ["s serve(1)", "c ks = [later() for i in range(3)]", "c? soon(ks[0], OUT) and soon(ks[1], OUT)", "s? soon(l, IN)",
                 "c? not soon(ks[2], OUT, 0.05)", "MOVE", "s ks = [get() for i in range(3)]", "c [settled(s) for s in ks]",
                 "c [s.send(b'%d' % i) for i, s in enumerate(ks)]", "s [soon(s, IN) and s.recv(1) for s in ks]"]


def connecting(way):
    """The client waits for a place in a full queue; by threads another one waits for its descriptor."""
    lines = ["s serve(1)", "c ks = [later() for i in range(2)]", "c? soon(ks[0], OUT) and soon(ks[1], OUT)", "c bg('a', 'call()')",
             "c? parked('a')", "MOVE", "c? running('a')", "s ks = [get() for i in range(2)]", "c k = result('a')", "s k = get()"]
    return lines + WORKS + CLOSE


def idle(way):
    """Both ends wait for something to read."""
    lines = STREAM + ["s bg('r', 'take(k, 4000)')", "c bg('r', 'take(k, 4000)')", "s? parked('r')", "c? parked('r')", "MOVE", "s? running('r')",
                      "c? running('r')", "c ready(k)", "s ready(k)", "c give(k, b'ping' * 1000)", "s result('r')", "s give(k, b'pong' * 1000)"]
    return lines + ["c result('r')"] + WORKS + CLOSE


FULL = STREAM + ["c? stuff(k, b'a')", "s? stuff(k, b'b')", "s? ready(k, IN | OUT) == [IN]", "c? ready(k, IN | OUT) == [IN]",
                 "c bg('w', \"give(k, b'c' * (8 << 20))\")", "s bg('w', \"give(k, b'd' * (8 << 20))\")", "c? parked('w')", "s? parked('w')", "MOVE",
                 "c bg('r', 'to_end(k)')", "s bg('r', 'to_end(k)')", "c result('w')", "s result('w')",
                 "c k.shutdown(SHUT_WR)", "s k.shutdown(SHUT_WR)", "= s result('r') == c gave(k)", "= c result('r') == s gave(k)",
                 "c k.close()", "s k.close()", "s l.close()"]


def half_closed(here, there):
    """One end writes no more; the other goes on, and the first waits for what it says."""
    return STREAM + [f"{here} give(k, b'last')", f"{here} k.shutdown(SHUT_WR)", f"{there} take(k, 4)", f"{there}? to_end(k)[0] == 0",
                     f"{here} bg('r', 'take(k, 500)')", f"{here}? parked('r')", "MOVE", f"{here}? running('r')", f"{there} ready(k)",
                     f"{here} ready(k)", f"{there} to_end(k)", f"{there} give(k, b'reply' * 100)", f"{here} result('r')",
                     f"{here} fails(k)", f"{there} k.close()", f"{here} to_end(k)", f"{here} k.close()", "s l.close()"]


CLOSED_UNREAD = STREAM + ["c give(k, b'final' * 1000)", "c k.close()", "s? soon(k, RDHUP)", "s? waiting(k) == 5000", "s ready(k)", "MOVE", "s ready(k)",
                          "s waiting(k)", "s to_end(k)", "s ready(k)", "s fails(k)", "s k.close()", "s l.close()"]
CLOSED_DEAF = STREAM + ["s give(k, b'unread')", "c? soon(k, IN)", "c k.close()", "s? soon(k, HUP | ERR)", "MOVE", "s ready(k)", "s k.recv(1)",
                        "s k.recv(1)", "s fails(k)", "s k.close()", "s l.close()"]
RESET = STREAM + ["c reset(k)", "s? soon(k, ERR)", "MOVE", "s ready(k)", "s k.recv(1)", "s k.recv(1)", "s fails(k)", "s k.close()", "s l.close()"]
URGENT = STREAM + ["s fcntl.fcntl(k, fcntl.F_SETOWN, os.getpid())", "c give(k, b'abc')", "c k.send(b'!', MSG_OOB)", "c give(k, b'def')",
                   "s? soon(k, PRI)", "s? until(lambda: 'SIGURG' in caught)", "s signals()", "s? until(lambda: waiting(k) >= 3)", "MOVE",
                   "s ready(k)", "s at_mark(k)", "s when(k, 'u', lambda: k.recv(1, MSG_OOB))", "s k.recv(10)", "s at_mark(k)", "s k.recv(1, MSG_OOB)",
                   "s take(k, 3)", "s bg('u', \"when(k, 'u', lambda: k.recv(1, MSG_OOB))\")", "c k.send(b'?', MSG_OOB)", "s result('u')",
                   "s until(lambda: 'SIGURG' in caught)"] + WORKS + CLOSE
URGENT_INLINE = STREAM + ["s k.setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)", "c give(k, b'abc')", "c k.send(b'!', MSG_OOB)", "c give(k, b'def')",
                          "s? soon(k, PRI)", "s? until(lambda: waiting(k) == 3 or waiting(k) == 7)", "MOVE", "s at_mark(k)", "s k.recv(10)",
                          "s at_mark(k)", "s take(k, 4)", "s at_mark(k)"] + WORKS + CLOSE

# The matrix: each by all ways.
STATES = {
    "listener with nobody": listener_empty,
    "listener with five": lambda way: LISTENER_FIVE,
    "listener, full": lambda way: LISTENER_FULL,
    "connect in progress": connecting,
    "idle": idle,
    "full both ways": lambda way: FULL,
    "half closed by the server": lambda way: half_closed("s", "c"),
    "half closed by the client": lambda way: half_closed("c", "s"),
    "closed by the peer, unread": lambda way: CLOSED_UNREAD,
    "closed without having read": lambda way: CLOSED_DEAF,
    "reset": lambda way: RESET,
    "urgent byte": lambda way: URGENT,
    "urgent byte inline": lambda way: URGENT_INLINE,
}

# Cells that make no sense: (state, movers) and why.
SENSELESS = {
    ("listener with nobody", (1,)): "the client has no socket yet",
}

# A byte that becomes urgent while a mirror reads the leg comes in order, not urgent (lib/sock_urgent.c).
NOT_URGENT = {("urgent bytes all the time", "mirror")}

# Beyond the matrix: by one way each.
OTHERS = {
    "nobody listens": ["MOVE", "c call()", "c s = later()", "c settled(s)", "c s.close()"],
    "unread bytes": STREAM + ["c give(k, b'abc' * 30000)", "s soon(k, 1)", "MOVE", "s take(k, 90000)"] + WORKS + CLOSE,
    "unread bytes at both ends": STREAM + ["c give(k, b'abc' * 9000)", "s give(k, b'xyz' * 9000)", "s soon(k, 1)", "c soon(k, 1)",
                                           "MOVE", "s take(k, 27000)", "c take(k, 27000)"] + WORKS + CLOSE,
    "closed unread after it": STREAM + ["s give(k, b'abc' * 9000)", "c? soon(k, IN)", "c? until(lambda: waiting(k) == 27000)", "MOVE", "c give(k, b'last')",
                               "c k.close()", "s? soon(k, ERR)", "s take(k, 4)", "s misses(k)", "s fails(k)", "s k.close()", "s l.close()"],
    "closed unread after it, full both ways": STREAM + ["c? stuff(k, b'a')", "s? stuff(k, b'b')", "MOVE", "c k.close()", "s misses(k)", "s fails(k)",
                                                        "s k.close()", "s l.close()"],
    # It writes more than the 64 MiB that a mirror reads ahead of the program.
    "closed unread after it, and somebody writes": STREAM + ["c? stuff(k, b'a')", "s? stuff(k, b'b')", "s bg('w', \"give(k, b'd' * (160 << 20))\")",
                                                             "s? parked('w')", "MOVE", "c k.close()", "s? result('w') in ('EPIPE', 'ECONNRESET')",
                                                             "s? outcome('misses(k)') != 0", "s fails(k)", "s k.close()", "s l.close()"],
    "a part was peeked at": STREAM + ["c k.send(b'abcdef')", "s soon(k, 1)", "s k.recv(3)", "s k.recv(2, MSG_PEEK)", "MOVE",
                                      "s k.recv(2, MSG_PEEK)", "s k.recv(3)"] + WORKS + CLOSE,
    "the end was read": STREAM + ["c k.shutdown(SHUT_WR)", "s to_end(k)", "MOVE", "s to_end(k)", "s give(k, b'more')",
                                  "c take(k, 4)", "s k.close()", "c to_end(k)", "c k.close()", "s l.close()"],
    "reset, the error was read": STREAM + ["c reset(k)", "s soon(k, 8)", "s errno.errorcode[k.getsockopt(SOL_SOCKET, SO_ERROR)]",
                                           "MOVE", "s k.getsockopt(SOL_SOCKET, SO_ERROR)", "s k.recv(1)", "s k.close()", "s l.close()"],
    "urgent bytes all the time": STREAM + ["s tell(k)", "s bg('s', 'urged(k)')", "c bg('c', 'urge(k)')", "s? until(lambda: urgent > 9)",
                                          "MOVE", "s until(lambda n=urgent: urgent > n + 50)", "s stop = True", "s result('s')",
                                          "c stop = True", "s give(k, b'.')", "c result('c')"] + CLOSE,
    "urgent byte behind what is not read": STREAM + ["c k.send(b'abc')", "s? soon(k, IN)", "MOVE", "c k.send(b'!', MSG_OOB)",
                                                     "s when(k, 'u', lambda: k.recv(1, MSG_OOB))", "s k.recv(10)"] + WORKS + CLOSE,
    "urgent byte read ahead of the rest": STREAM + ["c give(k, b'abc')", "c k.send(b'!', MSG_OOB)", "c give(k, b'def')", "s? soon(k, PRI)",
                                                    "s? until(lambda: waiting(k) >= 3)", "MOVE",
                                                    "s when(k, 'u', lambda: k.recv(1, MSG_OOB))", "s take(k, 3)", "MOVE",
                                                    "s take(k, 3)"] + WORKS + CLOSE,
    "duplicated": STREAM + ["s d = k.dup()", "s os.dup2(k.fileno(), 77)", "MOVE", "c k.send(b'abcdef')", "s d.setblocking(True)",
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
    "not connected yet": ["s serve()", "c k = socket.socket()", "c k.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)", "MOVE",
                          "c k.getsockopt(IPPROTO_TCP, TCP_NODELAY)", "c k.getpeername()", "c k.connect((address, port))", "c prepare(k)",
                          "s k = get()"] + WORKS + CLOSE,
    "sendfile": STREAM + ["c f = open('/usr/bin/env', 'rb')", "c n = os.path.getsize(f.fileno())",
                          "s t = threading.Thread(target=lambda: globals().update(got=to_end(k)))", "s t.start()", "MOVE", "c k.setblocking(True)",
                          "c sum(iter(lambda: os.sendfile(k.fileno(), f.fileno(), None, 5000), 0)) == n", "c k.close()", "s t.join()",
                          "s got", "s k.close()", "s l.close()"],
    "watched before it listens and connects": [
        "s l = socket.socket()", "s w = select.epoll()", "s w.register(l, IN)", "s l.bind((listens, port))", "s l.listen(5)", "s w.poll(0)",
        "c k = socket.socket()", "c w = select.epoll()", "c w.register(k, OUT | select.EPOLLET)", "c w.poll(1)[0][1]", "c k.setblocking(False)",
        "c k.connect_ex((address, port)) in (0, errno.EINPROGRESS)", "c w.poll(20)[0][1]", "s w.poll(20)[0][1]", "MOVE", "s w.poll(20)[0][1]",
        "s k = l.accept()[0]", "s prepare(k)", "c prepare(k)", "s w.poll(0)"] + WORKS + CLOSE,
    "bound again as soon as closed": ["s [(serve(), l.close())[0] for i in range(50)]", "s u = socket.socket()", "s u.bind((listens, port))", "s u.close()",
                                      "MOVE", "s u = socket.socket()", "s u.bind((listens, port))", "s u.close()",
                                      "s [(serve(), l.close())[0] for i in range(50)]"] + STREAM + WORKS + CLOSE,
    "both ends its own": ["s serve()", "s o = call()", "s k = get()", "s give(o, b'ab' * 1000)", "s soon(k, 1)", "MOVE", "s take(k, 2000)",
                          "s give(k, b'cd' * 1000)", "s take(o, 2000)", "s o.close()", "s to_end(k)", "s k.close()", "s o = call()", "s k = get()",
                          "s give(k, b'x')", "s take(o, 1)", "s o.close()", "s k.close()", "s l.close()"],
    "shut for reading": STREAM + ["s k.shutdown(SHUT_RD)", "s? soon(k, RDHUP)", "MOVE", "s ready(k)", "s to_end(k)", "s give(k, b'more')", "c take(k, 4)",
                                  "MOVE", "s ready(k)", "s to_end(k)", "s give(k, b'last')", "s k.close()", "c take(k, 4)", "c to_end(k)", "c k.close()",
                                  "s l.close()"],
    "shut for reading, with bytes": STREAM + ["c give(k, b'early')", "s? soon(k, IN)", "s k.shutdown(SHUT_RD)", "MOVE", "s ready(k)", "s take(k, 5)",
                                              "s to_end(k)", "c give(k, b'late')", "s until(lambda: waiting(k) == 4)", "s take(k, 4)", "s to_end(k)",
                                              "MOVE", "s ready(k)", "s to_end(k)", "s give(k, b'last')", "s k.close()", "c take(k, 4)", "c to_end(k)",
                                              "c k.close()", "s l.close()"],
    "shut for reading, and the peer writes": STREAM + ["s k.shutdown(SHUT_RD)", "c bg('w', '[(time.sleep(0.001), k.send(b\"late\")) for i in range(2000)]')",
                                                       "s? soon(k, RDHUP)", "MOVE", "s time.sleep(0.1)", "MOVE", "c? len(result('w')) == 2000",
                                                       "s give(k, b'last')", "c take(k, 4)", "c k.close()", "s ready(k, OUT)", "s k.close()", "s l.close()"],
    "closed with bytes unsent": STREAM + ["c? stuff(k, b'a')", "c k.close()", "MOVE", "s? to_end(k)[0] > 65536", "s fails(k)", "s k.close()", "s l.close()"],
    "a child has it too": STREAM + ["s pid = os.fork() or (k.setblocking(True), k.send(b'from the child'), os._exit(7))",
                                    "s os.waitpid(pid, 0)[1]", "MOVE", "c take(k, 14)"] + WORKS + CLOSE,
}



class End:
    """An actor."""

    def __init__(self, process):
        self.process, self.lost = process, False

    def run(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return "gone"
        if not select.select([self.process.stdout], [], [], launch.LIMIT_S)[0]:
            self.lost = True
            return "no answer"
        return self.process.stdout.readline().strip() or "gone"

    def close(self):
        if self.lost:
            self.process.terminate()
        self.process.stdin.close()
        try:
            return self.process.wait(launch.LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "does not end"


STREAMS = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


def free_port(address):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


class Plain:
    """Two actors without msock, at an address that is this test's alone."""

    def __init__(self, way):
        pid = os.getpid()
        here = f"127.{100 + pid // 65536 % 100}.{pid // 256 % 256}.{pid % 256}"
        words = [sys.executable, ACTOR, way, here, here, str(free_port(here))]
        self.ends = {name: End(subprocess.Popen(words, **STREAMS)) for name in "sc"}

    def move(self, ranks, via):
        pass


class Moving:
    """Two actors that are members of the job."""
    count, lock = 0, threading.Lock()

    def __init__(self, job, way):
        with Moving.lock:
            self.ranks = (2 * Moving.count, 2 * Moving.count + 1)
            Moving.count += 1
        self.job, self.said = job, []
        self.at = dict(zip(self.ranks, random.sample(HOSTS, 2)))
        words = [sys.executable, ACTOR, way, "", "0.0.0.0", str(PORT)]
        self.ends = {name: End(job.stub(rank, words, self.at[rank], env=JOIN, **STREAMS)) for name, rank in zip("sc", self.ranks)}
        address = self.ends["s"].run("os.environ['MSOCK_ADDRESS']")
        for end in self.ends.values():
            end.run(f"address = {address}")

    def move(self, who, via):
        running = []
        for rank in (self.ranks[i] for i in who):
            self.at[rank] = random.choice([host for host in HOSTS if host != self.at[rank]])
            words = [launch.program("msrank-move"), "--via", via, str(rank), self.at[rank]]
            running.append(subprocess.Popen(words, env=self.job.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for process in running:
            out, _ = process.communicate(timeout=2 * launch.LIMIT_S)
            if process.returncode:
                self.said.append(out)


def compare(line, ends):
    """A line "= s EXPR == c EXPR"."""
    left, right = (part.strip() for part in line[1:].split("==", 1))
    values = [ends[part[0]].run(part[2:]) for part in (left, right)]
    return "the same" if values[0] == values[1] else f"{values[0]} and {values[1]}"


def play(lines, pair, who=(), via=""):
    """(what was said, why the state was not reached or None)"""
    said = []
    for line in lines + ["s signals()", "c signals()"]:
        if line == "MOVE":
            pair.move(who, via)
            continue
        if line[0] == "=":
            said.append((line, compare(line, pair.ends)))
            continue
        end, rest = line[0], line[1:]
        value = pair.ends[end].run(rest.removeprefix("?").strip())
        if rest[0] == "?" and value != "True":
            return said, f"{line}: {value}"
        said.append((line, value))
        if value in ("gone", "no answer"):
            return said, f"{line}: {value}"
    return said, None


def differences(got, want):
    return [f"{line}: {value}, without a move {should}" for (line, value), (_, should) in zip(got, want) if value != should]


class Matrix:
    def __init__(self, job):
        self.job, self.wanted, self.lock = job, {}, threading.Lock()
        self.no_urgent = self.refuses_urgent()

    def refuses_urgent(self):
        """Why urgent bytes are not tested, or None."""
        pair = Moving(self.job, "block")
        said, _ = play(STREAM + ["c k.send(b'!', MSG_OOB)"], pair)
        for end in pair.ends.values():
            end.close()
        return "MSG_OOB is refused" if said[-3][1] == "'EOPNOTSUPP'" else None

    def want(self, lines, way):
        """What is seen without a move; asked once."""
        key = (tuple(lines), way)
        with self.lock:
            future = self.wanted.get(key)
            mine = future is None
            if mine:
                future = self.wanted[key] = concurrent.futures.Future()
        if mine:
            pair = Plain(way)
            future.set_result(play(lines, pair))
            for end in pair.ends.values():
                end.close()
        return future.result()

    def cell(self, lines, who, via, way):
        """What is wrong, line by line."""
        want, why = self.want(lines, way)
        if why:
            return [f"without a move: {why}"]
        pair = Moving(self.job, way)
        got, why = play(lines, pair, who, via)
        status = {name: end.close() for name, end in pair.ends.items()}
        wrong = pair.said + ([f"did not come to its state: {why}"] if why else []) + differences(got, want)
        return wrong + ([f"the ends' exit status: {status}"] if set(status.values()) != {0} else [])


def chosen():
    """(name, lines, who, via, way) of all cells, or of some of each state."""
    cells = []
    for state, lines in STATES.items():
        for who in MOVERS:
            if (state, who) in SENSELESS:
                tap.note(f"makes no sense: {state}, {named(who)} moves, by all ways: {SENSELESS[state, who]}")
                continue
            cells += [(state, lines(way), who, via, way) for via in VIAS for way in WAYS
                      if not (way == "threads" and state.startswith("urgent"))]
    tap.note("makes no sense: urgent bytes by threads: what two threads write has no order for the byte to have a place in")
    matrix = len(cells)
    cells += [(state, lines, who, via, random.choice(WAYS)) for state, lines in OTHERS.items() for who in MOVERS for via in VIAS
              if (state, via) not in NOT_URGENT]
    only = os.environ.get("MSOCK_TEST_CELL")
    if only:
        return [cell for cell in cells if only in title(*cell)]
    if LONG:
        return cells
    names = [*STATES, *OTHERS]
    some = random.sample(cells[:matrix], tap.number("CELLS", 30)) + random.sample(cells[matrix:], 10)
    return sorted(some, key=lambda cell: names.index(cell[0]))


def named(who):
    return " and ".join(("server", "client")[i] for i in who)


def title(state, lines, who, via, way):
    return f"{state}; {named(who)} by {via}; {way}"


def test():
    job = launch.Launch(HOSTS)
    matrix, cells, counts = Matrix(job), chosen(), {"run": 0, "passed": 0, "skipped": 0}
    with concurrent.futures.ThreadPoolExecutor(tap.number("JOBS", 2)) as pool:
        running = [(cell, None if "urgent" in cell[0] and matrix.no_urgent else pool.submit(matrix.cell, *cell[1:])) for cell in cells]
        for cell, future in running:
            if future is None:
                counts["skipped"] += 1
                tap.skip(title(*cell), matrix.no_urgent)
                continue
            wrong = future.result()
            counts["run"] += 1
            counts["passed"] += tap.ok(not wrong, title(*cell), "\n".join(wrong))
    tap.note(f"cells: {', '.join(f'{number} {word}' for word, number in counts.items())}")
    tap.equal(job.end(), 0, "the job ends")
    tap.equal(job.leftovers(), [], "nothing is left")
    job.close()


tap.main(test)
launch.kill_children()
