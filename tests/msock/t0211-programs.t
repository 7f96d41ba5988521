#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Programs that know nothing of msock say and do the same under libmsock-preload.so, as members and as others."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import tap  # noqa: E402

BUILD = os.environ.get("MSOCK_TEST_BUILD", ".")
LIBRARY = os.environ.get("MSOCK_LIBDIR", os.path.join(BUILD, ".libs")) + "/libmsock-preload.so"

PYTHON = r"""
import asyncio, ctypes, os, signal, subprocess, sys, threading, time
print(subprocess.run(["ls", "-d", "/"], capture_output=True, close_fds=True).stdout)
print(os.popen("echo popen").read())
signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
print(signal.pthread_sigmask(signal.SIG_BLOCK, []) >= {signal.SIGUSR1, signal.SIGRTMAX, signal.SIGRTMAX - 1})
signal.pthread_sigmask(signal.SIG_SETMASK, [])
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, lambda *a: print("signal", a[0]))
    assert callable(signal.getsignal(number))
signal.setitimer(signal.ITIMER_REAL, 0.05)
start = time.monotonic()
time.sleep(0.2)
print(0.2 <= time.monotonic() - start < 2)
print(signal.sigtimedwait([signal.SIGUSR1], 0.01))
pid = os.fork()
if pid == 0:
    os.closerange(3, 256)
    os._exit(7)
print(os.waitpid(pid, 0)[1])
async def many():
    await asyncio.gather(*[asyncio.sleep(0.01 * i) for i in range(10)])
    child = await asyncio.create_subprocess_exec("true")
    return await child.wait()
print(asyncio.run(many()))
threads = [threading.Thread(target=time.sleep, args=(0.05,)) for _ in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
event = threading.Event()
print(event.wait(0.05))
os.kill(os.getpid(), signal.SIGINT)
os.execv("/bin/sh", ["sh", "-c", "echo exec; exit 4"])
"""

BASH = r"""
trap 'echo usr1' USR1; kill -USR1 $$
trap '' RTMAX; trap 'echo end' EXIT
exec 9>/dev/null; exec 9>&-
for i in 1 2 3; do (sleep 0.0$i; echo $i >&2) & done; wait
read -t 0.05 line < <(sleep 1) ; echo "read $?"
echo text | tr a-z A-Z | cat; printf '%s\n' b a | sort
coproc cat; echo co >&"${COPROC[1]}"; read -u "${COPROC[0]}" x; echo "$x"; kill $COPROC_PID
timeout 0.1 sleep 5; echo "timeout $?"
( kill -TERM $BASHPID ); echo "term $?"
cd / && echo $(pwd) $((6 * 7))
exit 3
"""

PERL = r"""
$SIG{ALRM} = sub { die "alarm\n" };
eval { alarm 1; sysread(STDIN, my $x, 1); }; print $@;
use POSIX; my $set = POSIX::SigSet->new; $set->fillset; sigprocmask(SIG_BLOCK, $set); sigprocmask(SIG_UNBLOCK, $set);
print select(undef, undef, undef, 0.05), "\n";
my $pid = fork // die; exit 5 unless $pid; waitpid $pid, 0; print $? >> 8, "\n";
print `echo quoted`; print "$_\n" for sort { $a <=> $b } map { $_ * 7 % 11 } 1 .. 10;
"""

GCC = r"""
set -e; cd "$1"
printf '#include <stdio.h>\n#include <math.h>\nint main(void) { printf("%%.3f\\n", sqrt(2)); return 9; }\n' >a.c
gcc -O2 -pipe -o a a.c -lm; set +e; ./a; echo $?
printf 'int broken(\n' >b.c; gcc -c b.c 2>/dev/null; echo $?
"""

XZ = r"""
seq 1 300000 | xz -T2 --block-size=262144 -c | xz -dc | cksum
seq 1 1000 | gzip -c | gzip -dc | cksum
echo junk | xz -dc 2>/dev/null; echo $?
"""

CASES = [
    ("python3", ["/usr/bin/python3", "-c", PYTHON]),
    ("bash", ["bash", "-c", BASH]),
    ("perl", ["perl", "-e", PERL]),
    ("gcc", ["sh", "-c", GCC, "sh", "{dir}"]),
    ("xz", ["sh", "-c", XZ]),
    ("make", ["make", "-j4", "-f", "/dev/stdin", "all"]),
]
MAKEFILE = "all: a b c d\n\t@echo all\na b c d:\n\t@sleep 0.05; true\n"


def run(argv, extra, keep=()):
    """What a program gives: exit status, output."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "MSOCK_FD")}
    with tempfile.TemporaryDirectory() as where:
        argv = [word.replace("{dir}", where) if word == "{dir}" else word for word in argv]
        if argv[0] == "make":
            given = dict(input=MAKEFILE.encode())
        else:
            reading, writing = os.pipe()
            given = dict(stdin=reading)
        done = subprocess.run(argv, env={**environment, **extra}, pass_fds=keep, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given)
        if "stdin" in given:
            os.close(reading)
            os.close(writing)
    return done.returncode, done.stdout.decode(errors="replace"), sorted(done.stderr.decode(errors="replace").splitlines())


def main():
    tap.ok(os.path.exists(LIBRARY), f"{LIBRARY} is there")
    for name, argv in CASES:
        if not shutil.which(name):
            tap.skip(f"{name}", "not installed")
            continue
        plain = run(argv, {})
        if name == "python3":
            tap.note(f"{plain[0]}, {len(plain[1])} bytes of output")
        tap.equal(run(argv, {"LD_PRELOAD": LIBRARY}), plain, f"{name}: the same as no member")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fd = theirs.fileno()
            tap.equal(run(argv, {"LD_PRELOAD": LIBRARY, "MSOCK_FD": str(fd)}, (fd,)), plain, f"{name}: the same as a member")
        tap.equal(run(argv, {"LD_PRELOAD": LIBRARY, "MSOCK_FD": "77"}), plain, f"{name}: the same with a stale MSOCK_FD")


tap.main(main)
