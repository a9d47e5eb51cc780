"""What becomes of a command whose stdout takes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-c", "from mvit_search.cli import main; main()"]
COMMANDS = [("profile", "mobilevit-xxs", "--json"), ("profile", "mobilevit-xxs"), ("--version",)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [*COMMANDS, ("--help",)], ids=" ".join)
def test_a_full_disk_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.stderr == "mvit-search: stdout cannot be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="closes a file descriptor by a shell")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_closed_stdout_is_one_line(arguments: tuple[str, ...]) -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, *arguments]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.stderr == "mvit-search: stdout cannot be written: it is closed\n"
    assert done.returncode == 1


def test_a_reader_that_has_gone_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, *COMMANDS[0]], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
