# SPDX-License-Identifier: MIT
"""A lab host's control group, of version 1 or 2: so many hundredths of a processor, given out 10 ms at a time.

Of any processor, or of a certain one: only then does it have one, as a host of one processor has, on which its processes
take turns. Else two of them use up the share side by side, each as much as it gets hold of.
"""
import os

ROOT = "/sys/fs/cgroup"
PERIOD_US = 10000


def _write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _descendants(pid):
    found = [pid]
    for parent in found:  # grows meanwhile
        try:
            with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        except OSError:
            continue
    return found


class Group:
    """Its processes' children are born in it."""

    def __init__(self, name, percent, processor=None):
        quota = str(percent * PERIOD_US // 100)
        kinds = ["cpu", "cpuacct"] if processor is None else ["cpu", "cpuacct", "cpuset"]
        if os.path.exists(f"{ROOT}/cgroup.controllers"):
            self.directories = [f"{ROOT}/{name}"]
            _write(f"{ROOT}/cgroup.subtree_control", "+cpu" if processor is None else "+cpu +cpuset")
        else:  # several may be one hierarchy with several names
            self.directories = list({os.path.realpath(f"{ROOT}/{kind}") + f"/{name}" for kind in kinds})
        for directory in self.directories:
            os.makedirs(directory, exist_ok=True)
            if os.path.exists(f"{directory}/cpu.max"):
                _write(f"{directory}/cpu.max", f"{quota} {PERIOD_US}")
            elif os.path.exists(f"{directory}/cpu.cfs_quota_us"):
                _write(f"{directory}/cpu.cfs_period_us", str(PERIOD_US))
                _write(f"{directory}/cpu.cfs_quota_us", quota)
            if processor is not None and os.path.exists(f"{directory}/cpuset.cpus"):
                mems = f"{os.path.dirname(directory)}/cpuset.mems"
                if os.path.exists(mems):  # version 1: none means none, not all
                    with open(mems, encoding="ascii") as file:
                        _write(f"{directory}/cpuset.mems", file.read())
                _write(f"{directory}/cpuset.cpus", processor)

    def take(self, pid):
        for child in _descendants(pid):
            for directory in self.directories:
                _write(f"{directory}/cgroup.procs", str(child))

    def remove(self):
        for directory in self.directories:
            os.rmdir(directory)
