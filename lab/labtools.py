# SPDX-License-Identifier: GPL-2.0
"""Words that the lab's Python scripts share: settings, messages, and how to run UML."""
import os
import pathlib
import subprocess
import sys

LAB = pathlib.Path(__file__).resolve().parent
TOP = LAB.parent
BUILD = TOP / "build"


class Failure(Exception):
    """What a run ends with; its text is the reason to show."""


def say(name, text, file=sys.stdout):
    print(f"{name}: {text}", file=file, flush=True)


def setting(name, default, least):
    """A whole number from the environment."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < least:
        raise Failure(f"{name}={text}: give a whole number, {least} or more")
    return int(text)


def uml_command(*options):
    """Start lab/uml with these options, on one of the machine's CPUs, and have it end with us.

    Each system call and page fault of UML passes from one process of the host to
    another, which takes 10 us on one CPU and 50 us across two.
    """
    cpu = max(os.sched_getaffinity(0))
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cpu), str(LAB / "uml"),
            *map(str, options)]


def our_selftests(where):
    """Names from lab/selftests.list, in its order."""
    text = subprocess.run(["bash", "-c", f". {LAB}/env.sh; our_selftests {where}"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return [line.split()[0] for line in text.splitlines()]
