# SPDX-License-Identifier: MIT
"""
One end of a TCP stream, told by lines of Python what to do: actor.py WAY ADDRESS LISTENS PORT.

Each line is evaluated, and what came of it is answered by one line: its value, the name of an errno, or what went wrong.
WAY is how the end waits: block, poll, select, epoll, edge, or threads (blocking, two on one socket).  The server's address
is ADDRESS, what it binds to is LISTENS.  What waits while something else happens is started by bg() and asked by result().
"""
import errno
import fcntl
import hashlib
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time
from socket import (IPPROTO_TCP, MSG_OOB, MSG_PEEK, MSG_WAITALL, SHUT_RD, SHUT_RDWR, SHUT_WR, SO_ACCEPTCONN, SO_DOMAIN,  # noqa: F401
                    SO_ERROR, SO_KEEPALIVE, SO_LINGER, SO_OOBINLINE, SO_RCVTIMEO, SO_REUSEADDR, SO_TYPE, SOL_SOCKET, TCP_KEEPIDLE,
                    TCP_NODELAY)

IN, PRI, OUT, ERR, HUP, RDHUP = 1, 2, 4, 8, 16, 0x2000
LIMIT_S = 20
# What a thread that waits is in: poll, select, accept, connect, sendto, recvfrom, recvmsg, pselect6, ppoll, epoll_wait, its kin.
WAITING = {7, 23, 43, 42, 44, 45, 47, 270, 271, 232, 281, 288, 441}

way, address, listens, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
epolls = {}   # (number, event): a set that watches it, by edges or not
threads = {}  # name: what bg() started
caught = []   # names of signals
given = {}    # what was written to a socket: (bytes, sum of their values, md5)
l = k = None
urgent, stop = 0, False # urgent bytes that came; urge and urged come to an end


def note_signal(number, _):
    caught.append(signal.Signals(number).name)


for number in (signal.SIGPIPE, signal.SIGURG, signal.SIGIO):
    signal.signal(number, note_signal)


class Bytes:
    """Counted and summed; in order too, unless two threads share them."""

    def __init__(self):
        self.count, self.sum, self.md5, self.lock = 0, 0, hashlib.md5(), threading.Lock()

    def add(self, data):
        with self.lock:
            self.count += len(data)
            self.sum += sum(data)
            if way != "threads":
                self.md5.update(data)

    def value(self):
        return self.count, self.sum, self.md5.hexdigest()[:8]


def watch(sock, event):
    """An epoll set that watches it from now on."""
    bits = {"r": IN, "w": OUT, "u": PRI}[event]
    key = (sock.fileno(), event)
    if key in epolls:
        epolls.pop(key).close()
    epolls[key] = select.epoll()
    epolls[key].register(sock, bits | (select.EPOLLET if way == "edge" else 0))


def prepare(sock):
    sock.setblocking(way in ("block", "threads"))
    if way in ("epoll", "edge"):
        watch(sock, "r")
        watch(sock, "w")
        watch(sock, "u")
    return sock


def wait(sock, event):
    if way == "poll" or (event == "u" and way in ("block", "threads")):
        poller = select.poll()
        poller.register(sock, {"r": IN, "w": OUT, "u": PRI}[event])
        poller.poll()
    elif way == "select":
        select.select(*([sock] if event == kind else [] for kind in "rwu"))
    elif way in ("epoll", "edge"):
        epolls[sock.fileno(), event].poll()


def when(sock, event, call):
    """The call, as soon as it can be made. Who is told of edges tries first, the others wait first; all do for an urgent byte,
    since a call says EINVAL when there is none."""
    while True:
        if way != "edge" or event == "u":
            wait(sock, event)
        try:
            return call()
        except BlockingIOError:
            if way == "edge" and event != "u":
                wait(sock, event)


def both(function, sock, first, second):
    """In two threads, where that is the way."""
    other = threading.Thread(target=function, args=(sock, second))
    other.start()
    function(sock, first)
    other.join()


def take(sock, n):
    """Exactly n bytes, or as many as there are."""
    got = Bytes()

    def some(sock, n):
        while n and (part := when(sock, "r", lambda: sock.recv(min(n, 1 << 20)))):
            got.add(part)
            n -= len(part)

    if way == "threads" and n > 1:
        both(some, sock, n // 2, n - n // 2)
    else:
        some(sock, n)
    return got.value()


def to_end(sock):
    return take(sock, 1 << 30)


def note_given(sock, data):
    given.setdefault(sock, Bytes()).add(data)


def give(sock, data):
    def some(sock, data):
        while data:
            n = when(sock, "w", lambda: sock.send(data))
            note_given(sock, data[:n])
            data = data[n:]

    if way == "threads" and len(data) > 1:
        both(some, sock, data[::2], data[1::2])
    else:
        some(sock, data)
    return len(data)


def gave(sock):
    return given[sock].value()


def stuff(sock, byte):
    """As much as goes, also when the kernel has passed on what it can: none waits for room any more."""
    sock.setblocking(False)
    poller = select.poll()
    poller.register(sock, OUT)
    while poller.poll(100):
        try:
            while n := sock.send(byte * 65536):
                note_given(sock, byte * n)
        except BlockingIOError:
            pass
    sock.setblocking(way in ("block", "threads"))
    return gave(sock)[0] > 65536


def fails(sock):
    """What a write says at last."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        sock.send(b"x")
        time.sleep(0.002)
    return "no error"


def misses(sock):
    """What a read says at last, one thread's."""
    while when(sock, "r", lambda: sock.recv(1 << 20)):
        pass
    return "its end"


def serve(backlog=5):
    global l
    l = socket.socket()
    l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    l.bind((listens, port))
    l.listen(backlog)
    prepare(l)
    return l.getsockname() == (listens, port)


def get():
    s, peer = when(l, "r", l.accept)
    assert peer == s.getpeername() and s.getsockname() == (address, port), (peer, s.getsockname())
    return prepare(s)


def call():
    """Connected, by the way that is asked for."""
    s = socket.socket()
    s.setblocking(way in ("block", "threads"))
    error = s.connect_ex((address, port))
    prepare(s)
    if error == errno.EINPROGRESS:
        wait(s, "w")
        error = s.getsockopt(SOL_SOCKET, SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
    assert s.getpeername() == (address, port)
    return s


def later():
    s = socket.socket()
    s.setblocking(False)
    error = s.connect_ex((address, port))
    assert error in (0, errno.EINPROGRESS), error
    return s


def settled(s):
    poller = select.poll()
    poller.register(s, OUT)
    poller.poll()
    return errno.errorcode.get(s.getsockopt(SOL_SOCKET, SO_ERROR), 0)


def reset(sock):
    sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def ready(sock, events=IN | PRI | OUT | RDHUP):
    """What poll says at once, of these."""
    poller = select.poll()
    poller.register(sock, events)
    return [bit for _, bits in poller.poll(0) for bit in (IN, PRI, OUT, ERR, HUP, RDHUP) if bits & bit]


def soon(sock, event, limit_s=LIMIT_S):
    poller = select.poll()
    poller.register(sock, event)
    return bool(poller.poll(1000 * limit_s))


def waiting(sock):
    """Bytes that can be read, as FIONREAD has it."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"    "))[0]


def at_mark(sock):
    return struct.unpack("i", fcntl.ioctl(sock, 0x8905, b"    "))[0] # SIOCATMARK


def until(condition):
    end = time.monotonic() + LIMIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return bool(condition())


def urge(sock):
    """An urgent byte at a time, each when the one before has been answered, until stop is set."""
    while take(sock, 1)[0] and not stop:
        sock.send(b"!", MSG_OOB)
    return stop


def tell(sock):
    """Its owner, told by a byte in a pipe as well: a handler in Python waits until the main thread has something to do."""
    global told
    told, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)
    fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())


def urged(sock):
    """The other side of urge: has every urgent byte come with its signal?"""
    global urgent
    signalled = 0
    while not stop:
        give(sock, b".")
        when(sock, "u", lambda: sock.recv(1, MSG_OOB))
        if select.select([told], [], [], LIMIT_S)[0]:
            signalled += signal.SIGURG in os.read(told, 100)
        urgent += 1
    return signalled == urgent


def signals():
    """Those that have come since it was last asked."""
    names = sorted(set(caught))
    caught.clear()
    return names


def evaluate(line):
    try:
        return eval(line, globals())
    except SyntaxError:
        exec(line, globals())
        return None


def outcome(line):
    try:
        return evaluate(line)
    except OSError as error:
        return errno.errorcode.get(error.errno, error)
    except Exception as error: # noqa: the test reads it
        return repr(error)


def bg(name, line):
    """A thread of its own for it."""
    def run():
        threads[name].value = outcome(line)

    threads[name] = threading.Thread(target=run, daemon=True)
    threads[name].start()


def in_wait(thread):
    try:
        with open(f"/proc/self/task/{thread.native_id}/syscall", encoding="ascii") as file:
            word = file.read().split()[0]
    except OSError:
        return False
    return word.isdigit() and int(word) in WAITING


def parked(name):
    """It sits in a call that waits; True when it has done so for some time."""
    end, since = time.monotonic() + LIMIT_S, None
    while time.monotonic() < end and running(name):
        now = time.monotonic()
        since = (since or now) if in_wait(threads[name]) else None
        if since and now - since > 0.01:
            return True
        time.sleep(0.002)
    return False


def running(name):
    return threads[name].is_alive()


def result(name):
    threads[name].join(LIMIT_S)
    return "still at it" if running(name) else threads.pop(name).value


for line in sys.stdin:
    value = outcome(line)
    print("socket" if isinstance(value, socket.socket) else repr(value), flush=True)
