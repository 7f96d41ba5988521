#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Programs that fork: who has a stream after it, children that accept, connect, listen and serve, and moves around them."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from family import HOSTS, VIAS, Actor, child_of, connect, echo, is_direct, moves, names, rows, shown  # noqa: E402
from launch import tap  # noqa: E402


# What precedes a close, without one: the kernel refuses flag 1.
TOLD = "__import__('ctypes').CDLL(None).dup3(0, c.fileno(), 1)"


def kid_of(server):
    """What asks the server's child k."""
    return lambda line: server.ask(f"tell('k', {line!r})")


def serving(job, server, client, name):
    """Accept, fork, the parent closes, the child serves."""
    connect(server, client)
    pid = server.ask("kid('k')")
    server.ask("c.close()")
    kid = kid_of(server)
    echo(client, kid, f"{name}: the child serves")
    tap.ok(tap.until(lambda: child_of(job, f"0.{server.rank}", shown(server, pid)), launch.LIMIT_S), f"{name}: it is a member, its parent's child",
           rows(job))
    moves(client, kid, name)
    status, said = server.move()
    tap.ok(status == 1 and names(said, server, [pid]) and "child process" in said, f"{name}: the parent does not move, its child is named",
           (pid, status, said))
    member = child_of(job, f"0.{server.rank}", shown(server, pid))
    status, out, err = job.tool("msrank-move", member, HOSTS[HOSTS.index(server.host) - 1])
    tap.ok(status == 1 and "its family's listener" in err and err.count("\n") == 1, f"{name}: nor does the child, which has its listener",
           (status, out, err))
    return pid


def forking(job, server, client):
    server.ask("l = socket.create_server(('', 8000))")
    for name in ("a fork", "a fork after a move"):
        pid = serving(job, server, client, name)
        server.ask("start('k', 'os._exit(7)')")
        tap.equal(client.ask("s.recv(10)"), b"", f"{name}: its end is the stream's end")
        tap.equal(server.ask("reap('k')"), 7, f"{name}: its parent gets its status")
        tap.ok(tap.until(lambda: not child_of(job, "0.0", shown(server, pid)), launch.LIMIT_S), f"{name}: it is gone")
        tap.equal(server.move()[0], 0, f"{name}: the parent moves when it has waited for it")
    serving(job, server, client, "a child that is killed")
    server.ask("os.kill(kids['k'][0], 9)")
    tap.ok(client.ask("s.recv(10)") in (b"", "ECONNRESET"), "its peer sees the end")
    tap.equal(server.ask("reap('k')"), -9, "its parent sees how it ended")
    tap.equal((server.move()[0], client.move()[0]), (0, 0), "both move")


def sharing(server, client):
    connect(server, client)
    pids = server.ask("os.getpid(), kid('k')")
    kid = kid_of(server)
    echo(client, kid, "a stream that two processes have: the child")
    echo(client, server.ask, "the parent")
    for who, actor in (("the parent", server), ("the peer", client)):
        status, said = actor.move("drain") # which waits for its peers' answers
        tap.ok(status == 1 and names(said, server, pids) and "share" in said, f"{who} does not move, both processes are named",
               (pids, status, said))
    for via in ("auto", "mirror"):
        status, said = client.move(via)
        tap.ok(status == 1 and names(said, server, pids) and "share" in said, f"the peer does not move, {via}: it knows", (pids, status, said))
    echo(client, kid, "nothing has changed")
    server.ask("os.kill(kids['k'][0], 9)")
    tap.equal(server.ask("reap('k')"), -9, "the child is killed")
    moves(client, server.ask, "the parent has it alone")
    tap.equal(server.move()[0], 0, "and moves")
    server.ask("kid('k')")
    kid("c.close()")
    status, said = client.move()
    tap.equal((status, said if status else ""), (0, ""), "the child has closed it: the peer moves")
    echo(client, server.ask, "with the parent")
    server.ask("c.close()")
    tap.equal(client.ask("s.recv(1)"), b"", "which closes it")
    server.ask("start('k', 'os._exit(0)')")
    tap.equal(server.ask("reap('k')"), 0, "the child ends")


def outlived(server, client):
    """A child ends, the parent writes and closes; the client moves before it closes."""
    for first, how in (("", "ends"), (TOLD, "says that it closes the stream, and does so behind its parent")):
        connect(server, client)
        server.ask("kid('k')")
        kid = kid_of(server)
        echo(client, kid, f"a child that {how}")
        kid(first or "c.close()")
        server.ask("c.sendall(b'more')")
        tap.equal(client.ask("take(s, 4)"), b"more", "its parent writes")
        server.ask("c.close()")
        server.ask("start('k', 'os._exit(0)')")
        tap.equal(server.ask("reap('k')"), 0, "the child is gone")
        for via in VIAS:
            status, said = client.move(via)
            tap.equal((status, said if status else ""), (0, ""), f"the client moves, {via}")
        tap.equal((client.ask("s.recv(1)"), client.ask("s.close()")), (b"", None), "and sees the end")


def direct(server, client):
    connect(server, client)
    pid = server.ask("kid('k')")
    number = server.ask("c.fileno()")
    tap.ok(is_direct(shown(server, server.ask("os.getpid()")), number) and is_direct(shown(server, pid), number),
           "after a fork the connection itself is under both numbers")
    server.ask("c.close()")
    server.ask("tell('k', 'kid(\"g\")')")
    server.ask("tell('k', 'c.close()')")

    def grandchild(line):
        return server.ask(f"tell('k', {f'tell({chr(34)}g{chr(34)}, {line!r})'!r})")
    moves(client, grandchild, "a grandchild")
    server.ask("tell('k', 'start(\"g\", \"os._exit(0)\")')")
    tap.equal((client.ask("s.recv(1)"), server.ask("tell('k', 'reap(\"g\")')")), (b"", 0), "it ends")
    server.ask("start('k', 'os._exit(0)')")
    tap.equal(server.ask("reap('k')"), 0, "so does its parent")


def options(server, client):
    """What the parent has set since the fork stays when the child is done with the stream."""
    sets = "c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, {0}), c.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, {1})"
    connect(server, client)
    for ends, status in (("c.close(), os._exit(0)", 0), ("os._exit(3)", 3)):
        server.ask(sets.format(1, 0))
        pid = server.ask("kid('k')")
        tap.ok(is_direct(shown(server, pid), server.ask("c.fileno()")), "a child has the connection")
        server.ask(sets.format(0, 1))
        server.ask(f"start('k', '{ends}')")
        tap.equal(server.ask("reap('k')"), status, f"it ends by {ends}")
        tap.equal(server.ask("c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), c.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)"),
                  (0, 1), "its parent's options are as the parent has set them")
        echo(client, server.ask, "the parent")
    server.ask("c.close()")
    tap.equal(client.ask("s.recv(1)"), b"", "which closes it")


def prefork(server, client):
    """Children accept from the listener that they have inherited."""
    for name in ("a", "b"):
        server.ask(f"kid('{name}')")

    def kid(line):
        return server.ask(f"tell('a', {line!r})")
    kid("l.setblocking(False)")
    tap.equal(kid("l.accept()"), "EAGAIN", "nobody is there")
    kid("l.setblocking(True)")
    server.ask("start('a', 'c = l.accept()[0]')")
    client.ask(f"s = socket.create_connection(('{server.address}', 8000))")
    tap.equal((server.ask("finish('a')"), kid("c.getpeername()"), kid("c.getsockname()")),
              (None, client.ask("s.getsockname()"), (server.address, 8000)), "a child waits for a connection and gets it")
    moves(client, kid, "a child that has accepted")
    client.ask(f"s = socket.create_connection(('{server.address}', 8000))")
    client.ask("s.sendall(b'early')")
    tap.equal([client.move(via)[0] for via in VIAS], [0, 0, 0], "a peer is moved while nobody has accepted it")
    server.ask("tell('b', 'c = l.accept()[0]')")
    tap.equal(server.ask("tell('b', 'take(c, 5)')"), b"early", "another child accepts it")
    moves(client, lambda line: server.ask(f"tell('b', {line!r})"), "the other child")
    connect(server, client)
    echo(client, server.ask, "the parent accepts too")
    server.ask("c.close()")
    for name in ("a", "b"):
        server.ask(f"start('{name}', 'os._exit(0)')")
        tap.equal(server.ask(f"reap('{name}')"), 0, "a child ends")
    tap.equal(server.move()[0], 0, "the parent moves")
    connect(server, client)
    echo(client, server.ask, "and its listener is there")
    server.ask("c.close()")


def active(server, client):
    """A child connects, and listens by itself."""
    server.ask("kid('k')")
    kid = kid_of(server)
    client.ask("l = socket.create_server(('', 8001))")
    tap.equal(kid(f"c = socket.create_connection(('{client.address}', 8001))"), None, "a child connects")
    client.ask("s = l.accept()[0]")
    tap.equal(client.ask("s.getpeername()"), kid("c.getsockname()"), "from its family's address")
    moves(client, kid, "a child that has connected")
    tap.equal(kid("m = socket.create_server(('', 8000))"), "EADDRINUSE", "its parent's port is taken")
    kid("m = socket.create_server(('', 8002))")
    tap.equal(kid("m.getsockname()"), ("0.0.0.0", 8002), "it listens")
    client.ask(f"s = socket.create_connection(('{server.address}', 8002))")
    kid("c = m.accept()[0]")
    tap.equal((kid("c.getsockname()"), kid("c.getpeername()")), ((server.address, 8002), client.ask("s.getsockname()")), "it accepts")
    moves(client, kid, "a child that has listened")
    kid("m.close()")
    tap.equal(client.ask(f"socket.create_connection(('{server.address}', 8002))"), "ECONNREFUSED", "it listens no more")
    tap.equal(server.ask("socket.create_server(('', 8002)).close()"), None, "the port is free")
    server.ask("start('k', 'os._exit(0)')")
    tap.equal(server.ask("reap('k')"), 0, "it ends")


def orphans(job, client):
    """The parent ends first, by itself or killed, and has closed nothing."""
    for rank, how in ((2, "os._exit(0)"), (3, "os.kill(os.getpid(), 9)")):
        server = Actor(job, rank)
        server.ask("l = socket.create_server(('', 8000))")
        connect(server, client)
        pid = server.ask("kid('k')")
        number = shown(server, pid)
        server.ask("start('k', 'while data := c.recv(4096): c.sendall(data.upper())')")
        client.ask("s.sendall(b'abc')")
        tap.equal(client.ask("take(s, 3)"), b"ABC", "a child serves")
        server.say(how)
        server.process.wait(launch.LIMIT_S)
        tap.ok(tap.until(lambda: child_of(job, f"0.{rank}", number), launch.LIMIT_S), f"its parent ends, {how}: it is a member", rows(job))
        for via in VIAS:
            status, said = client.move(via)
            client.ask("s.sendall(b'abc' * 1000)")
            tap.equal((status, said if status else "", client.ask("take(s, 3000)")), (0, "", b"ABC" * 1000), f"its peer moves, {via}")
        client.ask("s.close()")
        tap.ok(tap.until(lambda: not child_of(job, f"0.{rank}", number), launch.LIMIT_S), "it ends with the stream")
        tap.equal(server.complaints(), "", "nobody complains")


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def executed(server, client):
    """A child has become another program, and has the connection."""
    connect(server, client)
    server.ask("c.set_inheritable(True)")
    pid = server.ask("(os.fork() or os.execv('/bin/sleep', ['sleep', '1000']))")
    server.ask("c.close()")
    tap.ok(tap.until(lambda: comm(shown(server, pid)) == "sleep", launch.LIMIT_S), "a child becomes another program")
    status, said = client.move("drain", 8)
    # the other sentence: it had become a member just before
    tap.ok(status == 1 and ("which is no member" in said or "does not let stream" in said) and said.count("\n") == 1,
           "a program after exec has a stream: its peer does not move, and is told why",
           (pid, status, said))
    server.ask(f"os.kill({pid}, 9)")
    tap.equal(server.ask(f"os.waitpid({pid}, 0)[1]"), 9, "it is killed")
    tap.ok(client.ask("s.recv(1)") in (b"", "ECONNRESET"), "its peer sees the end")
    tap.equal((client.ask("s.close()"), client.move()[0], server.move()[0]), (None, 0, 0), "both move")


def child_member(job, server):
    """A child of rank 0 has its connection, and is a member: (its number for the server, for us, what asks it)"""
    pid = server.ask("kid('k')")
    server.ask("c.close()")
    number = shown(server, pid)
    tap.ok(tap.until(lambda: child_of(job, "0.0", number), launch.LIMIT_S), "a child serves, and is a member")
    return pid, number, kid_of(server)


def replaced(job, server, client):
    """A child that is a member becomes another program, with its connection."""
    for moving in (False, True):
        connect(server, client)
        pid, number, kid = child_member(job, server)
        echo(client, kid, "it serves")
        if moving:
            moves(client, kid, "it is relinked before")
        tap.equal(kid("os.execv('/nonexistent/program', ['p'])"), "ENOENT", "a program that is not there")
        moves(client, kid, "nothing has changed")
        kid("os.dup2(c.fileno(), 0), os.dup2(c.fileno(), 1)")
        server.ask("start('k', 'os.execv(\\'/bin/cat\\', [\\'cat\\'])')")
        refused = []
        if moving: # until it is known; what comes between is relinked as ever
            tap.ok(tap.until(lambda: (refused.append(client.move("mirror")) or refused[-1][0] != 0), launch.LIMIT_S), "its peer moves all the time")
        tap.ok(tap.until(lambda: comm(number) == "cat", launch.LIMIT_S), "it becomes another program")
        for via in VIAS:
            status, said = client.move(via)
            tap.ok(status == 1 and said.count("\n") == 1 and names(said, server, [pid]) and "which is no member" in said,
                   f"its peer does not move, {via}, and is told why", (pid, status, said))
        client.ask("s.sendall(b'abcd' * 100000)")
        tap.equal(client.ask("take(s, 400000)") == b"abcd" * 100000, True, "the program serves")
        client.ask("s.shutdown(socket.SHUT_WR)")
        tap.equal((client.ask("s.recv(1)"), server.ask("reap('k')")), (b"", 0), "it ends, and the stream with it")
        tap.equal((client.move()[0], client.ask("s.close()")), (0, None), "its peer moves again")


def root_replaced(job, client):
    """So does a process that msdaemon has started."""
    server = Actor(job, 4) # 2 and 3 have ended
    server.ask("l = socket.create_server(('', 8000))")
    connect(server, client)
    moves(client, server.ask, "a server that has not forked")
    number = shown(server, server.ask("os.getpid()"))
    server.say("os.dup2(c.fileno(), 0), os.dup2(c.fileno(), 1)")
    tap.equal(client.ask("take(s, 7)"), b"(0, 1)\n", "what it hears and says goes over its connection")
    client.ask("s.sendall(b'os.execv(\\'/bin/cat\\', [\\'cat\\'])\\n')")
    tap.ok(tap.until(lambda: comm(number) == "cat", launch.LIMIT_S), "it becomes another program")
    status, said = client.move("mirror")
    tap.ok(status == 1 and said.count("\n") == 1 and "which is no member" in said, "its peer does not move, and is told why", (status, said))
    client.ask("s.sendall(b'abcd' * 100000)")
    tap.equal(client.ask("take(s, 400000)") == b"abcd" * 100000, True, "the program serves")
    client.ask("s.shutdown(socket.SHUT_WR)")
    tap.equal((client.ask("s.recv(1)"), server.process.wait(launch.LIMIT_S)), (b"", 0), "it ends, and the stream with it")
    tap.equal((client.move()[0], client.ask("s.close()")), (0, None), "its peer moves again")


def again(job, server, client):
    """The coordinator is killed while a child serves."""
    connect(server, client)
    _, number, kid = child_member(job, server)
    name = child_of(job, "0.0", number)
    job.kill()
    tap.ok(job.again().startswith("ready"), "another coordinator", job.said)
    tap.equal(child_of(job, "0.0", number), name, "it knows the child")
    moves(client, kid, "under another coordinator")
    kid("c.close()")
    tap.equal(client.ask("s.recv(1)"), b"", "the stream ends")
    server.ask("start('k', 'os._exit(0)')")
    tap.equal(server.ask("reap('k')"), 0, "the child ends")
    tap.ok(tap.until(lambda: name not in rows(job), launch.LIMIT_S), "and is not listed any more")


def test():
    job = launch.Launch(HOSTS, secret=True)
    server, client = Actor(job, 0), Actor(job, 1)
    tap.equal((server.address, client.address), ("100.64.0.1", "100.64.0.2"), "two members")
    forking(job, server, client)
    sharing(server, client)
    outlived(server, client)
    direct(server, client)
    options(server, client)
    prefork(server, client)
    active(server, client)
    orphans(job, client)
    executed(server, client)
    replaced(job, server, client)
    root_replaced(job, client)
    again(job, server, client)
    tap.equal((client.end(), server.end()), ((0, ""), (0, "")), "both end well")
    tap.equal(job.end(), 0, "the job ends")
    tap.ok(not launch.children(), "nothing is left", launch.children())
    job.close()


tap.main(test)
launch.kill_children()
