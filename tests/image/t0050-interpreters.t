#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Interpreters as members of a job (msrun): moved there and back in mid-work, they say what they say unmoved.

MSOCK_TEST_LONG: three times there and back.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "msock"))
import launch  # noqa: E402
from launch import tap  # noqa: E402

HOSTS = ["127.0.0.2", "127.0.0.3"]
TIMES = 3 if os.environ.get("MSOCK_TEST_LONG") == "1" else 1
TOP = tempfile.mkdtemp(prefix="msock-interpreters-")
ENV = launch.environment(TOP)

# Each says "up", works until SIGUSR1 or the end of stdin, checks itself, and says what is the same however long that took.
PYTHON = r"""
import asyncio, hashlib, os, queue, signal, sqlite3, tempfile, threading
going = True
def end(*_):
    global going
    going = False
signal.signal(signal.SIGUSR1, end)
sums, results = set(), queue.Queue(10)
def hashing(number):
    working = True
    while working:
        working = going
        x, digest = number, hashlib.sha256()
        for i in range(2000):
            x = (x * 6364136223846793005 + i) % (1 << 64)
            digest.update(x.to_bytes(8, "little"))
        results.put((number, digest.hexdigest()))
    results.put((number, None))
def storing():
    with tempfile.TemporaryFile() as file, sqlite3.connect(":memory:") as store:
        store.execute("create table t (n integer)")
        rows = 0
        while going or not rows:
            store.executemany("insert into t values (?)", [(n,) for n in range(100)])
            file.write(b"x" * 100)
            rows += 100
        assert store.execute("select sum(n), count(n) from t").fetchone() == (4950 * rows // 100, rows)
        file.flush()
        assert file.tell() == rows == os.fstat(file.fileno()).st_size
async def ticks(number, out):
    count = 0
    while going:
        await asyncio.sleep(0.003)
        count += 1
        await out.put((number, count))
    await out.put((number, None))
async def looping():
    out, last, left = asyncio.Queue(), [0] * 3, 3
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(ticks(n, out)) for n in range(3)]
    while left:
        number, count = await out.get()
        left -= count is None
        assert count is None or count == last[number] + 1
        last[number] = count
        assert await loop.run_in_executor(None, sum, range(100)) == 4950
    await asyncio.gather(*tasks)
threads = [threading.Thread(target=hashing, args=(n,)) for n in range(3)]
threads += [threading.Thread(target=storing), threading.Thread(target=asyncio.run, args=(looping(),))]
print("up", flush=True)
for t in threads:
    t.start()
left = 3
while left:
    number, text = results.get()
    left -= text is None
    sums.add((number, text))
for t in threads:
    t.join()
print(sorted(sums, key=str))
"""

PERL = r"""
use strict; use warnings; use threads; use threads::shared;
my $going :shared = 1; my $count :shared = 0;
sub work {
    my ($n, $rounds, %h) = (shift, 0);
    while ($going || !$rounds) {
        $h{"$n-$_"} = $_ * $n for 1 .. 300;
        my $sum = 0; $sum += $_ for values %h;
        die "sum" if $sum != 45150 * $n;
        my $text = join ",", map { sprintf "%x", $_ } sort { $a <=> $b } values %h;
        die "text" unless $text =~ /^$n,/;
        { lock($count); $count++; } $rounds++;
    }
    return $rounds;
}
$| = 1;
my @t = map { threads->create(\&work, $_) } 1 .. 3;
open my $file, "+>", undef or die; print $file "unnamed\n";
print "up\n";
my $lines = 0; $lines++ while <STDIN>;
$going = 0;
my $sum = 0; $sum += $_->join for @t;
seek $file, 0, 0; my $line = <$file>;
print $sum == $count && $sum > 0 ? "$lines counted $line" : "miscounted\n";
"""

BASH = r"""
declare -A a; going=1; trap 'going=0' USR1; exec 5<<<"here document"; export WORD=first
echo up
again=1
while ((again)); do
    again=$going
    for ((i = 0; i < 300; i++)); do a[k$i]=$((i * i)); done
    s=0; for k in "${!a[@]}"; do ((s += a[$k])); done
    ((s == 8955050)) || echo "wrong: $s"
    WORD=${WORD/first/second}; [[ $WORD =~ ^s(.*)d$ ]] || echo "no match"
done
read -r line <&5; echo "$line ${BASH_REMATCH[1]} $WORD"
"""

TCL = r"""
puts up; flush stdout
set n 0
while {[gets stdin line] >= 0} {
    for {set i 0} {$i < 2000} {incr i} { lappend l [expr {$i * $i}]; incr n }
    set sum [tcl::mathop::+ {*}$l]; set l {}
    if {$sum != 2664667000} { puts "wrong $sum" }
}
puts [expr {$n % 2000}]
"""

# What is written to bc's stdin first, and what it says then.
BC = "\"up\n\"\nscale=50\n"

CASES = [
    ("python3, threads, asyncio, sqlite", [sys.executable, "-c", PYTHON], False),
    ("perl, threads", ["perl", "-e", PERL], True),
    ("bash", ["bash", "-c", BASH], False),
    ("tclsh", ["tclsh", None, TCL], True),
    ("bc -l", ["bc", "-lq"], True),
]


def tool(*words):
    done = subprocess.run([launch.program(words[0]), *words[1:]], env=ENV, capture_output=True, text=True, check=False,
                          timeout=launch.LIMIT_S)
    return done.returncode, done.stdout + done.stderr


def feed(child, fed, name):
    """Work for those that take it from stdin."""
    if fed:
        child.stdin.write(b"4*a(1)+e(1)\n" * 20 if name == "bc -l" else b"more\n" * 5)
        child.stdin.flush()


def run(name, words, fed, moved):
    """(status, what it said); results of the moves."""
    if words[1] is None:
        path = os.path.join(TOP, "script")
        with open(path, "w", encoding="utf-8") as file:
            file.write(words[2])
        words = [words[0], path]
    options = [launch.program("msrun"), "--job", "mine", "--host", HOSTS[0], "--host", HOSTS[1]] if moved else []
    child = subprocess.Popen([*options, *words], env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
    if name == "bc -l":
        child.stdin.write(BC.encode())
        child.stdin.flush()
    first, results = child.stdout.readline(), []
    for number in range(2 * TIMES):
        feed(child, fed, name)
        if moved:
            results.append(tool("msrank-move", "--job", "mine", "0", HOSTS[(number + 1) % 2]))
    feed(child, fed, name)
    if not fed:
        child.send_signal(signal.SIGUSR1)
    out, _ = child.communicate(None, launch.LIMIT_S)
    return (child.returncode, first + out), results


def test():
    for name, words, fed in CASES:
        if not shutil.which(words[0]):
            tap.skip(name, f"{words[0]} is not installed")
            continue
        want, _ = run(name, words, fed, False)
        tap.ok(want[0] == 0 and want[1].startswith(b"up\n") and len(want[1]) > 4, f"{name}: unmoved", want)
        got, results = run(name, words, fed, True)
        tap.ok(all(status == 0 for status, _ in results), f"{name}: moved {len(results)} times", results)
        tap.equal(got, want, f"{name}: says the same")


tap.main(test)
launch.kill_children()
shutil.rmtree(TOP, ignore_errors=True)
