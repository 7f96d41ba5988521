#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A host's init: makes the host's own mounts and addresses, then runs programs for `lab run` and `ssh` until it is killed.

usage: labhost.py DIR NAME   (in fresh namespaces; DIR/lab.json says what the lab is)
"""
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys

import labrpc

MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19
PRIVATE = ("/tmp", "/var/tmp", "/dev/shm", "/run")
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind=None, flags=0, data=None):
    encode = lambda text: None if text is None else text.encode()
    if libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def make_mounts(lab, directory):
    """Private places first hide, then the shared directories show through again at their own paths."""
    mount("none", "/", flags=MS_REC | MS_SLAVE)
    shared = [path for path in [directory] + lab["share"] if os.path.isdir(path)]
    held = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in shared]
    for path in PRIVATE:
        mount("tmpfs", path, "tmpfs", data="mode=1777" if path != "/run" else "mode=0755")
    for path, fd in zip(shared, held):
        if any(path == hidden or path.startswith(hidden + "/") for hidden in PRIVATE):
            os.makedirs(path, exist_ok=True)
            mount(f"/proc/self/fd/{fd}", path, flags=MS_BIND | MS_REC)
        os.close(fd)
    mount(os.path.join(directory, "hosts"), "/etc/hosts", flags=MS_BIND)


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


def make_network(address):
    ip("link", "set", "lo", "up")
    ip("link", "set", "eth0", "up")
    ip("address", "add", f"{address}/24", "broadcast", "+", "dev", "eth0")


class Host:
    """Children are sessions of their own; who asked for one hears its wait status on the connection."""

    def __init__(self, name, shared, listener):
        self.name = name
        self.shared = shared  # directories that are not this host's own
        self.selector = selectors.DefaultSelector()
        self.listener = listener
        self.children = {}  # pid: connection
        self.pids = {}      # connection: (pid, ends with the connection)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(wake_read, selectors.EVENT_READ, self.reap)

    def accept(self, listener):
        sock, _ = listener.accept()
        self.selector.register(sock, selectors.EVENT_READ, self.hear)

    def drop(self, sock):
        self.selector.unregister(sock)
        sock.close()

    def hear(self, sock):
        message, fds = labrpc.receive(sock)
        pid, hangup = self.pids.get(sock, (None, False))
        if message is None:
            if pid is not None:
                del self.pids[sock]
                self.children[pid] = None
                if hangup:
                    self.signal(pid, signal.SIGKILL)
            self.drop(sock)
        elif "signal" in message:
            if pid is not None:
                self.signal(pid, message["signal"])
        elif "argv" in message:
            self.spawn(sock, message, fds)
        else:
            labrpc.send(sock, self.look(message))
        for fd in fds:
            os.close(fd)

    def signal(self, pid, number):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            pass

    def spawn(self, sock, message, fds):
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.setsid()
                for number in range(3):
                    os.dup2(fds[number], number)
                os.closerange(3, 1024)
                os.umask(0o022)
                os.chdir(message.get("cwd") or "/root")
                os.execvpe(message["argv"][0], message["argv"], message["env"])
            except OSError as error:
                os.write(2, f"{message['argv'][0]}: {error.strerror}\n".encode())
            os._exit(127)
        self.children[pid] = sock
        self.pids[sock] = (pid, message.get("hangup", False))

    def reap(self, fd):
        try:
            while os.read(fd, 512):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            sock = self.children.pop(pid, None)
            if sock is not None:
                del self.pids[sock]
                try:
                    labrpc.send(sock, {"status": status})
                except OSError:
                    pass
                self.drop(sock)

    def look(self, message):
        """What a test counts: processes but for this one, files in the private places."""
        if message.get("look") == "processes":
            found = []
            for entry in sorted(os.listdir("/proc")):
                if not entry.isdigit() or int(entry) == os.getpid():
                    continue
                try:
                    with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                        text = stat.read()
                    descriptors = len(os.listdir(f"/proc/{entry}/fd"))
                except OSError:
                    continue
                name, rest = text[text.index("(") + 1: text.rindex(")")], text[text.rindex(")") + 2:]
                found.append({"pid": int(entry), "name": name, "state": rest[0], "fds": descriptors})
            return {"processes": found}
        if message.get("look") == "files":
            found = []
            for top in PRIVATE:
                for where, directories, files in os.walk(top):
                    directories[:] = [d for d in directories if os.path.join(where, d) not in self.shared]
                    found += [os.path.join(where, f) for f in files]
            return {"files": sorted(found)}
        return {"error": f"{self.name}: no such request"}

    def run(self):
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)


def main():
    directory, name = sys.argv[1:3]
    with open(os.path.join(directory, "lab.json"), encoding="utf-8") as file:
        lab = json.load(file)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    address = lab["hosts"][name]
    sys.stdin.readline()  # the keeper has put eth0 here
    make_mounts(lab, directory)
    make_network(address)
    socket.sethostname(name)
    # children get a default disposition again in spawn; ignored ones would be inherited through exec
    host = Host(name, [directory] + lab["share"], labrpc.listen(os.path.join(directory, f"{name}.sock")))
    print("ready", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    host.run()


if __name__ == "__main__":
    main()
