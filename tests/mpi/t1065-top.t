#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""msrank-top in a terminal: it shows hosts and ranks, and its keys move a rank; msrank-balance looks at the same job."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = 3
ROWS, COLUMNS = 40, 132


class Terminal:
    """A program on a terminal of the test's own; what it draws is put on a screen of ROWS lines."""

    def __init__(self, words, env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            os.execvpe(words[0], words, dict(env, TERM="ansi", LC_ALL="C"))
        self.screen = [[" "] * COLUMNS for _ in range(ROWS)]
        self.row = self.column = 0
        self.rest = ""

    def read(self):
        """Take what has come; False when the program has closed its end."""
        ready, _, _ = select.select([self.fd], [], [], 0.1)
        if ready:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.draw(self.rest + data.decode(errors="replace"))
        return True

    def draw(self, text):
        while text:
            match = re.match(r"\x1b\[([0-9;]*)([A-Za-z@`])", text)
            if match:
                self.control([int(n or 0) for n in match.group(1).split(";")], match.group(2))
                text = text[match.end():]
            elif text[0] == "\x1b" and len(text) < 20 and not re.match(r"\x1b[^\[]", text):
                break  # the rest of it is still to come
            elif text[0] == "\x1b":
                text = text[2:]
            else:
                self.plain(text[0])
                text = text[1:]
        self.rest = text

    def plain(self, sign):
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self.row = min(self.row + 1, ROWS - 1)
        elif sign == "\b":
            self.column = max(self.column - 1, 0)
        elif sign == "\t":
            self.column = min(self.column // 8 * 8 + 8, COLUMNS - 1)
        elif sign >= " ":
            self.screen[self.row][min(self.column, COLUMNS - 1)] = sign
            self.column += 1

    def control(self, numbers, verb):
        n = max(numbers[0], 1)
        line = self.screen[self.row]
        if verb == "H":
            self.row, self.column = min(n, ROWS) - 1, min(max(numbers[1] if len(numbers) > 1 else 1, 1), COLUMNS) - 1
        elif verb == "A":
            self.row = max(self.row - n, 0)
        elif verb == "B":
            self.row = min(self.row + n, ROWS - 1)
        elif verb == "C":
            self.column = min(self.column + n, COLUMNS - 1)
        elif verb == "D":
            self.column = max(self.column - n, 0)
        elif verb in "G`":
            self.column = min(n, COLUMNS) - 1
        elif verb == "d":
            self.row = min(n, ROWS) - 1
        elif verb == "K":
            low, high = {0: (self.column, COLUMNS), 1: (0, self.column + 1), 2: (0, COLUMNS)}[numbers[0]]
            line[low:high] = [" "] * (high - low)
        elif verb == "J":
            first = 0 if numbers[0] == 2 else self.row + 1
            if numbers[0] != 2:
                line[self.column:] = [" "] * (COLUMNS - self.column)
            for row in range(first, ROWS):
                self.screen[row] = [" "] * COLUMNS
        elif verb == "X":
            line[self.column:self.column + n] = [" "] * min(n, COLUMNS - self.column)
        elif verb == "P":
            line[self.column:] = (line[self.column + n:] + [" "] * n)[:COLUMNS - self.column]
        elif verb == "@":
            line[self.column:] = ([" "] * n + line[self.column:])[:COLUMNS - self.column]
        elif verb == "b":
            for _ in range(n):
                self.plain(line[max(self.column - 1, 0)])
        elif verb == "L":
            self.screen[self.row:] = ([[" "] * COLUMNS for _ in range(n)] + self.screen[self.row:])[:ROWS - self.row]
        elif verb == "M":
            self.screen[self.row:] = (self.screen[self.row + n:] + [[" "] * COLUMNS for _ in range(n)])[:ROWS - self.row]

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.screen)

    def shows(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text(), re.M):
            if time.monotonic() > end or not self.read():
                return False
        return True

    def keys(self, text):
        os.write(self.fd, text.encode())

    def end(self, seconds=30):
        """Its exit status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            self.read()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return "timeout"


def top(place, job):
    program = jobs.command("msrank-top")
    if not os.path.exists(program):
        tap.skip("msrank-top", "it was built without ncurses")
        return
    status, _, err = place.call([program], 20)
    tap.ok(status == 1 and "terminal" in err, "without a terminal it says so", err)
    screen = Terminal(place.prefix + [program, "--every", "0.5"], place.environment())
    tap.ok(screen.shows(r"^RANK +HOST"), "it draws", screen.text())
    for number, host in enumerate(place.hosts, 1):
        tap.ok(screen.shows(rf"^ +{number} {re.escape(host)} +1 "), f"{host} has one rank", screen.text())
    tap.ok(screen.shows(r"^0\.1 +127\.0\.0\.3 +\d+ running"), "rank 1 is on the second host", screen.text())
    tap.ok(screen.shows(r"^ +1 127.0.0.2 +1 +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +\d+ "), "hosts have figures", screen.text())
    screen.keys("jm127.0.0.4\n")
    tap.ok(screen.shows(r"^0\.1 +127\.0\.0\.4 +\d+ running .* 1$"), "keys move rank 1 to a host by its name", screen.text())
    tap.ok(screen.shows(r"^0\.1 127\.0\.0\.3 -> 127\.0\.0\.4 moved"), "the move is shown", screen.text())
    tap.ok(screen.shows(r"^rank 0\.1: 127\.0\.0\.3 -> 127\.0\.0\.4 +freeze"), "and what msrank-move said", screen.text())
    screen.keys("m2\n")
    tap.ok(screen.shows(r"^0\.1 +127\.0\.0\.3 +\d+ running .* 2$"), "and to one by its number", screen.text())
    tap.ok(screen.shows(r"^rank 0\.1: 127\.0\.0\.4 -> 127\.0\.0\.3 +freeze"), "and back it is", screen.text())
    screen.keys("mno-such-host.invalid\n")
    tap.ok(screen.shows(r"^msrank-move: .*no-such-host"), "a refusal is shown", screen.text())
    screen.keys("e1\n")
    tap.ok(screen.shows(r"^ +1 127\.0\.0\.2 +0 "), "a host is emptied", screen.text())
    screen.keys("q")
    tap.equal(screen.end(), 0, "q ends it")
    tap.ok(job.ps()[1]["moves"] >= 2, "the job has seen the moves", job.ps())


def balance(place):
    """127.0.0.N are one machine: nothing is to be gained, and it says so."""
    run = lambda *words: place.call([jobs.command("msrank-balance"), *words], 60)
    status, out, err = run("--once", "--watch", "4")
    tap.ok(status == 0 and out == "stay: no rank can move to another machine now\n" and not err, "one machine is left as it is",
           f"{status} {out} {err}")
    status, out, err = run("--policy", "none")
    tap.ok(status == 2 and "greedy, refine, comm" in err, "a policy that does not exist is refused", err)
    status, out, err = run("no-such-job")
    tap.ok(status == 1 and err.count("\n") == 1 and "no-such-job" in err, "and a job that does not exist", err)


def test():
    for place in jobs.places(jobs.User):
        job = jobs.Job(place, [jobs.program("heat2d"), "256", "1000000"], RANKS)
        if tap.ok(job.wait_line("^heat2d:"), "the job runs", job.story()):
            top(place, job)
            balance(place)
        job.child.send_signal(15)
        job.wait()
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
