#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""24 hours compressed: thousands of moves in one job, after which no process of it holds more than before them.

16 ranks talk all the time, each with each, and in collectives. When each rank has been moved some times, the descriptors and
the private memory of every process of the job are counted; then come the moves; then they are counted again. Settings:
MSOCK_TEST_RANKS, MSOCK_TEST_MOVES (5,000 in check-long), MSOCK_TEST_WARM (moves before the first count).
"""
import collections
import os
import random
import re
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

RANKS = tap.number("RANKS", 16)
MOVES = tap.number("MOVES", 5000)
WARM = tap.number("WARM", 60 * RANKS)  # buffers are as large then as four moves at once make them
WORKERS = 4
LIMIT_S = 4 * 3600
SETTLE_S = 10
# What a level may have more at the end: an allocator's arenas fill up in the first thousands of moves. A block of 100 bytes
# lost in each of 5,000 moves would be 500 kB.
GROWTH_KB = 400
LEVELS = ("mpiexec", "hydra_pmi_proxy", "msrank-stub", "msrank-coord", "msmaster", "msdaemon", "msmirror", "campaign", "msrestore")


def level(pid):
    """What a process is; "other" for what belongs to no job."""
    words = jobs.describe(pid).split()
    name = os.path.basename(words[0]) if words else "gone"
    return name if name in LEVELS else "other"


def private_kb(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Dirty", "Swap:")))


def census():
    """{level: (processes, descriptors, private kB)}, sums: a daemon has some of both for each rank that is on its host."""
    found = collections.defaultdict(list)
    for pid in jobs.descendants():
        try:
            found[level(pid)].append((len(os.listdir(f"/proc/{pid}/fd")), private_kb(pid)))
        except OSError:  # it has ended meanwhile
            continue
    return {name: (len(list_), sum(fds for fds, _ in list_), sum(kb for _, kb in list_)) for name, list_ in found.items()}


def settled():
    """The census when no move is under way: mirrors and left processes have gone."""
    end = time.monotonic() + SETTLE_S
    best = census()
    while time.monotonic() < end:
        time.sleep(0.5)
        now = census()
        best = {name: tuple(map(min, best[name], now[name])) for name in now if name in best}
    return best


class Campaign:
    """Moves of idle ranks, some at a time, until there were as many as wanted."""

    def __init__(self, job, rng):
        self.job, self.rng, self.lock = job, rng, threading.Lock()
        self.where = {rank: entry["host"] for rank, entry in job.ps().items()}
        self.busy, self.failures = set(), []
        self.left = self.done = 0
        self.freezes = []

    def choose(self):
        with self.lock:
            idle = sorted(set(self.where) - self.busy)
            if self.left == 0 or not idle or len(self.failures) > 5:
                return None
            self.left -= 1
            rank = self.rng.choice(idle)
            self.busy.add(rank)
            return rank, self.rng.choice([host for host in self.job.place.hosts if host != self.where[rank]]), self.rng.choice(
                ("auto", "drain", "mirror"))

    def worker(self):
        while True:
            chosen = self.choose()
            if not chosen:
                return
            rank, host, via = chosen
            status, reports, err = self.job.move(rank, host, "--via", via, "--timeout", "60")
            with self.lock:
                self.busy.discard(rank)
                if status == 0 and reports and reports[0]["committed"]:
                    self.where[rank] = host
                    self.done += 1
                    self.freezes.append(reports[0]["freeze_ms"])
                else:
                    self.failures.append(f"rank {rank} to {host} via {via}: {status} {reports} {err.strip()}")

    def run(self, moves):
        self.left, self.done = moves, 0
        threads = [threading.Thread(target=self.worker) for _ in range(min(WORKERS, RANKS - 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.done


def compare(before, after):
    for name in sorted(set(before) | set(after)):
        tap.note(f"{name}: before {before.get(name)}, after {after.get(name)} (processes, descriptors, private kB)")
    names = sorted(set(before) & set(after) - {"other"})
    tap.equal({name: after[name][0] for name in names}, {name: before[name][0] for name in names}, "as many processes of each kind")
    tap.equal(sorted(set(after) - set(before)), [], "and no others: no mirror, no restorer")
    for index, most, what in ((1, 0, "descriptors"), (2, GROWTH_KB, "memory")):
        more = {name: (before[name][index], after[name][index]) for name in names if after[name][index] - before[name][index] > most}
        tap.equal(more, {}, f"no kind of process holds more {what}")


def test():
    rng = tap.seed()
    for place in jobs.places(jobs.User):
        stop = os.path.join(place.shared, "stop")
        job = jobs.Job(place, [jobs.program("campaign"), stop], RANKS, seconds=LIMIT_S)
        tap.ok(job.wait_line("^going$", 120), "they talk", job.story())
        campaign = Campaign(job, random.Random(rng.random()))
        tap.equal(campaign.run(WARM), WARM, f"{WARM} moves first")
        before = settled()
        started = time.monotonic()
        done = campaign.run(MOVES)
        tap.ok(done == MOVES, f"{MOVES} moves", "\n".join([str(done), *campaign.failures, job.story()]))
        tap.note(f"in {time.monotonic() - started:.0f} s; freeze median {sorted(campaign.freezes)[len(campaign.freezes) // 2]:.1f} ms")
        compare(before, settled())
        open(stop, "w", encoding="ascii").close()
        jobs.job_ended(job, job.wait())
        tap.note(" ".join(line for line in job.out if re.match("rounds ", line)))
        tap.equal((job.err, place.leftovers()), ([], []), "nothing on stderr, nothing left")


tap.main(test)
