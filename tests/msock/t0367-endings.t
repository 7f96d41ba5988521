#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A peer's process ends while the reader moves: the reader takes all bytes, then what the kernel would have given it (doc/protocol.md, rule 29)."""
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from family import HOSTS, Actor, rows  # noqa: E402
from launch import tap  # noqa: E402

BYTES = 120000
IN_ORDER = ("s.close() or os._exit(0)", "s.shutdown(socket.SHUT_WR) or os._exit(0)", "os._exit(0)", "sys.exit(0)")
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
LIMIT_END_S = 10
TURNS = tap.number("TURNS", 1)


def state(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0]


def connections():
    with open("/proc/net/tcp", encoding="ascii") as file:
        return [line.split() for line in file][1:]


class Peer(Actor):
    """It connects to the reader and writes; nobody has read that yet."""
    count = 2

    def __init__(self, job, reader):
        super().__init__(job, Peer.count)
        Peer.count += 1
        self.pid = self.ask("os.getpid()")
        self.ask(f"s = socket.create_connection(('{reader.address}', 8000))")
        reader.ask("c = l.accept()[0]")
        self.ask(f"s.sendall(b'abc' * {BYTES // 3})")

    def leg(self):
        """Both real addresses of its connection; it is direct."""
        link = f"/proc/{self.pid}/fd/{self.ask('s.fileno()')}"
        if not tap.until(lambda: any(row[9] == os.readlink(link).strip("socket:[]") for row in connections()), launch.LIMIT_S):
            return None
        return next(row[1:3] for row in connections() if row[9] == os.readlink(link).strip("socket:[]"))


def gone(peer, reader, wanted, name):
    """The peer has been told to end."""
    peer.process.wait(launch.LIMIT_S)
    got = reader.ask(f"take(c, {BYTES}) == b'abc' * {BYTES // 3}"), reader.ask("c.recv(1)")
    tap.equal((got, peer.complaints()), ((True, wanted), ""), f"{name}: all bytes, then what there is to be said")
    reader.ask("c.close()")


def drained(job, reader, third):
    """The reader's drain waits for a third member, which is stopped; its peer is told, and ends."""
    for how in (*IN_ORDER, KILLED):
        peer, said = Peer(job, reader), []
        leg = peer.leg()
        os.kill(third, signal.SIGSTOP)
        mover = threading.Thread(target=lambda: said.append(reader.move("drain", 20)))
        mover.start()
        told = tap.until(lambda: not any(row[1:3] == leg and row[3] == "01" for row in connections()), launch.LIMIT_S)
        peer.say(how)
        peer.process.wait(launch.LIMIT_S)
        os.kill(third, signal.SIGCONT)
        mover.join()
        tap.ok(leg and told and said[0][0] == 0, f"a drain, {how}: its peer is told, and has ended when it moves", (leg, told, said))
        gone(peer, reader, "ECONNRESET" if how == KILLED else b"", f"a drain, {how}")


class Mirrored:
    """The reader moves by mirror while its peer, which is stopped, hears nothing of it. The move is over when the stream is."""

    def __init__(self, job, reader, name, what="0", unread=False):
        self.name, self.reader, self.said = name, reader, []
        self.peer = Peer(job, reader)
        self.peer.say(f"os.kill(os.getpid(), signal.SIGSTOP) or {what}")
        stopped = tap.until(lambda: state(self.peer.pid) == "T", launch.LIMIT_S)
        if unread:
            reader.ask("c.sendall(b'unread')")
        moves = rows(job)["0.0"]["moves"]
        self.mover = threading.Thread(target=lambda: self.said.append(reader.move("mirror", 20)))
        self.mover.start()
        moved = tap.until(lambda: rows(job)["0.0"]["moves"] > moves, launch.LIMIT_S)
        reader.ask("1") # it runs
        tap.equal((stopped, moved), (True, True), f"{name}: the reader has moved")

    def goes_on(self, signo, wanted):
        os.kill(self.peer.pid, signo)
        gone(self.peer, self.reader, wanted, self.name)
        self.mover.join()
        tap.equal(self.said[0][0], 0, f"{self.name}: the move is over")


def mirrored(job, reader):
    for how in IN_ORDER:
        Mirrored(job, reader, f"a mirror, {how}", how).goes_on(signal.SIGCONT, b"")
    Mirrored(job, reader, "a mirror, killed").goes_on(signal.SIGKILL, b"")
    Mirrored(job, reader, "a mirror, killed with bytes that it has not read", unread=True).goes_on(signal.SIGKILL, "ECONNRESET")


def unread(job, reader):
    """A peer ends with bytes unread that a move brought it, and its leg may be full: at once, and for the reader that is a reset."""
    for name, fill in (("unread", "s.send(b'last')"),
                       ("unread, and no room for what it writes", "s.settimeout(0.2) or s.sendall(b'last' * (16 << 20))")):
        peer = Peer(job, reader)
        reader.ask("c.sendall(b'unread' * 30000)")
        status, said = reader.move("drain", 20)
        filled = peer.ask(fill)
        peer.say("os._exit(0)")
        ended = tap.until(lambda: peer.process.poll() is not None, LIMIT_END_S)
        got = reader.ask(f"take(c, {BYTES}) == b'abc' * {BYTES // 3}"), reader.ask("take(c, 4)")
        error = reader.ask("len(take(c, 1 << 30))")
        tap.equal((status, said if status else "", ended, got, error, peer.complaints()), (0, "", True, (True, b"last"), "ECONNRESET", ""),
                  f"it ends, {name} ({filled}): a reset")
        reader.ask("c.close()")
        peer.process.kill()


def ranged(job, reader):
    """A peer closes all numbers of its stream in one call, and stays; the reader moves before it reads."""
    for name, what in (("both numbers", "os.dup2(s.fileno(), 60), os.closerange(s.detach(), 61)"),
                       ("both numbers, not its first", "os.dup2(s.fileno(), 60), os.dup2(60, 61), s.close(), os.closerange(60, 62)"),
                       ("one, then the other", "os.dup2(s.fileno(), 60), os.closerange(60, 61), s.close()")):
        peer = Peer(job, reader)
        peer.ask(what)
        status, said = reader.move("drain", 20)
        tap.equal((status, said if status else ""), (0, ""), f"closed by a range, {name}: the reader moves")
        peer.say("os._exit(0)")
        gone(peer, reader, b"", f"closed by a range, {name}")


def full(job, reader):
    """A peer closes one of two numbers while it has no descriptor left to look with."""
    peer = Peer(job, reader)
    for line in ("import resource", "d, more, limits = s.dup(), [], resource.getrlimit(resource.RLIMIT_NOFILE)",
                 "resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))"):
        peer.ask(line)
    tap.equal(peer.ask("while True: more.append(os.dup(0))"), "EMFILE", "a peer has no descriptor left")
    peer.ask("s.close()")
    peer.ask("resource.setrlimit(resource.RLIMIT_NOFILE, limits)")
    peer.ask("[os.close(n) for n in more]")
    peer.ask("d.sendall(b'more')")
    status, said = reader.move("drain", 20)
    tap.equal((status, said if status else ""), (0, ""), "it has closed one number of two: the reader moves")
    tap.equal((reader.ask(f"take(c, {BYTES}) == b'abc' * {BYTES // 3}"), reader.ask("take(c, 4)")), (True, b"more"), "and reads what it wrote")
    peer.say("d.close() or os._exit(0)")
    peer.process.wait(launch.LIMIT_S)
    tap.equal((reader.ask("c.recv(1)"), reader.ask("c.close()"), peer.complaints()), (b"", None, ""), "and its end")


def test():
    job = launch.Launch(HOSTS, secret=True)
    reader, third = Actor(job, 0), Actor(job, 1)
    reader.ask("l = socket.create_server(('', 8000))")
    third.ask(f"s = socket.create_connection(('{reader.address}', 8000))")
    reader.ask("held = l.accept()[0]")
    pid = third.ask("os.getpid()")
    for _ in range(TURNS):
        drained(job, reader, pid)
        mirrored(job, reader)
        unread(job, reader)
        ranged(job, reader)
        full(job, reader)
    tap.equal((reader.move()[0], reader.ask("held.sendall(b'abc')"), third.ask("take(s, 3)")), (0, None, b"abc"), "the third has seen nothing of it")
    status, said = reader.end()
    others = [line for line in said.splitlines() if "reset while being relinked" not in line] # which there was
    tap.equal((status, others, third.end()), (0, [], (0, "")), "both end well")
    tap.equal(job.end(), 0, "the job ends")
    tap.ok(not launch.children(), "nothing is left", launch.children())
    job.close()


tap.main(test)
launch.kill_children()
