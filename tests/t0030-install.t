#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What `make install` puts in place: a man page for each command, completion of each option, a module file, pkg-config;
and `make uninstall` takes all of it away. Into a directory of its own."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
sys.path.insert(0, HERE)
import tap  # noqa: E402

BUILD = os.environ.get("MSOCK_TEST_BUILD") or os.getcwd()
TCL = """
proc module-whatis {t} {}
proc conflict {args} {}
proc prepend-path {name value} { puts "$name $value" }
proc append-path {name value} { puts "$name+ [list $value]" }
proc setenv {name value} { puts "$name $value" }
source [lindex $argv 0]
"""


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, timeout=400, check=False, **options)


def make(target, *settings):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name not in ("MFLAGS", "DESTDIR")}
    done = run("timeout", "300", "make", "-C", BUILD, target, *settings, env=env)
    return tap.equal(done.returncode, 0, f"make {target}") or tap.note(done.stdout[-2000:] + done.stderr[-2000:])


def left(directory):
    """Files, and directories that are ours alone; those that others use too, as bin, stay."""
    found = [os.path.join(where, name) for where, _, names in os.walk(directory) for name in names]
    own = [directory + setting(name) for name in ("exampledir", "helperdir", "modulefiledir")]
    return sorted(found + [where for where in own if os.path.isdir(where)])


def has_mpich():
    """Our MPICH is what the build is for, and its image lies in the cache: installing it takes a second."""
    prefix = os.environ.get("MSOCK_TEST_PREFIX", "no")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    try:
        with open(os.path.join(prefix, "lib", ".mpich-image"), encoding="utf-8") as file:
            image = file.read().strip()
    except OSError:
        return False
    return os.path.isdir(os.path.join(cache, "msock", image))


def setting(name):
    """A variable of the Makefile with all that it refers to."""
    with open(os.path.join(BUILD, "Makefile"), encoding="utf-8") as file:
        values = dict(re.findall(r"^(\w+) = (.*)$", file.read(), re.M))
    text = values[name]
    while "${" in text or "$(" in text:
        text = re.sub(r"\$[({](\w+)[)}]", lambda found: values[found.group(1)], text)
    return text


def pages(directory):
    man = directory + setting("mandir")
    text = ""
    for page in sorted(glob.glob(os.path.join(TOP, "doc", "man", "*.[1-8]"))):
        installed = os.path.join(man, f"man{page[-1]}", os.path.basename(page))
        if os.path.basename(page) == "msrank-top.1" and not os.path.exists(os.path.join(BUILD, "msrank-top")):
            tap.skip("msrank-top.1 is installed", "there is no ncurses here")
        else:
            tap.ok(os.path.exists(installed), f"{os.path.basename(page)} is installed")
        with open(page, encoding="utf-8") as file:
            text += file.read()
        if shutil.which("groff"):
            done = run("groff", "-mandoc", "-ww", "-z", "-Tutf8", page)
            tap.equal(done.returncode == 0 and done.stderr, "", f"{os.path.basename(page)}: groff has nothing to say")
        else:
            tap.skip(f"{os.path.basename(page)} is formatted", "there is no groff here")
    commands = sorted(os.path.basename(path) for path in glob.glob(directory + setting("bindir") + "/*"))
    for name in commands:
        tap.ok(os.path.exists(os.path.join(man, "man1", f"{name}.1")), f"{name} has a man page")
    helpers = sorted(name for name in os.listdir(directory + setting("helperdir")) if name != "examples")
    tap.equal([name for name in helpers if f".It Nm {name}\n" not in text], [], "msock-helpers.8 tells of each helper")
    return commands


def completes(script, words):
    line = f'source {script}; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _msock; echo "${{COMPREPLY[@]}}"'
    return set(run("bash", "-c", line, env={"PATH": "/nonexistent:/usr/bin:/bin", "TMPDIR": "/nonexistent"}).stdout.split())


def completion(directory, commands):
    place = directory + setting("completiondir")
    for name in commands:
        script = os.path.join(place, name)
        if not tap.ok(os.path.exists(script), f"{name} has completion"):
            continue
        offered = completes(script, [os.path.join(BUILD, name), "-"])
        tap.ok(offered - {"--help"}, f"{name}: its options are completed", offered)
    tap.equal(completes(os.path.join(place, "msrank-move"), ["msrank-move", "--via", "d"]), {"drain"}, "a value is completed")


def module(directory):
    path = os.path.join(directory + setting("modulefiledir"), setting("VERSION"))
    tap.ok(os.path.exists(path), "the module file is installed")
    if not shutil.which("tclsh"):
        tap.skip("the module file is Tcl", "there is no tclsh here")
        return
    with tempfile.NamedTemporaryFile("w", suffix=".tcl") as file:
        file.write(TCL)
        file.flush()
        done = run("tclsh", file.name, path)
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    tap.equal(told, {"PATH": setting("modulebindir"), "LD_LIBRARY_PATH": setting("modulelibdir"), "MANPATH": setting("modulemandir"), "MANPATH+": "{}",
                     "PKG_CONFIG_PATH": setting("modulepkgconfigdir"), "HYDRA_LAUNCHER": "msock"}, "the module file names our places")
    tap.equal([name for name, value in told.items() if value[0] == "/" and not os.path.isdir(directory + value)], [], "which exist")


def package(directory):
    env = dict(os.environ, PKG_CONFIG_PATH=directory + setting("pkgconfigdir"))
    done = run("pkg-config", "--cflags", "--libs", "msock", env=env)
    tap.ok(done.returncode == 0 and "-lmsock" in done.stdout, "pkg-config knows msock", done)


def check(directory):
    destdir = f"DESTDIR={directory}"
    if not make("install", destdir):
        return
    commands = pages(directory)
    tap.ok(len(commands) >= 3, "commands are installed", commands)
    places = {"libmsock.so.0": "libdir", "libmsock-preload.so": "preloaddir", "msdaemon": "helperdir", "msock.h": "includedir"}
    tap.equal([name for name, place in places.items() if not os.path.exists(os.path.join(directory + setting(place), name))], [],
              "libraries, helpers and the header are installed")
    completion(directory, commands)
    module(directory)
    package(directory)
    if has_mpich():
        make("install-mpich", destdir)
        wrapper = os.path.join(directory + setting("prefix"), "bin", "mpicc")
        with open(wrapper, encoding="utf-8") as file:
            tap.ok(directory not in file.read(), "mpicc names the prefix and not DESTDIR")
    else:
        tap.skip("our MPICH below DESTDIR", "it is not built here")
    other = os.path.join(directory + setting("modulefiledir"), "other-version")
    open(other, "w", encoding="ascii").close()
    make("uninstall", destdir)
    tap.equal(left(directory)[:9], [os.path.dirname(other), other], "make uninstall leaves nothing but what is somebody else's")


def main():
    directory = tempfile.mkdtemp(prefix="tmp-install-")
    try:
        check(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


tap.main(main)
