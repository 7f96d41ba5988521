#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The lab on its own: what hosts share and do not share, ssh, cables, power, and that nothing is left."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import tap  # noqa: E402

LAB, SSH = os.path.join(HERE, "lab"), os.path.join(HERE, "ssh")
LISTEN = """
import socket, sys
s = socket.create_server(("0.0.0.0", 7000)); print("up", flush=True)
c, a = s.accept(); c.sendall(c.recv(100)[::-1]); print(a[0])
"""
CONNECT = """
import socket
s = socket.create_connection(("h2", 7000), 1); s.sendall(b"abc"); print(s.recv(3).decode())
"""


def lab(directory, *words, **options):
    env = dict(os.environ, MSOCK_LAB=directory)
    return subprocess.run([LAB, *words], env=env, capture_output=True, text=True, timeout=30, check=False, **options)


def up(count, *options):
    made = subprocess.run([LAB, "up", *options, str(count)], capture_output=True, text=True, timeout=30, check=False)
    if made.returncode != 0:
        raise RuntimeError(made.stderr)
    return made.stdout.strip()


def inits(directory):
    return [int(line.split()[1]) for line in lab(directory, "list").stdout.splitlines()]


def alive(pids):
    """Those that have not ended; who has, may wait a moment to be reaped by the machine's init."""
    def ended(pid):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            return True
    return [pid for pid in pids if not ended(pid)]


def namespaces(directory):
    pids = inits(directory)
    for kind in ("net", "pid", "mnt", "uts", "ipc", "time"):
        seen = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids + [os.getpid()]}
        tap.equal(len(seen), len(pids) + 1, f"each host has its own {kind} namespace")


def seconds(directory, host, clock):
    return float(lab(directory, "run", host, "/usr/bin/python3", "-c", f"import time; print(time.clock_gettime(time.{clock}))").stdout)


def separate(directory):
    tap.equal(lab(directory, "run", "h1", "hostname").stdout, "h1\n", "a host knows its name")
    shift = seconds(directory, "h2", "CLOCK_MONOTONIC") - seconds(directory, "h1", "CLOCK_MONOTONIC")
    tap.ok(abs(shift) > 500, "the hosts' monotonic clocks differ", shift)
    shift = seconds(directory, "h2", "CLOCK_REALTIME") - seconds(directory, "h1", "CLOCK_REALTIME")
    tap.ok(abs(shift) < 30, "the time of day is the same", shift)
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run"):
        lab(directory, "run", "h1", "touch", f"{place}/only-h1")
        tap.ok(lab(directory, "run", "h2", "test", "-e", f"{place}/only-h1").returncode == 1
               and not os.path.exists(f"{place}/only-h1"), f"{place} is h1's own")
    tap.equal(len([f for f in lab(directory, "files", "h1").stdout.split() if f.endswith("only-h1")]), 4, "lab files lists them")
    lab(directory, "run", "h1", "sh", "-c", "echo seen > $MSOCK_LAB/shared/f")
    tap.equal(lab(directory, "run", "h2", "sh", "-c", "cat $MSOCK_LAB/shared/f").stdout, "seen\n", "the shared directory is common")


def ssh(directory):
    env = dict(os.environ, MSOCK_LAB=directory, SECRET="x")
    run = lambda *words, **options: subprocess.run([SSH, *words], env=env, capture_output=True, text=True, timeout=30,
                                                   check=False, **options)
    done = run("-x", "h1", "cat; echo $SECRET$HOME >&2; exit 7", input="through\n")
    tap.equal((done.stdout, done.stderr, done.returncode), ("through\n", "/root\n", 7),
              "ssh passes 0, 1, 2 and the exit status, and no environment")
    tap.equal(run("h1", "hostname").stdout, "h1\n", "ssh enters the host")
    tap.equal(run("h9", "true").returncode, 255, "ssh to no host is 255")
    done = subprocess.Popen([SSH, "h1", "kill -9 $$"], env=env, stderr=subprocess.DEVNULL)
    tap.equal(done.wait(30), 255, "a remote end by a signal is 255")
    done = lab(directory, "run", "h1", "sh", "-c", "kill -SEGV $$")
    tap.equal(done.returncode, 139, "lab run tells a signal as a shell does")
    child = subprocess.Popen([LAB, "run", "h1", "sh", "-c", "trap 'exit 5' INT; echo trapped; while :; do sleep 0.05; done"],
                             env=env, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.send_signal(2)
    tap.equal(child.wait(30), 5, "lab run passes signals on")


def network(directory):
    env = dict(os.environ, MSOCK_LAB=directory)

    def talk():
        with subprocess.Popen([LAB, "run", "h2", "timeout", "20", "/usr/bin/python3", "-c", LISTEN], env=env, stdout=subprocess.PIPE,
                              text=True) as server:
            server.stdout.readline()
            client = lab(directory, "run", "h1", "/usr/bin/python3", "-c", CONNECT)
            if client.returncode != 0:
                server.terminate()
            return client.stdout.strip(), server.stdout.read().strip()

    tap.equal(talk(), ("cba", "10.77.0.101"), "hosts talk by name, from their own addresses")
    tap.equal(lab(directory, "cut", "h2").returncode, 0, "cut")
    tap.equal(talk()[0], "", "a host that is cut off is not reached")
    done = subprocess.run([SSH, "h2", "true"], env=env, capture_output=True, text=True, timeout=30, check=False)
    tap.ok(done.returncode == 255 and "No route" in done.stderr, "nor by ssh", done)
    tap.equal(lab(directory, "heal", "h2").returncode, 0, "heal")
    tap.equal(talk()[0], "cba", "a host that is healed is reached again")
    tap.equal(lab(directory, "shape", "h2", "100mbit").returncode, 0, "shape")


def quota(directory):
    """A quarter of a processor: 0.2 s of work take the host about 0.8 s, whatever the machine does; and no group is left (below)."""
    if not any(os.access(f"/sys/fs/cgroup/{name}", os.W_OK) for name in ("cpu", "cgroup.subtree_control")):
        return tap.skip("a host's share of a processor", "no control group can be made here")
    work = "import time; s = time.monotonic()\nwhile time.process_time() < 0.2: pass\nprint(time.monotonic() - s)"
    done = lab(directory, "quota", "h3", "25@0")
    tap.equal(done.returncode, 0, "quota")
    took = float(lab(directory, "run", "h3", "/usr/bin/python3", "-c", work).stdout)
    tap.ok(took > 0.6, "a host gets no more than its share", took)
    words = ["/usr/bin/python3", "-c", "import os; print(os.sched_getaffinity(0))"]
    return tap.equal(lab(directory, "run", "h3", *words).stdout, "{0}\n", "and that of one processor")


def groups(directory):
    return [os.path.join(where, name) for where, names, _ in os.walk("/sys/fs/cgroup") for name in names
            if name.startswith(os.path.basename(directory))]


def power(directory):
    env = dict(os.environ, MSOCK_LAB=directory)
    init = inits(directory)[2]
    with subprocess.Popen([SSH, "h2", "echo up; cat"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as session:
        session.stdout.readline()
        tap.ok(" cat " in lab(directory, "ps", "h2").stdout, "lab ps lists what runs there")
        tap.equal(lab(directory, "off", "h2").returncode, 0, "off")
        tap.equal(session.wait(10), 255, "a session of a host that is switched off ends with 255")
    tap.equal(alive([init]), [], "its init is gone")
    tap.ok(lab(directory, "run", "h2", "true").returncode == 1, "nothing runs there any more")
    tap.equal(lab(directory, "run", "h1", "hostname").stdout, "h1\n", "the others go on")


def leaves_nothing():
    mounts = open("/proc/self/mounts", encoding="utf-8").read()
    first, second = up(1), up(1)
    tap.ok(first != second and lab(first, "run", "h1", "true").returncode == 0 and lab(second, "run", "h1", "true").returncode == 0,
           "two labs at once")
    pids = inits(second)
    lab(second, "down")
    tap.equal((alive(pids), os.path.exists(second)), ([], False), "down takes away its hosts and directory")
    tap.equal(lab(second, "down").returncode, 0, "down again does nothing")
    tap.equal(lab(first, "run", "h1", "hostname").stdout, "h1\n", "the other lab goes on")
    lab(first, "down")

    owner = subprocess.Popen(["sleep", "60"])
    directory = up(2, "--owner", str(owner.pid))
    pids = inits(directory)
    owner.kill()
    owner.wait()
    tap.ok(tap.until(lambda: not alive(pids) and not os.path.exists(directory), 10), "the lab goes with its owner", alive(pids))

    directory = up(1)
    pids = inits(directory)
    with open(f"/proc/{pids[0]}/stat", encoding="ascii") as stat:
        unshare = int(stat.read().rsplit(")", 1)[1].split()[1])
    with open(f"/proc/{unshare}/stat", encoding="ascii") as stat:
        keeper = int(stat.read().rsplit(")", 1)[1].split()[1])
    os.kill(keeper, 9)
    tap.ok(tap.until(lambda: not alive(pids), 10), "hosts die with their keeper, however it dies", alive(pids))
    lab(directory, "down")
    tap.ok(not os.path.exists(directory), "down cleans up after that")
    tap.equal(open("/proc/self/mounts", encoding="utf-8").read(), mounts, "no mount is left")


def test():
    directory = up(3)
    try:
        namespaces(directory)
        separate(directory)
        ssh(directory)
        network(directory)
        quota(directory)
        power(directory)
    finally:
        lab(directory, "down")
    tap.equal(groups(directory), [], "no control group is left")
    leaves_nothing()


if os.geteuid() != 0:
    tap.skip_all("the lab needs root")
tap.main(test)
