#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The Debian packages: built from what is distributed, installed in a bare Debian of this test's own, and there an ordinary
user compiles a program, runs it as the first job and moves a rank. Then they are purged. Wants root and Debian's mirror."""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import tap  # noqa: E402

BUILD = os.environ.get("MSOCK_TEST_BUILD") or os.getcwd()
PACKAGES = ["libmsock0", "libmsock-dev", "msock", "mpich-msock"]
MPICH = "/usr/lib/msock/mpich"
HOSTS = ["127.0.0.2", "127.0.0.3"]
USER = 1000

# A bare Debian as the root of a mount namespace, which ends with the command. Not chroot alone: from there no user namespace
# can be made, and a rank comes to another host in one.
ENTER = """
mount --bind "$1" "$1" && cd "$1" && mount -t proc proc proc && mount -t tmpfs tmpfs dev/shm && mkdir -p .outside &&
pivot_root . .outside && umount -l /.outside && shift && exec "$@"
"""
CLEAN = {"PATH": f"{MPICH}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def run(words, seconds=120, **options):
    return subprocess.run(["timeout", "-k", "5", str(seconds), *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          check=False, **options)


def good(done, name):
    return tap.ok(done.returncode == 0, name, f"exit status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


class Debian:
    """A minimal system in a directory; its mounts live in the namespaces of commands only."""

    def __init__(self, root):
        self.root = root

    def words(self, words, user):
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--no-new-privs"] if user else []
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter", self.root, *as_user, *words]

    def run(self, *words, user=0, seconds=120):
        return run(self.words(words, user), seconds, env=CLEAN)

    def start(self, *words, user):
        return subprocess.Popen(["timeout", "-k", "5", "300", *self.words(words, user)], env=CLEAN, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def mirror():
    done = run(["apt-get", "indextargets", "Created-By: Packages", "Codename: bookworm", "Component: main", "--format", "$(REPO_URI)"])
    found = [line for line in done.stdout.split() if "security" not in line]
    return found[0] if found else "http://deb.debian.org/debian"


def build(work):
    """Packages from the tree as `make dist` would have it, outside of the build that is under test."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name not in ("MFLAGS", "DESTDIR")}
    tree = os.path.join(work, "msock")
    if not good(run(["make", "-C", BUILD, "distdir", f"distdir={tree}"], env=env), "make distdir"):
        return []
    env["MSOCK_PACKAGE_CACHE"] = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    env["DEB_BUILD_OPTIONS"] = f"parallel={os.cpu_count()}"
    if not good(run(["dpkg-buildpackage", "-us", "-uc", "-b"], 3000, cwd=tree, env=env), "dpkg-buildpackage"):
        return []
    made = {os.path.basename(path).split("_")[0]: path for path in glob.glob(os.path.join(work, "*.deb"))}
    tap.equal(sorted(name for name in made if "dbgsym" not in name), sorted(PACKAGES), "the packages are there")
    if shutil.which("lintian"):
        done = run(["lintian", "--allow-root", "--fail-on", "error", *glob.glob(os.path.join(work, "*.changes"))], 300)
        good(done, "lintian finds no error")
    else:
        tap.skip("lintian finds no error", "there is no lintian here")
    shutil.rmtree(tree)
    return [made[name] for name in PACKAGES if name in made]


def install(system, packages):
    os.mkdir(os.path.join(system.root, "packages"))
    for path in packages:
        shutil.copy(path, os.path.join(system.root, "packages"))
    files = ["/packages/" + os.path.basename(path) for path in packages]
    if not good(system.run("apt-get", "-q", "-y", "--no-install-recommends", "install", *files, "gcc", "libc6-dev", seconds=600),
                "they are installed"):
        return False
    listed = system.run("dpkg", "-L", *PACKAGES).stdout.split("\n")
    mpi = [path for path in listed if re.match(r"/usr/(bin/mpi|include/mpi|lib/[^/]*/libmpi)", path)]
    tap.equal(mpi, [], "nothing lies where other MPI packages have it")
    with open(glob.glob(system.root + "/usr/share/modules/modulefiles/msock/*")[0], encoding="utf-8") as file:
        named = re.findall(r" (/\S+)$", file.read(), re.M)
    tap.equal([path for path in named if not os.path.isdir(system.root + path)], [], "the places that the module file names exist")
    tap.ok(MPICH + "/bin" in named, "and are ours", named)
    return True


def job(steps):
    return ["mpiexec", "-launcher", "msock", "-hosts", ",".join(HOSTS), "-n", "4", "/tmp/heat2d", "256", str(steps)]


def checksum(text):
    found = re.findall(r"^checksum (\w+)$", text, re.M)
    return found[0] if len(found) == 1 else None


def moved(system, steps):
    """The job with a rank that moves when it has begun; its output."""
    child = system.start(*job(steps), user=USER)
    lines, begun = [], threading.Event()

    def read():
        for line in child.stdout:
            lines.append(line)
            if line.startswith("step "):
                begun.set()
        begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    begun.wait(60)
    done = system.run("msrank-move", "--json", "2", HOSTS[1], user=USER)
    if good(done, "msrank-move 2"):
        report = json.loads(done.stdout)
        tap.equal((report["from"], report["to"], report["committed"]), (*HOSTS, True), "the rank has moved")
    tap.equal(child.wait(), 0, "the job ends well")
    reader.join()
    return "".join(lines)


def first_job(system):
    if not good(system.run("mpicc", "-O2", "-o", "/tmp/heat2d", "/usr/share/doc/mpich-msock/examples/heat2d.c", "-lm", user=USER),
                "mpicc compiles heat2d"):
        return
    steps = tap.number("STEPS", 20000)
    still = system.run(*job(steps), user=USER)
    good(still, "the first job runs")
    text = moved(system, steps)
    if not tap.ok(checksum(text) and checksum(text) == checksum(still.stdout), "the checksum is that of the job that was left alone"):
        tap.note(text[-3000:])
    good(system.run(MPICH + "/libexec/msock/examples/demo.sh", "256", "4000", user=USER),
         "the demonstration runs")
    tap.equal(glob.glob(system.root + "/tmp/msock-*/*"), [], "no job's directory is left")


def purge(system):
    good(system.run("dpkg", "--purge", *reversed(PACKAGES)), "they are purged")
    left = system.run("find", "/usr", "/etc", "/var/lib/dpkg/info", "-name", "*msock*").stdout
    tap.equal(left, "", "and nothing is left")


def check(work):
    packages = build(work)
    if len(packages) != len(PACKAGES):
        return
    root = os.path.join(work, "root")
    own = ["unshare", "--mount", "--propagation", "private"]  # it mounts too
    if not good(run([*own, "debootstrap", "--variant=minbase", "bookworm", root, mirror()], 900), "debootstrap"):
        return
    shutil.copy("/etc/resolv.conf", os.path.join(root, "etc", "resolv.conf"))
    system = Debian(root)
    if install(system, packages):
        first_job(system)
        purge(system)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    missing = [name for name in ("debootstrap", "dpkg-buildpackage", "dh") if not shutil.which(name)]
    if missing:
        tap.skip_all(f"there is no {missing[0]} here")
    if os.geteuid() != 0:
        tap.skip_all("only root can make a system to install in")
    work = tempfile.mkdtemp(prefix="packages-", dir="/var/tmp")
    os.chmod(work, 0o755)
    try:
        check(work)
    finally:
        shutil.rmtree(work)


tap.main(main)
