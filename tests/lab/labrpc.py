# SPDX-License-Identifier: MIT
"""Messages between the lab's processes: one JSON object a packet over SOCK_SEQPACKET Unix sockets, descriptors beside it."""
import array
import json
import os
import socket
import sys

PACKET = 131072


class LabError(Exception):
    """Something the caller is told in one line."""


def lab_dir():
    """The lab's directory, from the environment."""
    path = os.environ.get("MSOCK_LAB")
    if not path:
        raise LabError("no lab: set MSOCK_LAB to the directory that `lab up` printed")
    return path


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def listen(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(path)
    sock.listen(64)
    return sock


def send(sock, message, fds=()):
    data = json.dumps(message).encode()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary)


def receive(sock):
    """Returns (message, descriptors); (None, []) when the other side is gone."""
    fds = array.array("i")
    try:
        data, ancillary, _, _ = sock.recvmsg(PACKET, socket.CMSG_SPACE(3 * fds.itemsize))
    except ConnectionError:
        return None, []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        return None, []
    return json.loads(data), list(fds)


def call(path, message, fds=()):
    """One request, one answer."""
    try:
        sock = connect(path)
    except OSError as error:
        raise LabError(f"{os.path.basename(path)}: {error.strerror}") from error
    with sock:
        send(sock, message, fds)
        answer, _ = receive(sock)
    if answer is None:
        raise LabError(f"{os.path.basename(path)}: gone")
    if answer.get("error"):
        raise LabError(answer["error"])
    return answer


def run_remote(host, message):
    """Run a program on a host with this process's 0, 1, 2; returns its wait status, None when the host went away."""
    import signal

    path = os.path.join(lab_dir(), f"{host}.sock")
    sock = connect(path)
    if message.get("hangup"):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda got, _: send(sock, {"signal": got}))
    send(sock, message, [0, 1, 2])
    answer, _ = receive(sock)
    return None if answer is None else answer["status"]


def die(name, text, status=1):
    sys.stderr.write(f"{name}: {text}\n")
    sys.exit(status)
