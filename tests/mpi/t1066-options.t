#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""mpiexec's options with the launcher msock: the table of doc/mpiexec.md names each of them, and what it says is true."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jobs  # noqa: E402
import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
SHOW = ["sh", "-c", 'echo "rank=$PMI_RANK A=$A_SET B=$B_SET dir=$PWD"']


def lines(text):
    return sorted(text.splitlines())


def every_rank(count):
    return lambda out, err: sum(1 for line in out.splitlines() if "rank=" in line) == count


# For each option: words for mpiexec ({dir} is a directory of the test's own), what the output must be or the file that must
# hold "x", the exit status.
PROBES = {
    "-enable-x": (["-enable-x", "-n", "1", *SHOW], every_rank(1), 0),
    "-disable-x": (["-disable-x", "-n", "1", *SHOW], every_rank(1), 0),
    "-genv": (["-genv", "A_SET", "one", "-n", "1", *SHOW], lambda out, err: "A=one" in out, 0),
    "-genvlist": (["-genvlist", "B_SET,PATH", "-n", "1", *SHOW], lambda out, err: "A=from-outside B=from-outside" in out, 0),
    "-genvnone": (["-genvnone", "-genv", "PATH", os.environ["PATH"], "-n", "1", *SHOW], lambda out, err: "A=from-outside B=from-outside" in out, 0),
    "-genvall": (["-genvall", "-n", "1", *SHOW], lambda out, err: "A=from-outside B=from-outside" in out, 0),
    "-env": (["-n", "1", "-env", "A_SET", "first", *SHOW, ":", "-n", "1", "-env", "A_SET", "second", *SHOW],
             lambda out, err: "rank=0 A=first" in out and "rank=1 A=second" in out, 0),
    "-envlist": (["-n", "1", "-envlist", "B_SET,PATH", *SHOW], lambda out, err: "A=from-outside B=from-outside" in out, 0),
    "-envnone": (["-n", "1", "-envnone", "-env", "PATH", os.environ["PATH"], *SHOW], lambda out, err: "A=from-outside B=from-outside" in out, 0),
    "-envall": (["-n", "1", "-envall", *SHOW], lambda out, err: "A=from-outside" in out, 0),
    "-f": (["-f", "{dir}/hosts", "-n", "3", *SHOW], every_rank(3), 0),
    "-hosts": (["-n", "3", *SHOW], every_rank(3), 0),
    "-wdir": (["-wdir", "{dir}", "-n", "1", *SHOW], lambda out, err: "dir={dir}" in out, 0),
    "-configfile": (["-configfile", "{dir}/config"], lambda out, err: lines(out) == ["one", "two", "two"], 0),
    "-n": (["-n", "2", *SHOW], every_rank(2), 0),
    "-np": (["-np", "2", *SHOW], every_rank(2), 0),
    "-launcher": (["-n", "1", *SHOW], every_rank(1), 0),
    "-launcher-exec": (["-launcher-exec", "/nonexistent/ssh", "-n", "1", *SHOW], every_rank(1), 0),
    "-rmk": (["-rmk", "user", "-n", "1", *SHOW], every_rank(1), 0),
    "-topolib": (["-topolib", "hwloc", "-n", "1", *SHOW], every_rank(1), 0),
    "-bind-to": (["-bind-to", "hwthread:1", "-n", "1", "sh", "-c", "grep Cpus_allowed_list /proc/self/status"],
                 lambda out, err: re.fullmatch(r"Cpus_allowed_list:\t\d+\n", out), 0),
    "-map-by": (["-bind-to", "core", "-map-by", "core", "-ppn", "2", "-n", "2", *SHOW], every_rank(2), 0),
    "-demux": (["-demux", "select", "-n", "2", *SHOW], every_rank(2), 0),
    "-verbose": (["-verbose", "-n", "1", *SHOW], lambda out, err: "rank=0" in out and "Launch arguments" in out + err, 0),
    "-info": (["-info"], lambda out, err: "HYDRA build details" in out and "msock" in out, 0),
    "-print-all-exitcodes": (["-print-all-exitcodes", "-n", "2", "sh", "-c", "exit 0"], lambda out, err: "0,0" in out.replace(" ", "")
                             or out.count("0") >= 2, 0),
    "-iface": (["-iface", "lo", "-n", "1", *SHOW], every_rank(1), 0),
    "-ppn": (["-ppn", "2", "-n", "4", *SHOW], every_rank(4), 0),
    "-profile": (["-profile", "-n", "1", *SHOW], None, None),
    "-prepend-rank": (["-prepend-rank", "-n", "2", "echo", "x"], lambda out, err: lines(out) == ["[0] x", "[1] x"], 0),
    "-prepend-pattern": (["-prepend-pattern", "<%r>", "-n", "2", "echo", "x"], lambda out, err: lines(out) == ["<0>x", "<1>x"], 0),
    "-outfile-pattern": (["-outfile-pattern", "{dir}/out.%r", "-n", "2", "echo", "x"],
                         "out.1", 0),
    "-errfile-pattern": (["-errfile-pattern", "{dir}/err.%r", "-n", "2", "sh", "-c", "echo x >&2"],
                         "err.1", 0),
    "-nameserver": (["-nameserver", "127.0.0.1:1", "-n", "1", *SHOW], every_rank(1), 0),
    "-disable-auto-cleanup": (["-disable-auto-cleanup", "-n", "2", *SHOW], every_rank(2), 0),
    "-disable-hostname-propagation": (["-disable-hostname-propagation", "-n", "2", *SHOW], every_rank(2), 0),
    "-order-nodes": (["-order-nodes", "DESCENDING", "-n", "3", *SHOW], every_rank(3), 0),
    "-localhost": (["-localhost", "127.0.0.1", "-n", "2", *SHOW], every_rank(2), 0),
    "-usize": (["-usize", "7", "-n", "1", *SHOW], every_rank(1), 0),
    "-pmi-port": (["-pmi-port", "-n", "2", "HEAT2D", "64", "10"], lambda out, err: "checksum" in out, 0),
    "-skip-launch-node": (["-skip-launch-node", "-n", "2", *SHOW], every_rank(2), 0),
    "-balance": (["-balance", "10s:comm", "-n", "1", *SHOW], every_rank(1), 0),
    "-gpus-per-proc": (["-gpus-per-proc", "0", "-n", "1", *SHOW], every_rank(1), 0),
}


def table():
    """Option to state, from the document."""
    found = {}
    with open(os.path.join(jobs.TOP, "doc", "mpiexec.md"), encoding="utf-8") as file:
        for line in file:
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) >= 5 and cells[1].startswith("`-"):
                found.update({option: cells[2] for option in re.findall(r"`(-[a-z-]+)`", cells[1])})
    return found


def documented(place):
    _, out, _ = place.call([jobs.command("mpiexec"), "-help"], 20)
    found = set()
    for line in out.split("Global options")[1].splitlines():
        match = re.match(r"    (-[a-z-]+(?:/-[a-z-]+)*)", line)
        found.update(match.group(1).split("/") if match else [])
    return found


def file_says(place, name):
    try:
        with open(os.path.join(place.shared, name), encoding="ascii") as file:
            return file.read() == "x\n"
    except OSError:
        return False


def probe(place, option):
    words, good, want = PROBES[option]
    put = lambda text: text.replace("{dir}", place.shared)
    hosts = [] if option == "-f" else ["-hosts", ",".join(HOSTS)]
    words = [jobs.program("heat2d") if word == "HEAT2D" else put(word) for word in words]
    environment = place.environment

    place.environment = lambda: dict(environment(), A_SET="from-outside", B_SET="from-outside")
    try:
        status, out, err = place.call([jobs.command("mpiexec"), "-launcher", "msock", *hosts, *words], 60)
    finally:
        place.environment = environment
    if good is None: # depends on how MPICH was built
        tap.ok(status != "timeout" and (status == 0 or err.strip()), f"{option}: works, or says why not", f"{status} {out} {err}")
        return
    fits = file_says(place, good) if isinstance(good, str) else good(out.replace(place.shared, "{dir}"), err)
    tap.ok(status == want and fits, f"{option}: does what the table says", f"exit {status}\n{out}\n{err}")


def refused(place):
    """The kernel's own policy is no wish; another would be for the stub alone."""
    for policy in ("firsttouch",):
        status, out, err = place.call([jobs.command("mpiexec"), "-launcher", "msock", "-hosts", HOSTS[0], "-bind-to", "core", "-membind",
                                       policy, "-n", "1", *SHOW], 60)
        tap.ok(status == 0 and "rank=0" in out, f"-membind {policy}: nothing to do", f"{status} {out} {err}")
    status, out, err = place.call([jobs.command("mpiexec"), "-launcher", "msock", "-hosts", HOSTS[0], "-bind-to", "core", "-membind",
                                   "bind:numa", "-n", "1", *SHOW], 60)
    if status == 0 and "rank=0" in out:
        tap.skip("-membind bind", "hwloc binds no memory here")
    else:
        tap.ok(status != "timeout" and "membind" in err, "-membind bind: refused with a sentence", f"{status} {out} {err}")


def relative(place):
    """The job's directory is found by a rank that starts elsewhere than mpiexec."""
    environment = place.environment

    for name in ("MSOCK_RUNDIR", "TMPDIR"):
        place.environment = lambda: {**{key: value for key, value in environment().items() if key != "MSOCK_RUNDIR"},
                                     name: "run"}
        try:
            status, out, err = place.call(["sh", "-c", 'cd "$0" && exec "$@"', place.shared, jobs.command("mpiexec"), "-launcher",
                                           "msock", "-hosts", HOSTS[0], "-wdir", "/", "-n", "1", *SHOW], 60)
        finally:
            place.environment = environment
        tap.ok(status == 0 and "dir=/\n" in out, f"-wdir with a relative {name}", f"{status} {out} {err}")


def test():
    known = table()
    for place in jobs.places(jobs.User):
        with open(os.path.join(place.shared, "hosts"), "w", encoding="ascii") as file:
            file.write("127.0.0.2:2\n127.0.0.3\n# a comment\n127.0.0.4\n")
        with open(os.path.join(place.shared, "config"), "w", encoding="ascii") as file:
            file.write("-n 1 echo one\n-n 2 echo two\n")
        tap.equal(sorted(documented(place) - set(known)), [], "the table names all that mpiexec -help names")
        tap.equal(sorted(set(known) - documented(place)), [], "and nothing else")
        for option, state in known.items():
            if state != "refused":
                tap.ok(option in PROBES, f"{option}: there is a test") and probe(place, option)
        refused(place)
        relative(place)
        tap.equal(place.leftovers(), [], "nothing is left")


tap.main(test)
