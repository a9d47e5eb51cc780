"""Sessions of the kill harness: `mvit-search run` in a forked process that kills itself at a chosen call."""

import functools
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SESSION_S = 300.0
"""No session takes so long: one that does hangs."""


class Kill(NamedTuple):
    """When to kill: after some seconds, or at the n-th call of a kind in a session.

    Attributes:
        label: `function:file`; empty for a moment in time.
        nth: call of that kind.
        when: `before` the call, `after` it, or `half` way through what it writes.
    """

    label: str = ""
    nth: int = 1
    when: str = "before"
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.when} {self.label} #{self.nth}" if self.label else f"after {self.seconds:.2f} s"


_SAMPLER, _DATABASE = "sampler", "database"
"""What calls concern that are not about a file."""

# In the session: calls that write are counted, and the process kills itself at one of them.


class Tripwire:
    """Counts calls that change files of the run, and those of the sampler; kills at one of them.

    Python's own file objects are not seen inside; what they write goes to temporary files, or to derived ones.
    """

    def __init__(self, results: Path, kill: Kill | None, seen: Path) -> None:
        self._results, self._kill = str(results), kill
        self._counts: Counter[str] = Counter()
        self._write = os.write
        self._seen = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def install(self) -> None:
        import optuna
        from sqlalchemy.engine.default import DefaultDialect

        for name in ("write", "fsync", "ftruncate"):
            self._wrap(os, name, lambda fd, *rest: _path_of(fd))
        for name in ("unlink", "remove", "mkdir", "truncate"):
            self._wrap(os, name, lambda path, *rest, **more: os.fspath(path))
        for name in ("replace", "rename", "link", "symlink"):
            self._wrap(os, name, lambda source, target, *rest, **more: os.fspath(target))
        self._wrap(os, "open", lambda path, flags, *rest, **more: os.fspath(path) if flags & os.O_CREAT else "")
        for name in ("ask", "tell"):
            self._wrap(optuna.study.Study, name, lambda study, *rest, **more: _SAMPLER)
        self._wrap(DefaultDialect, "do_commit", lambda dialect, *rest, **more: _DATABASE)

    def _wrap(self, owner: Any, name: str, path_of: Callable[..., str]) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def watched(*args: Any, **kwargs: Any) -> Any:
            path = path_of(*args, **kwargs)
            if path not in (_SAMPLER, _DATABASE) and not str(path).startswith(self._results):
                return plain(*args, **kwargs)
            label = f"{name}:{_kind_of(str(path))}"
            self._counts[label] += 1
            kill = self._kill
            due = kill.when if kill and (label, self._counts[label]) == (kill.label, kill.nth) else ""
            self._write(self._seen, f"{label}\n".encode())
            if due == "before":
                _die()
            if due == "half":
                plain(args[0], bytes(args[1])[: len(args[1]) // 2])
                _die()
            result = plain(*args, **kwargs)
            if due:
                _die()
            return result

        setattr(owner, name, watched)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _kind_of(path: str) -> str:
    """What a path is in words that do not change from run to run."""
    if path in (_SAMPLER, _DATABASE):
        return path
    name = Path(path.removesuffix(" (deleted)")).name
    if "checkpoints" in Path(path).parts:
        return "checkpoint"
    for known in ("study.journal.lock", "study.journal", "front.json", "front.csv", "candidates.csv", "run.json"):
        if known in name:
            return known
    for known in ("events.jsonl", "report.html", "run.log", "study.db", ".lock"):
        if known in name:
            return known
    return "folder" if "." not in name else name.rsplit(".", 1)[-1]


def _trace_trainings(trace: Path) -> None:
    """Write down each training's beginning and end: digest, seed, epochs."""
    from mvit_search import proxy

    plain, write = proxy.train, os.write
    file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @functools.wraps(plain)
    def traced(config: Any, data: Any, recipe: Any, **settings: Any) -> Any:
        what = {"digest": config.digest(), "seed": settings["seed"]}
        write(file, (json.dumps({"kind": "begin", **what}) + "\n").encode())
        result = plain(config, data, recipe, **settings)
        write(file, (json.dumps({"kind": "end", **what}) + "\n").encode())
        return result

    proxy.train = traced


class Session(NamedTuple):
    """How one ended: exit code, or None if it was killed."""

    code: int | None
    seconds: float


class Bench:
    """A folder for one run: its results, the trace of its trainings, what it said.

    `command`: its arguments, but for the folder of results, for which a storage may say HERE, and for the name.
    """

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self.results, self.trace, self.seen = folder / "results", folder / "trace", folder / "seen"
        self.modules = folder / "modules"
        self.run = self.results / "killed"
        self.results.mkdir(parents=True)
        if "--storage" in command:
            command = [word.replace("HERE", str(self.results)) for word in command]
        self.command = ["mvit-search", "run", *command, "--name", "killed", "--results-dir", str(self.results)]

    def session(self, kill: Kill | None) -> Session:
        """The command, once, in a process of its own."""
        start = time.monotonic()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._child(kill)
        deadline = start + (kill.seconds if kill and kill.seconds else SESSION_S)
        killed_here = False
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline and not killed_here:
                os.kill(pid, signal.SIGKILL)
                killed_here = True
            time.sleep(0.002)
        seconds = time.monotonic() - start
        if killed_here and not (kill and kill.seconds):
            raise AssertionError(f"a session hung: {self.said()}")
        return Session(None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), seconds)

    def _child(self, kill: Kill | None) -> None:
        code = 70
        try:
            os.setsid()
            said = os.open(self.folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.environ["MVIT_SEARCH_CACHE"] = str(self.folder / "cache")
            _trace_trainings(self.trace)
            Tripwire(self.results, kill, self.seen).install()
            sys.argv = self.command
            code = _main()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            self.modules.write_text("\n".join(sys.modules))
            os._exit(code)

    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")[-2000:]


def _main() -> int:
    from mvit_search.cli import main

    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return 0
