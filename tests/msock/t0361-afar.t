#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Forked children that move: what is left of them at home, what they still have to do with it, and who dies meanwhile."""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from family import HOSTS, VIAS, Actor, Worker, names, rows  # noqa: E402
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


def daemon_of(host):
    for pid in launch.named("msdaemon"):
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            if host in file.read().split("\0"):
                return pid
    return 0


def dies(job, server, client):
    """The host of a child, and the host where it has come from."""
    spare = Actor(job, 2) # whose host is to be lost
    there = spare.host
    child = Worker(job, server, client)
    child.moves(there)
    os.kill(daemon_of(there), signal.SIGKILL)
    tap.equal(server.ask(f"ended({child.pid})"), 255, "its host is lost: its parent sees it end with 255")
    tap.equal(client.ask("f.readline()") in ("", "ECONNRESET"), True, "its peer sees the end")
    tap.ok(tap.until(lambda: rows(job).get(child.name, {"state": "ended"})["state"] == "ended", launch.LIMIT_S), "it is over", rows(job))
    client.ask("f.close(), s.close()")


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
    evacuated(job, server, client)
    again(job, server, client)
    dies(job, server, client)
    tap.equal((client.end(), server.end()), ((0, ""), (0, "")), "both end well")
    tap.equal(job.end(), 0, "the job ends")
    tap.ok(tap.until(lambda: not launch.children(), 5), "nothing is left", launch.children()) # of the lost host it takes a moment
    job.close()


tap.main(test)
launch.kill_children()
