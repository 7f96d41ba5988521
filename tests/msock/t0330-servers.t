#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Well-known servers under msrun --sockets with clients that check what they get; all are moved while they work."""
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import programs  # noqa: E402
from programs import MOVES, PYTHON, TOP, Member, Progress, address, launch, tap  # noqa: E402

SERVER = address(0)

# Redis' own protocol, as far as it is needed.
RESP = r"""
import socket, sys
s = socket.create_connection((sys.argv[1], 8000))
f = s.makefile("rb")
def ask(*words):
    s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
def answer():
    line = f.readline().rstrip()
    kind, rest = line[:1], line[1:]
    if kind == b"*":
        return [answer() for _ in range(int(rest))]
    if kind == b"$":
        return f.read(int(rest) + 2)[:-2]
    assert kind != b"-", line
    return int(rest) if kind == b":" else rest
"""
# Says how many messages have come; each has to be the one behind the last.
SUBSCRIBER = RESP + r"""
ask(b"SUBSCRIBE", b"news")
assert answer()[0] == b"subscribe"
print(0)
number = 0
while True:
    kind, channel, data = answer()
    assert (kind, data) == (b"message", b"%d" % number), (data, number)
    number += 1
    print(number)
"""
# Every message finds its one subscriber; keys are read back.
PUBLISHER = RESP + r"""
number = 0
while True:
    ask(b"PUBLISH", b"news", b"%d" % number)
    assert answer() == 1
    ask(b"SET", b"key%d" % (number % 100), b"%d" % number * 100)
    assert answer() == b"OK"
    ask(b"GET", b"key%d" % (number % 100))
    assert answer() == b"%d" % number * 100
    number += 1
    print(number)
"""


def redis():
    server = Member("redis", 0, ["redis-server", "--port", "8000", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "",
                                 "--appendonly", "no", "--logfile", os.path.join(TOP, "redis.log")])
    tap.ok(server.is_member(), "redis: the server is a member")
    load = Member("redis", 1, ["redis-benchmark", "-h", SERVER, "-p", "8000", "-P", "16", "-c", "20", "-n", "100000000", "-t", "set,get,incr,lpush",
                               "-r", "10000", "--csv"])
    tap.ok(load.is_member(), "redis: redis-benchmark -P 16")
    subscriber = Member("redis", 2, PYTHON + ["-c", SUBSCRIBER, SERVER])
    heard = Progress(subscriber)
    tap.equal(subscriber.is_member() and heard.look(), 0, "redis: a subscriber")
    publisher = Member("redis", 3, PYTHON + ["-c", PUBLISHER, SERVER])
    said = Progress(publisher)
    tap.ok(said.grows() and heard.grows(), "redis: it hears what is published")
    programs.move_all("redis", [server, load, subscriber, publisher], lambda: said.grows() and heard.grows() and load.runs())
    said.count(publisher.stop()[1])
    tap.ok(tap.until(lambda: heard.look() >= said.number, launch.LIMIT_S), f"redis: {said.number} messages, none missed", heard.number)
    programs.end_all("redis", [subscriber, load, server])


# Fifty commands at once, then their answers: what was stored last is what is there.
CACHE_CLIENT = r"""
import random, socket, sys
s = socket.create_connection((sys.argv[1], 8000))
f, r, kept, number = s.makefile("rb"), random.Random(1), {}, 0
while True:
    batch = []
    for _ in range(50):
        key = b"%s:%d" % (sys.argv[2].encode(), r.randrange(1000))
        if key in kept and r.randrange(2):
            batch.append((key, None))
            s.sendall(b"get %s\r\n" % key)
        else:
            batch.append((key, r.randbytes(r.choice((1, 100, 5000)))))
            s.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(batch[-1][1]), batch[-1][1]))
    for key, data in batch:
        if data is not None:
            assert f.readline() == b"STORED\r\n"
            kept[key] = data
            continue
        head = f.readline()
        assert head == b"VALUE %s 0 %d\r\n" % (key, len(kept[key])), (head, key)
        assert f.read(len(kept[key]) + 2) == kept[key] + b"\r\n"
        assert f.readline() == b"END\r\n"
    number += 1
    print(number)
"""


def memcached():
    server = Member("memcached", 0, ["memcached", "-u", "root", "-p", "8000", "-U", "0", "-l", "0.0.0.0", "-t", "2"])
    tap.ok(server.is_member(), "memcached: the server is a member")
    clients = [Member("memcached", rank, PYTHON + ["-c", CACHE_CLIENT, SERVER, str(rank)]) for rank in (1, 2)]
    counts = [Progress(client) for client in clients]
    tap.ok(all(count.grows() for count in counts), "memcached: two clients store and read")
    programs.move_all("memcached", [server, *clients], lambda: all(count.grows() for count in counts))
    programs.end_all("memcached", [*clients, server])


def iperf(name, option):
    """It measures for as long as the moves take; each second has to bring bytes, at both ends."""
    seconds = 4 * MOVES + 4
    run = programs.iperf(name, seconds, option)
    bytes_there = run.report.get("end", {}).get("sum_received", {}).get("bytes", 0)
    tap.ok(run.status == 0 and "error" not in run.report and bytes_there > 0 and not run.silent, f"{name}: no error, no second without bytes",
           (run.status, run.report.get("error"), bytes_there, run.silent, run.out[-500:]))
    tap.note(f"{bytes_there >> 20} MB in {seconds} s with {run.moves} moves")
    programs.end_all(name, [run.server])


def iperf3():
    iperf("iperf3", [])
    iperf("iperf3-back", ["-R"])
    if programs.LONG:
        iperf("iperf3-both", ["--bidir", "-P", "3"])


# Why the client is refused: two processes have the stream, here or at the other end, or it has a child.
SHARED = re.compile(r"descriptor \d+: processes \d+ and \d+ share this stream|there process \d+ shares it with process \d+|a running child process: \d+")
BOTH = 4  # processes of rsync's that there are while a transfer has two that receive: these, who sends, and the daemon


def refusals(client):
    """How many moves of the client were refused with numbers of processes while two received; what else was said."""
    refused, other = 0, []
    while client.runs():
        if len(launch.named("rsync")) != BOTH:
            continue
        status, said = client.move("drain", ["--timeout", "3"])
        if status == 1 and SHARED.search(said) and said.count("\n") == 1:
            refused += 1
        elif len(launch.named("rsync")) == BOTH:
            other.append((status, said))
    return refused, other[:3]


def transfer(rank, title, where, words):
    """A process of rsync's that receives has a child that does so too: while they have the stream its other end does not move either."""
    client = Member("rsync", rank, ["rsync", "--bwlimit", "20m", *words])
    refused, other = refusals(client)
    tap.ok(refused > 0 and not other, f"rsync {title}: the client is refused while two processes have the stream, and they are named", (refused, other))
    tap.note(f"{refused} refusals")
    status, _ = client.wait(4 * launch.LIMIT_S)
    tap.equal((status, client.complaints()), (0, ""), f"rsync {title}: it ends well")
    with open(where, "rb") as file:
        return programs.read_digest(file)


def rsync():
    """Who receives forks, so neither end of a transfer moves; the bytes are right, and the daemon moves when none is under way."""
    size = 400 << 20 if programs.LONG else 100 << 20
    want = programs.big_file("sent", size)
    module = os.path.join(TOP, "module")
    os.mkdir(module)
    with open(os.path.join(TOP, "rsyncd.conf"), "w", encoding="ascii") as file:
        file.write(f"use chroot = no\nlock file = {TOP}/rsync.lock\nlog file = {TOP}/rsync.log\n[here]\npath = {module}\nread only = no\n"
                   "uid = 0\ngid = 0\n")
    server = Member("rsync", 0, ["rsync", "--daemon", "--no-detach", "--port", "8000", "--config", os.path.join(TOP, "rsyncd.conf")])
    tap.ok(server.is_member(), "rsync: the daemon is a member")
    there, back = os.path.join(module, "sent"), os.path.join(TOP, "back")
    url = f"rsync://{SERVER}:8000/here/"
    for rank, title, where, words in (1, "to the daemon", there, ["sent", url]), (2, "from the daemon", back, [url + "sent", "back"]):
        tap.equal(transfer(rank, title, where, words), want, f"rsync {title}: the file is the same")
        tap.ok(tap.until(lambda: server.move()[0] == 0, launch.LIMIT_S), "rsync: then the daemon moves")
    programs.end_all("rsync", [server])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def stays(name, server, answers):
    """It is refused, with one line that says why, and serves before and after."""
    tap.ok(tap.until(answers, launch.LIMIT_S), f"{name}: it serves", server.complaints())
    status, said = server.move()
    tap.ok(status == 1 and said.count("\n") == 1 and ("child" in said or "socket" in said), f"{name}: it is not moved, and one line says why",
           (status, said))
    tap.note(said)
    tap.ok(answers() and server.runs(), f"{name}: it goes on serving", server.complaints())
    server.stop()


def nginx():
    port, top = free_port(), os.path.join(TOP, "nginx")
    os.makedirs(os.path.join(top, "html"))
    with open(os.path.join(top, "html", "index.html"), "w", encoding="ascii") as file:
        file.write("here it is")
    with open(os.path.join(top, "nginx.conf"), "w", encoding="ascii") as file:
        file.write(f"daemon off; user root; worker_processes 2; pid {top}/pid; error_log {top}/log; events {{}}\nhttp {{ access_log off; "
                   f"client_body_temp_path {top}/a; proxy_temp_path {top}/b; fastcgi_temp_path {top}/c; uwsgi_temp_path {top}/d; "
                   f"scgi_temp_path {top}/e; server {{ listen 127.0.0.1:{port}; root {top}/html; }} }}\n")

    def answers():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=launch.LIMIT_S) as answer:
                return answer.read() == b"here it is"
        except OSError:
            return False

    stays("nginx", Member("nginx", 0, ["nginx", "-p", top, "-c", os.path.join(top, "nginx.conf"), "-e", os.path.join(top, "log")]), answers)


POSTGRES = shutil.which("postgres") or max(glob.glob("/usr/lib/postgresql/*/bin/postgres"), default=None)


def postgres():
    """It refuses to run as root: the whole job is an ordinary user's."""
    binaries, port = os.path.dirname(os.path.realpath(POSTGRES)), free_port()
    data = os.path.join(TOP, "data")
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    os.mkdir(data, 0o700)
    if user:
        os.chmod(TOP, 0o777)
        shutil.chown(data, "nobody", "nogroup")
    made = subprocess.run([os.path.join(binaries, "initdb"), "-D", data, "-A", "trust", "-N", "-U", "me"], capture_output=True, text=True, check=False,
                          cwd="/", **user)
    if not tap.equal(made.returncode, 0, "postgres: a database"):
        tap.note(made.stderr)
        return

    def answers():
        said = subprocess.run([os.path.join(binaries, "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "me", "-Atc", "select 6 * 7", "postgres"],
                              capture_output=True, text=True, check=False)
        return said.stdout == "42\n"

    server = Member("postgres", 0, [POSTGRES, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"], user=user)
    stays("postgres", server, answers)


TESTS = {"redis": (redis, "redis-server redis-benchmark"), "memcached": (memcached, "memcached"), "iperf3": (iperf3, "iperf3"),
         "rsync": (rsync, "rsync"), "nginx": (nginx, "nginx"), "postgres": (postgres, POSTGRES or "postgres")}

tap.main(lambda: programs.run(TESTS))
programs.close()
