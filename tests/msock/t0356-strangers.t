#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Unmodified programs talk and are moved while a stranger scans their hosts and calls 1,000 times on every port that the job
listens on (coordinator, address server, daemons, members, mirrors): the streams and moves go on, a few lines in the log are all.
"""
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import programs  # noqa: E402
import strangers  # noqa: E402
from programs import HOSTS, Member, address, launch, tap  # noqa: E402

CALLS = 1000  # to each port
WAYS = ("threads", "epoll")
HELPERS = ("msdaemon", "msmaster", "msrank-coord")
LINE = re.compile(r"^(msdaemon|msmaster|msrank-coord): (a caller from .* was turned away|somebody called for an image|"
                  r"too many callers that have proved nothing|\d+ lines like)")
random = tap.seed()


def ports():
    return {port: pid for pid in launch.children() for port in launch.listening(pid)}


def helpers():
    return {pid: name for name in HELPERS for pid in launch.named(name)}


def descriptors():
    return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in helpers()}


class Talker(Member):
    """One end of a stream that checks all it reads (talk.c)."""

    def counts(self):
        """Bytes written and read so far."""
        self.process.send_signal(signal.SIGUSR2)
        word, *numbers = self.line().split() or ["end of output"]
        assert word == "at", (word, self.complaints())
        return [int(number) for number in numbers]

    def flows(self):
        before = self.counts()
        return tap.until(lambda: all(now > then for now, then in zip(self.counts(), before)), launch.LIMIT_S, 0.02)

    def finish(self):
        self.process.send_signal(signal.SIGUSR1)


def streams():
    """Two of them, each between two members of the job that 0 holds."""
    talk, ends = launch.program("tests/msock/talk"), []
    for number, way in enumerate(WAYS):
        port = str(8000 + number)
        for words in (["listen", port], ["connect", address(2 * number + 1), port]):
            end = Talker("strangers", len(ends) + 1, [talk, *words, way, str(len(ends))])
            if words[0] == "listen":
                tap.equal(end.line(), "listening", f"{way}: a listener")
            ends.append(end)
        tap.equal([end.line().split()[0] for end in ends[-2:]], ["accepted", "connected"], f"{way}: a stream")
    return ends


def test():
    holder = Member("strangers", 0, ["cat"], stdin=subprocess.PIPE)
    tap.ok(holder.is_member(), "a job")
    ends = streams()
    began, before, first = time.monotonic(), descriptors(), ports()
    kinds = {name: sum(pid in first.values() for pid in launch.named(name)) for name in HELPERS}
    tap.equal(kinds, {"msdaemon": len(HOSTS), "msmaster": 1, "msrank-coord": 1}, "coordinator, address server and daemons listen")
    tap.ok(all(any(pid in first.values() for pid in launch.named("talk")) for _ in ends), "and so do the members")
    stranger = strangers.Stranger(random, ports, len(ends), CALLS)
    stranger.start()
    programs.move_all("while strangers call", ends, lambda: all(end.flows() for end in ends))
    found = {(host, port) for host in HOSTS for port in strangers.scan(host)}
    known = {port for port in ports() if port[0] in HOSTS}
    tap.ok(known and known <= found, "a scan finds what is there", (known, found))
    stranger.join()
    last = ports()
    tap.equal(sorted(set(last) - set(stranger.full())), [], f"{CALLS} calls on every port")
    tap.equal([end.move()[0] for end in ends] + [end.flows() for end in ends], [0] * 4 + [True] * 4, "they move and talk afterwards")
    # who has moved in brings some along
    grown = lambda: {helpers()[pid]: (before.get(pid), n) for pid, n in descriptors().items() if n > before.get(pid, n) + 12 * len(ends)}
    tap.ok(tap.until(lambda: not grown(), 10), "no descriptor of the stranger's is left", grown())
    for end in ends:
        end.finish()
    results = [end.wait() for end in ends]
    done = [[int(word) for word in out.split()[-2:]] if status == 0 else (status, out) for status, out in results]
    tap.ok(all(done[i] == done[i + 1][::-1] and done[i][0] for i in (0, 2)), "both ends of each stream read what the other wrote", done)
    holder.process.stdin.close()
    tap.equal(holder.process.wait(launch.LIMIT_S), 0, "the job ends")
    seconds, lines = time.monotonic() - began, [line for end in (holder, *ends) for line in end.complaints().splitlines()]
    tap.note(f"{sum(stranger.calls.values())} calls to {len(stranger.calls)} ports, {stranger.refused} refused; "
             f"{len(lines)} lines of log in {seconds:.0f} s")
    tap.equal([line for line in lines if not LINE.match(line)], [], "nothing on stderr but that callers were turned away")
    limit = 4 * len(stranger.calls) * (2 + seconds / 10)
    tap.ok(0 < len(lines) <= limit, f"in not more than {limit:.0f} lines", len(lines))
    tap.ok(tap.until(lambda: not launch.children(), 10), "nothing is left", launch.children())


tap.main(test)
programs.close()
