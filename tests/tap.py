# SPDX-License-Identifier: MIT
"""Test results as TAP, and waiting for conditions with a bound."""
import atexit
import os
import random
import sys
import time
import traceback

_state = {"number": 0, "failed": 0, "planned": False}


def off():
    """The program prints something else than results."""
    _state["planned"] = True


def note(text):
    for line in str(text).splitlines() or [""]:
        print(f"# {line}", flush=True)


def ok(good, name, detail=None):
    """One result; the detail is shown when it is not good."""
    _state["number"] += 1
    if not good:
        _state["failed"] += 1
    print(f"{'ok' if good else 'not ok'} {_state['number']} - {name}", flush=True)
    if not good and detail is not None:
        note(detail)
    return bool(good)


def equal(got, want, name):
    return ok(got == want, name, f"got  {got!r}\nwant {want!r}")


def skip(name, reason):
    _state["number"] += 1
    print(f"ok {_state['number']} - {name} # SKIP {reason}", flush=True)


def skip_all(reason):
    print(f"1..0 # SKIP {reason}", flush=True)
    _state["planned"] = True
    sys.exit(0)


def finish():
    """The plan, at the end; exit 0 even with failures, which the driver counts."""
    _state["planned"] = True
    print(f"1..{_state['number']}", flush=True)


@atexit.register
def _unfinished():
    if not _state["planned"]:
        print(f"Bail out! the test ended early, after {_state['number']} results", flush=True)


def main(function):
    """Run a test; what it did not expect is a failure with its traceback."""
    try:
        function()
    except Exception:  # noqa: the test's own bug or a broken promise of what it drives
        ok(False, "ran to its end", traceback.format_exc())
    finish()


def seed():
    """A generator for this run; MSOCK_TEST_SEED repeats one."""
    value = int(os.environ.get("MSOCK_TEST_SEED") or int.from_bytes(os.urandom(4), "big"))
    note(f"MSOCK_TEST_SEED={value}")
    return random.Random(value)


def number(name, default):
    """A parameter from the environment, MSOCK_TEST_<name>."""
    return int(os.environ.get(f"MSOCK_TEST_{name}") or default)


def until(condition, seconds, step=0.01):
    """Poll for a condition; returns its first true value, or the last false one when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)
