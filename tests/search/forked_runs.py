"""`mvit-search run` many times: processes forked from one that has imported everything, each in a session of its own.

A fresh interpreter takes a second or two to import what a run needs. The forks run the same `main`, can be stopped and
killed, and are nobody's threads: the process that forks does nothing else.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

_PATIENCE_S = 200.0


class Ended(NamedTuple):
    """Exit code (negative: a signal), and the lines in which the program complained."""

    code: int
    complaints: list[str]


class Run:
    """One that was started."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self._folder = pid, folder

    def poll(self) -> bool:
        """Whether it has ended."""
        return (self._folder / "code").exists()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something to come while it runs."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert not self.poll(), f"it ended before: {(self._folder / 'stderr').read_text()}"
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.002)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> Ended:
        """Wait for the end."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.poll():
            assert time.monotonic() < deadline, "it never ended"
            time.sleep(0.005)
        said = (self._folder / "stderr").read_text()
        assert "Traceback" not in said, said
        complaints = [line for line in said.splitlines() if line.startswith("mvit-search: ")]
        return Ended(int((self._folder / "code").read_text()), complaints)


class Launcher:
    """Starts runs of the name `run`."""

    def __init__(self, requests: IO[str], answers: IO[str], folder: Path) -> None:
        self._requests, self._answers, self._folder, self._count = requests, answers, folder, 0

    def start(self, results: Path, options: Sequence[str]) -> Run:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir(parents=True)
        words = ["mvit-search", "run", *options, "--name", "run", "--results-dir", str(results)]
        print(json.dumps({"words": words, "folder": str(folder)}), file=self._requests, flush=True)
        return Run(int(self._answers.readline()), folder)

    def run(self, results: Path, options: Sequence[str]) -> Ended:
        return self.start(results, options).ended()


@contextmanager
def launcher(folder: Path) -> Iterator[Launcher]:
    """The process that forks, for as long as the `with`."""
    words = [sys.executable, __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Launcher(process.stdin, process.stdout, folder)
        process.stdin.close()


def _serve() -> None:
    # What runs import on their way. Nothing is done with torch here: its threads would not come along.
    import plotly.graph_objects  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import sqlalchemy  # noqa: F401

    import mvit_search.analysis
    import mvit_search.cli
    import mvit_search.proxy.training
    import mvit_search.search  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        ready, told = os.pipe()
        if os.fork() == 0:
            os.close(ready)
            _supervise(request["words"], Path(request["folder"]), told)
        os.close(told)
        print(int(os.read(ready, 20)), flush=True)
        os.close(ready)
        _reap()


def _supervise(words: list[str], folder: Path, told: int) -> None:
    """Fork the run, say its process number, and write down how it ended."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number, name in ((0, os.devnull), (1, os.devnull), (2, str(folder / "stderr"))):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        os.close(told)
        _run(words)
    os.write(told, str(pid).encode())
    os.close(told)
    _, status = os.waitpid(pid, 0)
    (folder / "code.part").write_text(str(os.waitstatus_to_exitcode(status)))
    (folder / "code.part").rename(folder / "code")
    os._exit(0)


def _run(words: list[str]) -> None:
    import traceback

    from mvit_search.cli import main

    code = 70
    try:
        sys.argv = words
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap() -> None:
    """Supervisors that are done."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    _serve()
