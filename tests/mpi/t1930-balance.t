#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The balancer against the best placement that does not change, on hosts of unequal speed with a foreign program on one.

Four lab hosts have 100, 50, 25 and 25 % of a processor (control groups), the first has this machine's first processor to
itself, the others share the second; from a third of the run on somebody else's program runs on the first. A stencil (heat2d) and a code whose ranks have unequal work (particles), 8 ranks each:

- unbalanced: two ranks a host, to the end;
- best: of all placements that do not change, up to what is equal (hosts, ranks of equal work), the foreign program
  included. One whose ranks cannot get their processor time within the best time so far is not run, and none runs longer;
- balanced: begins as the unbalanced one, with msrank-balance --every 4.

Then a balanced job in which nothing must be moved for MSOCK_TEST_QUIET seconds (600). Wants a machine of two processors
that does nothing else, and an hour; MSOCK_TEST_WORK scales it (100: some 100 s for a balanced run). MSOCK_TEST_CELL: only
what matches of stencil, particles, rests.
"""
import collections
import itertools
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

SHARES = [100, 50, 25, 25]
RANKS = 8
WORK = tap.number("WORK", 100)
QUIET = tap.number("QUIET", 600)
EVERY = 4
SURE = 0.85  # of the processor time that was counted: waiting ranks spin a little before they sleep
TICK = os.sysconf("SC_CLK_TCK")
HOG = "while True: pass"
HOG_FROM = 3  # of ten marks
ONLY = os.environ.get("MSOCK_TEST_CELL", "")


class Code:
    """A program, its arguments, and which of its ranks have the same work."""

    def __init__(self, name, words, alike):
        self.name, self.words, self.alike = name, [jobs.program(words[0]), *words[1:]], alike

    def placements(self):
        """Hosts by rank; equal ranks and the last two hosts, which are equal, are not told apart."""
        groups = [[r for r in range(RANKS) if self.alike[r] == kind] for kind in sorted(set(self.alike))]
        seen = set()
        for choice in itertools.product(*(itertools.combinations_with_replacement(range(len(SHARES)), len(g)) for g in groups)):
            counts = [tuple(collections.Counter(hosts)[h] for h in range(len(SHARES))) for hosts in choice]
            mirrored = [(*c[:2], c[3], c[2]) for c in counts]
            if tuple(mirrored) in seen:
                continue
            seen.add(tuple(counts))
            home = [0] * RANKS
            for group, hosts in zip(groups, choice):
                for rank, host in zip(group, hosts):
                    home[rank] = host
            yield home


def codes():
    return [Code("stencil", ["heat2d", "2000", str(300 * WORK)], [0] * RANKS),
            Code("particles", ["particles", str(150 * WORK), "1000", *"8 1 1 1 8 1 1 1".split()], [1, 0, 0, 0, 1, 0, 0, 0])]


def processor_s(word):
    """Seconds of processor time by rank so far; a rank is a process of this program. Ranks stand in PMI_RANK."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                if not entry.isdigit() or file.read().strip() != word:
                    continue
            with open(f"/proc/{entry}/environ", "rb") as file:
                rank = re.search(rb"PMI_RANK=(\d+)", file.read())
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if rank:
            found[int(rank.group(1))] = (int(fields[11]) + int(fields[12])) / TICK
    return found


class Run:
    """One run on given hosts by rank, with the foreign program from the third of ten marks on."""

    def __init__(self, place, code, home, hog=True):
        self.place, self.code = place, code
        with open(place.hostfile, "w", encoding="ascii") as file:
            file.write("".join(f"{place.hosts[host]}\n" for host in home))
        self.job = jobs.Job(place, code.words, RANKS, seconds=3600)
        self.hog, self.hogs = None, hog
        self.seconds = self.moves = None
        self.used = {}

    def marks(self, number, limit):
        return self.job.wait_line(r"^step ", limit, number)

    def finish(self, most=3600, before_end=lambda: None):
        """Seconds from its first line to its checksum; None if that is not there after so many."""
        tap_ok = self.job.wait_line(r"ranks$", 120)
        start = time.monotonic()
        left = lambda: max(0.1, start + most - time.monotonic())
        try:
            if not tap_ok:
                raise RuntimeError(self.job.story())
            if self.marks(HOG_FROM, left()) and self.hogs:
                self.hog = self.place.start_on(self.place.hosts[0], [sys.executable, "-c", HOG])
            if self.marks(9, left()):
                self.used = processor_s(os.path.basename(self.code.words[0]))
                before_end()
                if self.job.wait_line(r"^checksum ", left()):
                    self.seconds = time.monotonic() - start
        finally:
            if self.hog:
                jobs.end_group(self.hog)
            if self.seconds is None:
                self.job.interrupt()
            self.job.wait()
        return self.seconds


class Unequal(jobs.Lab):
    """The lab with the shares; a file names the host of each rank."""

    def __init__(self):
        super().__init__(len(SHARES))
        self.hostfile = os.path.join(self.shared, "hosts")
        for host, share in zip(self.hosts, SHARES):
            self.lab("quota", host, f"{share}@{int(host != self.hosts[0])}")

    def mpiexec(self, ranks, launcher="msock", hosts=None):
        return [jobs.command("mpiexec"), "-launcher", launcher, *self.mpiexec_options, "-f", self.hostfile, "-n", str(ranks)]

    def start_on(self, host, words):
        prefix, self.prefix = self.prefix, [jobs.LAB, "run", host]
        try:
            return self.start(words)
        finally:
            self.prefix = prefix


def least(work, home):
    """No run can be quicker: each host has to do its ranks' work with its share, of which the foreign program takes its part."""
    times = []
    for host, share in enumerate(SHARES):
        here = [work[r] for r in range(RANKS) if home[r] == host]
        others = HOG_FROM / 10 + (1 - HOG_FROM / 10) * (len(here) + 1) / len(here) if host == 0 and here else 1
        times.append(sum(here) / (share / 100) * others)
    return max(times)


def best_static(place, code, work, longest):
    """(seconds, placement) of the quickest, and how many were run of how many."""
    best, at, run, every = longest, None, 0, sorted(code.placements(), key=lambda home: least(work, home))
    for home in every:
        if SURE * least(work, home) >= best:
            break
        run += 1
        seconds = Run(place, code, home).finish(best)
        tap.note(f"{code.name} {home}: at least {least(work, home):.1f} s, " + (f"{seconds:.1f} s" if seconds else "slower"))
        if seconds:
            best, at = seconds, home
    return best, at, run, len(every)


def balanced(place, code, home):
    run = Run(place, code, home)
    run.job.wait_line(r"ranks$", 120)
    balancer = balance(place)
    seconds = run.finish()
    balancer.wait(60)
    with open(log(place), encoding="utf-8") as file:
        for line in file:
            tap.note(line.rstrip())
    return seconds, moves_in(place)


def balance(place):
    with open(log(place), "w", encoding="utf-8") as file:
        return place.start([jobs.command("msrank-balance"), "--every", str(EVERY)], stdout=file, stderr=file)


def log(place):
    return os.path.join(place.shared, "balancer")


def moves_in(place):
    with open(log(place), encoding="utf-8") as file:
        return sum(1 for line in file if line.startswith("move "))


def compare(place, code):
    home = [r * len(SHARES) // RANKS for r in range(RANKS)]
    first = Run(place, code, home)
    unbalanced = first.finish()
    if not tap.ok(unbalanced and len(first.used) == RANKS, f"{code.name}: unbalanced run", first.job.story()):
        return
    work = [first.used[r] * 10 / 9 for r in range(RANKS)]
    tap.note(f"{code.name}: processor time by rank {' '.join(f'{w:.1f}' for w in work)} s; unbalanced {unbalanced:.1f} s")
    seconds, moves = balanced(place, code, home)
    best, at, run, every = best_static(place, code, work, unbalanced)
    tap.note(f"{code.name}: unbalanced {unbalanced:.1f} s, best of {every} placements ({run} run) {best:.1f} s {at}, "
             f"balanced {seconds:.1f} s with {moves} moves")
    tap.ok(seconds <= 1.15 * best, f"{code.name}: at most 1.15 of the best placement's time", f"{seconds} {best}")
    tap.ok(seconds <= 0.7 * unbalanced, f"{code.name}: at most 0.7 of the unbalanced time", f"{seconds} {unbalanced}")


def rests(place, code):
    """A job that is placed as its hosts can bear it: nothing moves."""
    home = [0, 0, 0, 0, 1, 1, 2, 3]
    run = Run(place, code, home, hog=False)
    run.job.wait_line(r"ranks$", 120)
    balancer = balance(place)
    ended = run.job.wait_output(QUIET)
    tap.ok(not ended, f"a balanced job runs for {QUIET} s", run.job.story())
    tap.equal(moves_in(place), 0, "and nothing was moved")
    run.job.interrupt()
    run.job.wait()
    balancer.wait(60)


def test():
    for place in jobs.places(Unequal):
        for code in codes():
            if re.search(ONLY, code.name):
                compare(place, code)
        if re.search(ONLY, "rests"):
            rests(place, Code("stencil", ["heat2d", "2000", "100000000"], [0] * RANKS))
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
