#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What the documents name exists: paths of the source tree, and options and environment variables in the programs."""
import glob
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
sys.path.insert(0, HERE)
import tap  # noqa: E402

ROOTS = ("msock/", "mpich-channel/", "launcher/", "tests/", "examples/", "doc/", ".ci/")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def sources():
    found = []
    for top in ("msock", "launcher", "mpich-channel", "tests"):
        for where, _, names in os.walk(os.path.join(TOP, top)):
            found += [read(os.path.join(where, name)) for name in names if name.endswith((".c", ".h", ".S", ".py", ".t"))]
    return "\n".join(found)


def missing_paths(text):
    """Words in backquotes that begin like a path of the tree and match nothing."""
    words = re.findall(r"`([^`\s]+)`", text)
    return sorted({word for word in words if word.startswith(ROOTS) and "..." not in word
                   and not glob.glob(os.path.join(TOP, re.sub(r"\.\{.*\}|:\d+$", ".*", word)))})


def main():
    code = sources()
    for path in sorted(glob.glob(os.path.join(TOP, "*.md")) + glob.glob(os.path.join(TOP, "doc", "*.md"))):
        text, name = read(path), os.path.relpath(path, TOP)
        tap.equal(missing_paths(text), [], f"{name}: the paths it names exist")
        variables = {word for word in re.findall(r"\bMSOCK_[A-Z_]+\b", text) if f'"{word}' not in code and word not in code}
        tap.equal(sorted(variables), [], f"{name}: the variables it names exist")
    for path in sorted(glob.glob(os.path.join(TOP, "doc", "man", "*.[1-8]"))):
        text = read(path).replace("\\-", "-")
        options = set(re.findall(r"--([a-z][a-z-]+)", text))
        unknown = sorted(option for option in options if f'"{option}"' not in code and f'"--{option}"' not in code)
        tap.equal(unknown, [], f"{os.path.basename(path)}: the options it names exist")


tap.main(main)
