# SPDX-License-Identifier: MIT
"""Labs that are clusters: each host runs a real sshd, or Slurm's daemons; and the life of a job there.

The hosts are namespaces of tests/lab, so the daemons have the hosts' own addresses and usual ports; keys, spools and
logs lie in the lab's directory and go with it.
"""
import json
import os
import shutil
import subprocess
import time

import jobs
import tap

RANKS, BYTES = 16, 65536


def missing(*programs):
    """Those that are not installed; sbin counts, whatever PATH says."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in programs if not shutil.which(name, path=path)]


class Cluster(jobs.Lab):
    """A lab with services on its hosts, which are not counted as left over."""

    def __init__(self, count):
        self.services = []  # Popen objects of `lab run`
        self.extra = {}     # environment of all commands
        super().__init__(count)
        self.etc = os.path.join(self.shared, "etc")
        os.mkdir(self.etc)

    def environment(self):
        return dict(super().environment(), **self.extra)

    def file(self, name, text, mode=0o644):
        path = os.path.join(self.etc, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def serve(self, host, script, *words, until=None):
        """Run a service on a host by sh -c; with a pattern, wait for the line on its stderr that has it."""
        child = subprocess.Popen([jobs.LAB, "run", host, "/bin/sh", "-c", script, *words], env=self.environment(),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
                                 stderr=subprocess.PIPE if until else subprocess.DEVNULL)
        self.services.append(child)
        said = []
        for line in child.stderr if until else ():
            said.append(line)
            if until in line:
                return
        if until:
            raise RuntimeError(f"{host}: {script} has ended: {''.join(said[-3:])}")

    def state(self):
        """Processes by number and name only: the state and the descriptors of a service change."""
        found = super().state()
        return [" ".join(line.split()[:4]) if ": process " in line else line for line in found]

    def close(self):
        super().close()
        for child in self.services:
            child.wait(10)
            if child.stderr:
                child.stderr.close()


class SshLab(Cluster):
    """Hosts that mpiexec reaches by OpenSSH, with keys made for this lab."""
    name = "lab with OpenSSH"
    mpiexec_options = []
    needs = ("ssh", "sshd", "ssh-keygen")

    def __init__(self, count):
        super().__init__(count)
        for key in ("user", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", os.path.join(self.etc, key)],
                           check=True, stdin=subprocess.DEVNULL)
        with open(os.path.join(self.etc, "host.pub"), encoding="ascii") as file:
            public = " ".join(file.read().split()[:2])
        self.file("known_hosts", "".join(f"{host} {public}\n" for host in self.hosts))
        server = self.file("sshd_config", f"HostKey {self.etc}/host\nAuthorizedKeysFile {self.etc}/user.pub\nUsePAM no\n"
                           "PidFile none\nStrictModes no\nPasswordAuthentication no\nMaxStartups 100\n"
                           f"SetEnv HOME={self.etc}\n") # whatever its user's shell would run first
        client = self.file("ssh_config", f"IdentityFile {self.etc}/user\nUserKnownHostsFile {self.etc}/known_hosts\n"
                           "IdentitiesOnly yes\nStrictHostKeyChecking yes\nBatchMode yes\nConnectTimeout 5\n")
        self.extra["HYDRA_LAUNCHER_EXTRA_ARGS"] = f"-F {client}"
        for host in self.hosts:
            self.serve(host, 'mkdir -p /run/sshd && exec "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$0"', server,
                       until="Server listening on 0.0.0.0")
        self.before = self.state()

    def login(self, host, *words):
        return self.call(["ssh", "-F", os.path.join(self.etc, "ssh_config"), host, *words])


CONF = """ClusterName=lab
SlurmctldHost=h0
SlurmUser=root
SlurmdUser=root
StateSaveLocation={etc}/state
SlurmdSpoolDir={etc}/spool.%n
SlurmctldPidFile={etc}/slurmctld.pid
SlurmdPidFile={etc}/slurmd.%n.pid
SlurmctldLogFile={etc}/slurmctld.log
SlurmdLogFile={etc}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=1
NodeName=h[1-{count}] CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=h[1-{count}] Default=YES MaxTime=INFINITE State=UP
"""


class SlurmLab(Cluster):
    """A Slurm cluster: controller on h0, where jobs are submitted, a slurmd on each other host; munge on all."""
    name = "lab with Slurm"
    mpiexec_options = []
    needs = ("munged", "slurmctld", "slurmd", "salloc", "srun", "scontrol", "sinfo")

    def __init__(self, count, nodes):
        super().__init__(count)
        self.nodes = nodes
        conf = self.file("slurm.conf", CONF.format(etc=self.etc, count=count))
        os.mkdir(os.path.join(self.etc, "state"))
        key = os.path.join(self.etc, "munge.key")
        with open(key, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(os.urandom(128))
        self.extra["SLURM_CONF"] = conf
        for host in ["h0"] + self.hosts:
            self.check([jobs.LAB, "run", host, "/bin/sh", "-c", "mkdir -p /run/munge && cd /run/munge && exec munged --force"
                        f" --key-file={key} --pid-file=$PWD/pid --log-file=$PWD/log --seed-file=$PWD/seed"])
        self.serve("h0", "exec slurmctld -D", until="Running as primary controller")
        for host in self.hosts:
            self.serve(host, "exec slurmd -D -N $0", host, until="slurmd started on")
        if not tap.until(lambda: self.states() == {host: "idle" for host in self.hosts}, 20, 0.1):
            raise RuntimeError(f"Slurm's nodes do not come up: {self.states()}")
        self.before = self.state()

    def check(self, words):
        subprocess.run(words, env=self.environment(), stdin=subprocess.DEVNULL, check=True, timeout=30, stdout=subprocess.DEVNULL)

    def states(self):
        _, out, _ = self.call(["sinfo", "--noheader", "--Node", "--format", "%N %T"])
        return dict(line.split() for line in out.splitlines())

    def mpiexec(self, ranks, launcher="msock", hosts=None):
        """In an allocation of its own, and it is not told of any host."""
        return ["salloc", "--quiet", "--no-kill", f"--nodes={self.nodes}", f"--ntasks={ranks}", "--distribution=block",
                jobs.command("mpiexec"), "-launcher", launcher, "-n", str(ranks)]


def rounds(job):
    """The last round that each rank has told of."""
    last = {}
    for line in list(job.out):
        if line.startswith("rank ") and line.endswith(" right"):
            last[int(line[5:line.index(":")])] = int(line.split()[3])
    return last


def goes_on(job, what, more=3):
    """Every rank gets some rounds further."""
    seen = rounds(job)
    done = tap.until(lambda: all(rounds(job).get(rank, 0) >= seen.get(rank, 0) + more for rank in range(RANKS)), 60)
    return tap.ok(done, f"{what}: every rank goes on", f"{seen}\n{rounds(job)}\n{job.story()}")


def on_host(job, host):
    return sorted(rank for rank, entry in job.ps().items() if entry["host"] == host and entry["state"] != "ended")


def begin(place, hosts=None):
    job = jobs.Job(place, [jobs.program("exchange"), str(BYTES), os.path.join(place.shared, "stop")], RANKS, hosts=hosts)
    started = tap.until(lambda: len(rounds(job)) == RANKS or job.child.poll() is not None, 60)
    tap.ok(started and len(rounds(job)) == RANKS, f"{place.name}: {RANKS} ranks run", job.story())
    tap.note(f"first round of all after {time.monotonic() - job.started:.2f} s")
    return job


def move(job, rank, host):
    status, reports, err = job.move(rank, host)
    if tap.ok(status == 0 and len(reports) == 1 and reports[0]["committed"], f"rank {rank} moves to {host}", f"{status} {reports} {err}"):
        tap.note(jobs.report_line(reports[0]))
    tap.equal(job.where(rank), host, f"and is on {host}")


def evacuate(job, host, *more):
    """All ranks of a host leave it."""
    ranks = on_host(job, host)
    started = time.monotonic()
    status, out, err = job.place.call([jobs.command("msrank-move"), "--json", "--evacuate", host, *more], 120)
    reports = [json.loads(line) for line in out.splitlines()]
    tap.equal((status, sorted(report["rank"] for report in reports), err), (0, ranks, ""), f"{host} is evacuated")
    tap.ok(ranks, f"{host} had ranks")
    tap.note(f"{len(reports)} ranks left {host} in {time.monotonic() - started:.2f} s")
    tap.equal(on_host(job, host), [], f"no rank is on {host}")


def end(job):
    """The job ends by itself and its sum is right."""
    with open(os.path.join(job.place.shared, "stop"), "w", encoding="ascii"):
        pass
    jobs.job_ended(job, job.wait())
    last = rounds(job)
    tap.equal(sorted(set(last.values())), [max(last.values())], "all ranks made the same number of rounds")
    text = f"exchanged {RANKS * 2 * BYTES * max(last.values())} bytes in {max(last.values())} rounds"
    tap.equal([line for line in job.out if line.startswith("exchanged")], [text], "and the result is right")
    tap.equal(job.place.leftovers(), [], "nothing is left")
