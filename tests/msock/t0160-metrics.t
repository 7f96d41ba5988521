#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The figures for Prometheus: in its format, on a Unix socket or a loopback port, and not at all unless asked for."""
import os
import re
import socket
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import launch  # noqa: E402
from launch import tap  # noqa: E402

A, B = "127.0.0.2", "127.0.0.3"
LINE = re.compile(r'([a-z_]+)(?:\{([a-z]+="(?:[^"\\]|\\.)*"(?:,[a-z]+="(?:[^"\\]|\\.)*")*)\})? (-?[0-9.e+-]+)')


class Rank(launch.Talker):
    name = "tests/msock/knock"


def ask(family, where, path="/metrics"):
    """(status, body) of one request."""
    with socket.socket(family) as sock:
        sock.settimeout(20)
        sock.connect(where)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: job\r\nConnection: close\r\n\r\n".encode())
        text = b""
        while more := sock.recv(65536):
            text += more
    head, _, body = text.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def read(body):
    """Figures by name and labels; every line must be of the format, every name have its type first."""
    figures, types, wrong = {}, {}, []
    for line in body.splitlines():
        if line.startswith("# TYPE "):
            types[line.split()[2]] = line.split()[3]
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            if not match or not (match[1] in types or re.sub("_(sum|count)$", "", match[1]) in types):
                wrong.append(line)
                continue
            figures[(match[1], match[2] or "")] = float(match[3])
    tap.equal(wrong, [], "every line is of Prometheus's format")
    return figures


def launched(where):
    os.environ["MSOCK_METRICS"] = where
    job = launch.Launch((A, B), err=subprocess.DEVNULL)
    del os.environ["MSOCK_METRICS"]
    return job


def unix_socket():
    job = launched("unix")
    try:
        path = os.path.join(job.dir, "metrics.sock")
        rank = Rank(job, "serve", A)
        rank.line()
        tap.equal(job.tool("msrank-move", str(rank.number), B)[0], 0, "a rank moves")
        tap.equal(job.tool("msrank-move", "--fault", "daemon-refuses", str(rank.number), A)[0], 1, "and is not taken once")
        known = lambda: ask(socket.AF_UNIX, path)[1].count("msock_host_cores{") == 2
        tap.ok(tap.until(known, 20, 0.2), "the daemons' samples come")
        status, body = ask(socket.AF_UNIX, path)
        figures = read(body)
        tap.equal(status, 200, "/metrics is there")
        member = f"0.{rank.number}"
        tap.equal([figures.get(key) for key in (("msock_job_info", f'job="{job.job}"'), ("msock_host_up", f'host="{A}"'),
                                                ("msock_rank_moves_total", f'rank="{member}"'), ("msock_moves_total", 'outcome="moved"'),
                                                ("msock_moves_total", 'outcome="aborted"'), ("msock_move_seconds_count", ""))],
                  [1, 1, 1, 1, 1, 1], "it tells the job, its hosts, its ranks and the moves")
        tap.equal(figures[("msock_host_cores", f'host="{A}"')], len(os.sched_getaffinity(0)), "and the processors")
        tap.ok(0 < figures[("msock_move_freeze_seconds_sum", "")] < figures[("msock_move_seconds_sum", "")] < 60, "times are in seconds", figures)
        tap.ok(any(name == "msock_rank_resident_bytes" and f'rank="{member}"' in labels and f'host="{B}"' in labels
                   for name, labels in figures), "a rank is where it has moved to", figures)
        tap.equal(ask(socket.AF_UNIX, path, "/")[0], 404, "nothing else is there")
        rank.child.kill()
        rank.child.wait()
        tap.equal((job.end(), job.leftovers()), (0, []), "the job ends, and nothing is left")
    finally:
        job.close()


def port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        job = launched(str(number))
        tap.ok(job.said.startswith(f"error no metrics can be offered at {number}: "), "a port that is taken", job.said)
        job.end()
        job.close()
    job = launched(str(number))
    try:
        tap.equal(ask(socket.AF_INET, ("127.0.0.1", number))[0], 200, "on a port of 127.0.0.1")
        where = [launch.listening(pid) for pid in launch.named("msrank-coord")]
        tap.ok(any(("127.0.0.1", number) in list_ for list_ in where), "and of nothing else", where)
        tap.equal(job.end(), 0, "the job ends")
    finally:
        job.close()


def off():
    for value in ("http://x", "0", "70000"):
        job = launched(value)
        tap.equal(job.said, f"error MSOCK_METRICS is `unix` or a port, not {value}", f"{value}: refused")
        job.end()
        job.close()
    job = launched("")
    tap.equal(os.path.exists(os.path.join(job.dir, "metrics.sock")), False, "nothing is offered unless asked for")
    listens = [at for pid in launch.named("msrank-coord") for at in launch.listening(pid)]
    tap.equal(len(listens), 2, "the coordinator has its two ports, for daemons and for the coordinators of other jobs")
    tap.equal(job.end(), 0, "the job ends")
    job.close()


def test():
    unix_socket()
    port()
    off()


tap.main(test)
