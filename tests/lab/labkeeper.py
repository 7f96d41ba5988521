#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The lab's keeper: holds the switch (a bridge in a network namespace of its own), starts the hosts, and takes
everything away when it is told to or when its owner has ended.

usage: labkeeper.py DIR OWNER-PID   (in a fresh network namespace; DIR/lab.json says what the lab is)

Nothing outlives it: a host's init dies with it (parent-death signal), with the init all of its pid namespace, and with
the namespaces their mounts, links and addresses. Links exist only inside namespaces, so labs cannot collide.
"""
import json
import os
import select
import shutil
import signal
import subprocess
import sys

import labgroup
import labrpc

HERE = os.path.dirname(os.path.abspath(__file__))


def clock_offset(index):
    """Seconds by which a host's clocks differ; neighbours differ in both directions, monotonic and boottime by other amounts."""
    if index == 0:
        return 0, 0
    monotonic = 1000 * index if index % 2 else 500000 - 1000 * index
    return monotonic, monotonic + 77 * index


class Keeper:
    def __init__(self, directory, lab):
        self.directory = directory
        self.lab = lab
        self.hosts = {}  # name: (unshare process, init's pid, init's pidfd)
        self.groups = {}  # name: its control group

    def ip(self, *words):
        done = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise labrpc.LabError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def start(self, index, name):
        monotonic, boottime = clock_offset(index)
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid",
                "--kill-child", "--mount-proc", "--time", "--monotonic", str(monotonic), "--boottime", str(boottime),
                sys.executable, os.path.join(HERE, "labhost.py"), self.directory, name]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        init = self.init_of(process)
        self.hosts[name] = (process, init, os.pidfd_open(init))
        self.ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(init))
        self.ip("link", "set", name, "master", "switch", "up")
        process.stdin.write(b"go\n")
        process.stdin.flush()

    def init_of(self, process):
        """The child that unshare forks; it is there before long, or unshare ends with a message."""
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        poll = select.poll()
        while process.poll() is None:
            with open(children, encoding="ascii") as file:
                pids = file.read().split()
            if pids:
                # unshare's child, before and after its exec: the namespaces are made already
                return int(pids[0])
            poll.poll(2)
        raise labrpc.LabError("unshare failed")

    def up(self):
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "switch", "type", "bridge", "forward_delay", "0", "stp_state", "0")
        self.ip("link", "set", "switch", "up")
        for index, name in enumerate(self.lab["hosts"]):
            self.start(index, name)
        for name, (process, _, _) in self.hosts.items():
            if process.stdout.readline() != b"ready\n":
                raise labrpc.LabError(f"{name} did not come up")

    def off(self, name):
        process, _, init = self.hosts.pop(name)
        process.kill()  # first, so that unshare has nothing to say about its child's end
        try:
            signal.pidfd_send_signal(init, signal.SIGKILL)
        except ProcessLookupError:
            pass
        poll = select.poll()
        poll.register(init, select.POLLIN)
        poll.poll()  # an init ends after all of its pid namespace
        os.close(init)
        process.wait()
        if name in self.groups:
            self.groups.pop(name).remove()
        try:
            self.ip("link", "delete", name)
        except labrpc.LabError:
            pass  # it went with the namespace of its other end
        try:
            os.unlink(os.path.join(self.directory, f"{name}.sock"))
        except FileNotFoundError:
            pass

    def down(self, keep=False):
        for name in list(self.hosts):
            self.off(name)
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def answer(self, message):
        verb, name = message["verb"], message.get("host")
        if name is not None and name not in self.hosts:
            return {"error": f"{name}: no such host, or it is off"}
        mark = os.path.join(self.directory, f"{name}.cut")
        if verb == "off":
            self.off(name)
        elif verb == "cut":
            self.ip("link", "set", name, "nomaster")
            open(mark, "w", encoding="ascii").close()
        elif verb == "heal":
            self.ip("link", "set", name, "master", "switch")
            os.unlink(mark)
        elif verb == "shape":
            subprocess.run(["tc", "qdisc", "replace", "dev", name, "root", "tbf", "rate", message["amount"], "burst", "64kb",
                            "latency", "50ms"], check=True, stdin=subprocess.DEVNULL)
        elif verb == "quota":
            percent, _, processor = message["amount"].partition("@")
            self.groups[name] = labgroup.Group(f"{os.path.basename(self.directory)}-{name}", int(percent), processor or None)
            self.groups[name].take(self.hosts[name][1])
        elif verb == "list":
            return {"hosts": {n: init for n, (_, init, _) in self.hosts.items()}}
        elif verb != "down":
            return {"error": f"{verb}: no such request"}
        return {}

    def run(self, owner):
        listener = labrpc.listen(os.path.join(self.directory, "keeper.sock"))
        poll = select.poll()
        poll.register(owner, select.POLLIN)
        poll.register(listener, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if owner in ready:
                return
            sock, _ = listener.accept()
            with sock:
                message, _ = labrpc.receive(sock)
                if message is None:
                    continue
                try:
                    answer = self.answer(message)
                except (labrpc.LabError, OSError, subprocess.CalledProcessError) as error:
                    answer = {"error": str(error)}
                if message["verb"] == "down":
                    self.down()
                labrpc.send(sock, answer)
                if message["verb"] == "down":
                    return


def main():
    directory, owner_pid = sys.argv[1], int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with open(os.path.join(directory, "lab.json"), encoding="utf-8") as file:
        keeper = Keeper(directory, json.load(file))
    failed = False
    try:
        owner = os.pidfd_open(owner_pid)
        keeper.up()
        os.write(1, b"ready\n")
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        keeper.run(owner)
    except (labrpc.LabError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        failed = True
        sys.exit(1)
    finally:
        keeper.down(keep=failed)


if __name__ == "__main__":
    main()
