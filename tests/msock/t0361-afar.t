#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Forked children that move: what is left of them at home, what they still have to do with it, and who dies meanwhile."""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from family import HOSTS, VIAS, Actor, Worker, names, rows, shown  # noqa: E402
from launch import tap  # noqa: E402


def others(host):
    return [other for other in HOSTS if other != host]


def afar(server, client, child):
    """There and back, with its output, its signals, and its peer's moves."""
    there, third = others(server.host)
    for host, via in zip((there, third, server.host, there, server.host, third), VIAS + VIAS):
        child.moves(host, via)
    child.ask("os.write(1, b'1\\n')")
    tap.equal(server.hear(), 1, "what it writes comes out at home")
    child.ask("got = []")
    child.ask("old = signal.signal(signal.SIGUSR1, lambda *what: got.append(what[0]))")
    server.ask(f"os.kill({child.pid}, signal.SIGUSR1)")
    tap.ok(tap.until(lambda: child.ask("[int(n) for n in got]") == [10], launch.LIMIT_S), "a signal of its parent's reaches it")
    status, said = server.move()
    tap.ok(status == 1 and said.count("\n") == 1 and child.name in said and third in said,
           "the parent does not move, the child and its host are named", (status, said))
    for via in VIAS:
        tap.equal((client.move(via)[0], child.ask("2 + 2")), (0, 4), f"its peer moves, {via}")


def much(server, child):
    """More than any queue on the way holds, and it moves while half of it is under way; then it ends at once."""
    child.ask("sys.stdout.write(''.join(f'{n}\\n' for n in range(100000)))")
    got = [server.hear() for _ in range(50000)]
    child.moves(*[host for host in others(server.host) if host != child.host])
    got += [server.hear() for _ in range(50000)]
    tap.equal(got == list(range(100000)), True, "what it wrote before and after comes whole and in order")
    child.told("[sys.stdout.write(f'{n}\\n') for n in range(30000)] and sys.stdout.flush() or os._exit(7)")
    server.say(f"print(ended({child.pid}))")
    got = [server.hear() for _ in range(30000)]
    tap.equal((got == list(range(30000)), server.hear(), server.hear()), (True, 7, None), "its last words come before its parent sees its end")


def ends(job, server, client):
    there = others(server.host)[0]
    for how, status in (("os._exit(7)", 7), ("os.kill(os.getpid(), 15)", -15), ("os.kill(os.getpid(), 9)", -9)):
        child = Worker(job, server, client)
        child.moves(there)
        child.told(how)
        child.ends(status, f"it ends elsewhere, {how}: so its parent sees it")
    child = Worker(job, server, client)
    child.moves(there)
    server.ask(f"os.kill({child.pid}, 9)")
    child.ends(-9, "its parent kills it: it is gone there too")
    tap.equal(server.move()[0], 0, "the parent moves when its children have ended")
    child = Worker(job, server, client)
    child.moves(others(server.host)[0])
    child.told("sys.exit(3)")
    child.ends(3, "a child of a parent that has moved")


def refused(job, server, client):
    """What a child has together with others stays, and so does the child; with nothing lost."""
    there = others(server.host)[0]
    child = Worker(job, server, client, first="0")
    child.refused(there, "its family's listener")
    child.ask("l.close()")
    child.moves(there)
    child.told("os._exit(0)")
    child.ends(0, "without it it moves")
    for make, drop in (("h = os.pipe()", "os.close(h[0]), os.close(h[1])"), ("h = socket.socketpair()", "h[0].close(), h[1].close()"),
                       ("h = open('/etc/passwd')", "h.close()"), ("h = select.epoll()", "h.close()"), ("h = mmap.mmap(-1, 4096)", "h.close()")):
        server.ask("import mmap")
        server.ask("import select")
        server.ask(make)
        child = Worker(job, server, client)
        status, said = child.move(there)
        tap.ok(status == 1 and names(said, server, [child.pid, server.ask("os.getpid()")]) and "share" in said,
               f"what its parent has too keeps it, both are named: {make}", (status, said))
        server.ask(drop)
        child.moves(there)
        child.told("os._exit(0)")
        child.ends(0, f"when its parent has not got it any more it moves: {make}")
    child = Worker(job, server, client)
    child.moves(there)
    tap.equal(child.ask("socket.create_server(('', 8005))"), "EINVAL", "away from its family nobody listens for it")
    child.ask("import subprocess")
    child.ask("kid = subprocess.Popen(['sleep', '1000'])")
    child.refused(others(there)[0], "child process")
    child.ask("kid.kill()")
    tap.equal(child.ask("kid.wait()"), -9, "it has children there too, and waits for them")
    child.moves(others(there)[0])
    child.told("os._exit(0)")
    child.ends(0, "it ends")


def failed(job, server, client):
    """A move that comes to nothing, at home and away; one of whose source is killed in the freeze."""
    there, third = others(server.host)
    child = Worker(job, server, client)
    for host in (there, third):
        for fault, via in (("daemon-refuses", "auto"), ("daemon-kills-restorer", "auto"), ("daemon-kills-restorer", "drain")):
            status, said = child.move(host, via, "--fault", fault)
            tap.equal((status, said.count("\n"), child.ask("os.getpid()")), (1, 1, child.pid), f"a move that fails, {fault}: it goes on where it was")
        child.moves(host)
    child.told("os._exit(4)")
    child.ends(4, "it ends")
    child = Worker(job, server, client)
    child.move(there, "auto", "--fault", "daemon-kills-member") # it may be too late to stop the move
    tap.equal(server.ask(f"ended({child.pid})"), -9, "it is killed while it leaves: its parent sees it")
    client.ask("f.close(), s.close()")
    tap.ok(tap.until(lambda: child.name not in rows(job), launch.LIMIT_S), "it is gone", rows(job))


def evacuated(job, server, client):
    child = Worker(job, server, client)
    home = server.host
    status, out, err = job.tool("msrank-move", "--evacuate", home)
    row = rows(job)[child.name]
    tap.ok(status == 1 and "0.0" in err and row["host"] != home and row["moves"] == 1, "an evacuation moves the child, its parent stays and is named",
           (status, out, err, row))
    status, out, err = job.tool("msrank-move", "--drop", home)
    tap.ok(status == 1, "the host is not left", (status, out, err))
    child.host = row["host"]
    client.host = rows(job)["0.1"]["host"] # which may have been there too
    tap.equal(child.ask("1 + 1"), 2, "it serves")
    child.told("os._exit(0)")
    child.ends(0, "it ends")


def again(job, server, client):
    """The coordinator is killed while a child is away; what it writes and how it ends comes through the next one."""
    there, third = others(server.host)
    child = Worker(job, server, client)
    child.moves(there)
    gone = os.path.join(job.top, "gone")
    child.ask("import time")
    child.told(f"while not os.path.exists({gone!r}): time.sleep(0.01)")
    child.told("[sys.stdout.write(f'{n}\\n') for n in range(1000)] and sys.stdout.flush()")
    job.kill()
    with open(gone, "w", encoding="ascii"):
        pass
    tap.ok(job.again().startswith("ready"), "another coordinator", job.said)
    client.ask("[f.readline() for _ in range(2)]")
    tap.equal([server.hear() for _ in range(1000)], list(range(1000)), "what the child has written without a coordinator comes")
    tap.equal(rows(job).get(child.name, {}).get("host"), there, "it is known where the child is")
    child.moves(third)
    child.ask("got = []")
    child.ask("old = signal.signal(signal.SIGUSR1, lambda *what: got.append(what[0]))")
    server.ask(f"os.kill({child.pid}, signal.SIGUSR1)")
    tap.ok(tap.until(lambda: child.ask("[int(n) for n in got]") == [10], launch.LIMIT_S), "signals reach it")
    child.told("os._exit(9)")
    child.ends(9, "its end is known")


def orphaned(job, client):
    """The parent, which msdaemon has started, ends before its child does."""
    for rank, how in ((2, "os._exit(0)"), (3, "os.kill(os.getpid(), 9)")):
        server = Actor(job, rank)
        server.ask("l = socket.create_server(('', 8000))")
        child = Worker(job, server, client)
        child.moves(others(server.host)[0])
        server.say(how)
        server.process.wait(launch.LIMIT_S)
        tap.equal(child.ask("sys.stdin.buffer.raw.read(1)"), b"", f"the parent ends, {how}: its child's standard input is at its end")
        tap.equal(child.ask("os.write(1, b'1') + os.write(2, b'1')"), 2, "what it writes is dropped")
        child.moves(others(server.host)[1])
        tap.equal((client.move()[0], child.ask("2 + 2")), (0, 4), "its peer moves")
        child.told("os._exit(0)")
        client.ask("f.close(), s.close()")
        tap.ok(tap.until(lambda: child.name not in rows(job), launch.LIMIT_S), "it ends", rows(job))
        tap.ok(tap.until(lambda: not launch.named("msstandin"), launch.LIMIT_S), "and what stood for it")
        tap.equal(server.complaints(), "", "nobody complains")
    server = Actor(job, 4)
    server.ask("l = socket.create_server(('', 8000))")
    server.move()
    child = Worker(job, server, client)
    child.moves(others(server.host)[0])
    server.say("os._exit(0)")
    server.process.wait(launch.LIMIT_S)
    tap.ok(tap.until(lambda: child.name not in rows(job), launch.LIMIT_S), "with a parent that had moved its namespace ends, and so does the child",
           rows(job))
    client.ask("f.close(), s.close()")


def unread(job, client):
    """Nobody reads what the family writes: its child, which is away, sees it too, also after a further move."""
    server = Actor(job, 5)
    server.ask("l = socket.create_server(('', 8000))")
    child = Worker(job, server, client)
    child.moves(others(server.host)[0])
    server.process.stdout.close()
    for host in (None, others(server.host)[1]):
        if host:
            child.moves(host)
        tap.ok(tap.until(lambda: child.ask("os.write(1, b'1')") == "EPIPE", launch.LIMIT_S), "the child gets EPIPE")
    child.told("os._exit(0)")
    client.ask("f.close(), s.close()")
    tap.equal(server.end(), (0, ""), "the family ends well")
    tap.ok(tap.until(lambda: child.name not in rows(job), launch.LIMIT_S), "with its child", rows(job))


def daemon_of(host):
    for pid in launch.named("msdaemon"):
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            if host in file.read().split("\0"):
                return pid
    return 0


def dies(job, server, client):
    """The host of a child, and the host where it has come from: neither is the client's."""
    there = next(host for host in others(server.host) if host != client.host)
    child = Worker(job, server, client)
    child.moves(there)
    os.kill(daemon_of(there), signal.SIGKILL)
    tap.equal(server.ask(f"ended({child.pid})"), 255, "its host is lost: its parent sees it end with 255")
    tap.equal(client.ask("f.readline()") in ("", "ECONNRESET"), True, "its peer sees the end")
    tap.ok(tap.until(lambda: rows(job).get(child.name, {"state": "ended"})["state"] == "ended", launch.LIMIT_S), "it is over", rows(job))
    client.ask("f.close(), s.close()")
    child = Worker(job, server, client)
    child.moves(client.host)
    number = shown(server, child.pid)
    os.kill(daemon_of(server.host), signal.SIGKILL)
    tap.equal(server.process.wait(launch.LIMIT_S), 255, "the parent's host is lost: so is the parent")
    tap.ok(tap.until(lambda: number not in launch.children() and rows(job).get(child.name) is None, launch.LIMIT_S), "its child ends elsewhere",
           rows(job))
    tap.equal(client.ask("f.readline()") in ("", "ECONNRESET"), True, "its peer sees the end")


def test():
    job = launch.Launch(HOSTS, secret=True)
    server, client = Actor(job, 0), Actor(job, 1)
    server.ask("l = socket.create_server(('', 8000))")
    child = Worker(job, server, client)
    afar(server, client, child)
    much(server, child)
    client.ask("f.close(), s.close()")
    ends(job, server, client)
    refused(job, server, client)
    failed(job, server, client)
    evacuated(job, server, client)
    again(job, server, client)
    orphaned(job, client)
    unread(job, client)
    tap.ok(server.host != client.host or client.move()[0] == 0, "the client is not where the server is")
    dies(job, server, client)
    tap.equal(client.end(), (0, ""), "the client ends well")
    tap.equal(job.end(), 0, "the job ends")
    tap.ok(tap.until(lambda: not launch.children(), 5), "nothing is left", launch.children()) # of the lost host it takes a moment
    job.close()


tap.main(test)
launch.kill_children()
