"""The evaluations of other runs: found again by what decides them, whatever happens to the file."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvit_search.proxy import default_recipe
from mvit_search.search.known import FILE, MOST_ROWS, KeyMaker, KnownEvaluations
from mvit_search.search.ladder import Ladder, Rung, parse_rungs
from mvit_search.search.task import Evaluation, Failure, Task
from tests.proxy.test_training import TINY

DONE = Evaluation(0.5, 3.25, image_steps=640)


class Notices(list[str]):
    """Lines for whoever watches the run; and the files that were opened with it, to be closed after the test."""

    def __call__(self, words: str) -> None:
        assert "\n" not in words
        self.append(words)

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[KnownEvaluations] = []

    def opening(self, path: Path, most_rows: int = MOST_ROWS) -> KnownEvaluations:
        self.opened.append(KnownEvaluations(path, self, most_rows))
        return self.opened[-1]


@pytest.fixture
def told() -> Iterator[Notices]:
    notices = Notices()
    yield notices
    for known in notices.opened:
        known.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / FILE


def key(number: int) -> str:
    return f"{number:064x}"


def whole(_: Any) -> float:
    return 1.0


# Keys.


def test_a_key_stands_for_everything_that_decides_an_evaluation() -> None:
    recipe = default_recipe("digits")
    base = KeyMaker(recipe, parse_rungs("1,3,9", 3), "a" * 64, whole)
    task = Task(TINY, 0, 1)
    others = [
        base._replace(recipe=recipe.changed(batch_size=16)),
        base._replace(ladder=parse_rungs("1,4,9", 3)),
        base._replace(ladder=parse_rungs("1,3:0.5,9", 3)),
        base._replace(data_digest="b" * 64),
        base._replace(relative_size=lambda _: 0.5),
        base._replace(device="cuda"),
        base._replace(threads=2),
    ]
    keys = [maker.key_of(task) for maker in (base, *others)]
    wider = TINY.model_copy(update={"stem_channels": 16})
    keys += [base.key_of(other) for other in (Task(TINY, 1, 1), Task(TINY, 0, 2), Task(wider, 0, 1))]
    assert len(set(keys)) == len(keys)
    assert all(len(one) == 64 for one in keys)


def test_a_key_stands_for_nothing_else(tmp_path: Path) -> None:
    recipe = default_recipe("digits")
    maker = KeyMaker(recipe, parse_rungs("1,3,9", 3), "a" * 64, whole, "cuda:0")
    task = Task(TINY, 0, 1)
    same = maker._replace(ladder=Ladder((Rung(1), Rung(3), Rung(27)), eta=4), device="cuda:1")  # rungs above, eta
    assert same.key_of(task._replace(start_rung=0, start=tmp_path, keep=tmp_path)) == maker.key_of(task)


def test_a_key_is_of_this_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = KeyMaker(default_recipe("digits"), parse_rungs("1,3", 3), "a" * 64, whole)
    before = maker.key_of(Task(TINY, 0))
    monkeypatch.setattr("mvit_search.search.known.version", lambda _: "9.9")
    assert maker.key_of(Task(TINY, 0)) != before


# What is kept.


@given(st.floats(0, 1), st.floats(0, 1e6), st.integers(0, 2**40), st.none() | st.integers(1, 4096))
def test_what_is_kept_comes_back_as_remembered(
    tmp_path_factory: pytest.TempPathFactory, top1: float, seconds: float, steps: int, batch: int | None
) -> None:
    path = tmp_path_factory.mktemp("known") / FILE
    evaluation = Evaluation(top1, seconds, image_steps=steps, largest_batch=batch)
    told = Notices()
    first = told.opening(path)
    first.put(key(1), evaluation)
    first.close()
    first.close()
    assert first.get(key(1)) is None
    second = told.opening(path)
    assert second.get(key(1)) == evaluation._replace(remembered=True)
    assert second.get(key(2)) is None
    assert told == []
    second.close()


@pytest.mark.parametrize(
    "evaluation",
    [Evaluation(None, 1.0, "diverged", failure=Failure.DIVERGED), DONE._replace(value=None, stopped=True),
     DONE._replace(remembered=True)],
    ids=["failed", "stopped", "remembered"],
)  # fmt: skip
def test_only_successes_of_this_run_are_kept(path: Path, told: Notices, evaluation: Evaluation) -> None:
    known = told.opening(path)
    known.put(key(0), evaluation)
    assert known.get(key(0)) is None


def test_the_first_of_two_runs_stays(path: Path, told: Notices) -> None:
    known = told.opening(path)
    known.put(key(0), DONE)
    known.put(key(0), DONE._replace(seconds=9.0))
    assert known.get(key(0)) == DONE._replace(remembered=True)


def test_the_oldest_beyond_the_bound_are_dropped(path: Path, told: Notices) -> None:
    known = told.opening(path, most_rows=10)
    for number in range(25):
        known.put(key(number), DONE)
    assert [number for number in range(25) if known.get(key(number))] == list(range(15, 25))
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("SELECT count(*) FROM evaluations").fetchone() == (10,)


def test_it_lies_beside_the_cache_of_pictures_and_is_off_where_that_is(
    tmp_path: Path, told: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = KnownEvaluations.open(told, {"MVIT_SEARCH_CACHE": str(tmp_path / "here")})
    assert (tmp_path / "here" / FILE).is_file()
    known.put(key(0), DONE)
    again = KnownEvaluations.open(told, {"MVIT_SEARCH_CACHE": str(tmp_path / "here")})
    assert again.get(key(0)) is not None
    off = KnownEvaluations.open(told, {"MVIT_SEARCH_CACHE": "off"})
    off.put(key(0), DONE)
    assert off.get(key(0)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert told == []
    known.close()
    again.close()


# Many processes, and killed ones.


WRITER = """
import sys
from pathlib import Path
from mvit_search.search.known import KnownEvaluations
from mvit_search.search.task import Evaluation

path, start, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
known = KnownEvaluations(path, lambda words: sys.exit(words))
for number in range(start, end):
    known.put(f"{number:064x}", Evaluation(0.5, 3.25, image_steps=640))
    print(number, flush=True)
known.close()
"""


def writer(path: Path, start: int, end: int) -> "subprocess.Popen[str]":
    """A process that keeps keys of these numbers once it is told to begin, and says which it has kept."""
    command = [sys.executable, "-c", WRITER, str(path), str(start), str(end)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begin(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def test_several_processes_write_at_once(path: Path, told: Notices) -> None:
    """They begin together, so that all make the file; and meet at the same keys too."""
    with writer(path, 0, 90) as one, writer(path, 60, 150) as other:
        ready(one)
        ready(other)
        begin(one)
        begin(other)
        for process in (one, other):
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
    known = told.opening(path)
    assert all(known.get(key(number)) for number in range(150))
    assert told == []


@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_a_writer_that_is_killed_leaves_all_it_had_written(path: Path, told: Notices, delay: float) -> None:
    with writer(path, 0, 10**9) as one:
        ready(one)
        begin(one)
        assert one.stdout is not None
        one.stdout.readline()
        time.sleep(delay)
        one.send_signal(signal.SIGKILL)
        said = one.stdout.read().split("\n")[:-1]  # the last line may be torn
    known = told.opening(path)
    assert all(known.get(key(number)) for number in range(len(said) + 1))
    assert told == []


# A file or folder that cannot be used is no error of the run.


def test_a_folder_that_cannot_be_written_switches_it_off(tmp_path: Path, told: Notices) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / FILE, Path("/proc") / "cache" / FILE):  # no folder; nobody may make one, root too
        told.clear()
        known = told.opening(place)
        assert known.get(key(0)) is None
        known.put(key(0), DONE)
        assert known.get(key(0)) is None
        (words,) = told
        assert str(place) in words


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 KiB; skips where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount")
    command = [mount, "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_switches_it_off_and_leaves_the_file_whole(small_disk: Path, told: Notices) -> None:
    known = told.opening(small_disk / FILE)
    for number in range(2000):
        known.put(key(number), DONE)
    (words,) = told
    assert "full" in words or "disk" in words
    assert known.get(key(0)) is None
    told.clear()
    again = told.opening(small_disk / FILE)
    assert again.get(key(0)) == DONE._replace(remembered=True)
    again.close()


def test_a_read_only_disk_switches_it_off(small_disk: Path, told: Notices) -> None:
    known = told.opening(small_disk / FILE)
    known.put(key(0), DONE)
    known.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    again = told.opening(small_disk / FILE)
    again.put(key(1), DONE)
    assert again.get(key(1)) is None
    assert len(told) == 1


def test_a_disk_full_error_is_told_once(path: Path, told: Notices, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where nothing can be mounted."""
    known = told.opening(path)
    known.put(key(0), DONE)

    def full(*_: Any) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(known, "_write", full)
    known.put(key(1), DONE)
    known.put(key(2), DONE)
    (words,) = told
    assert "database or disk is full" in words
    assert told.opening(path).get(key(0)) is not None


def damage(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("hello, this is no database at all\n" * 100)
    elif kind == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "zeroed":
        with path.open("r+b") as stream:
            stream.seek(4096)
            stream.write(bytes(path.stat().st_size - 4096))
    elif kind == "other table":
        path.unlink()
        with closing(sqlite3.connect(path)) as base:
            base.execute("CREATE TABLE evaluations (number INTEGER)")
            base.execute("PRAGMA user_version = 1")


@pytest.mark.parametrize("kind", ["text", "cut", "zeroed", "other table"])
def test_a_damaged_file_is_moved_aside_and_begun_anew(path: Path, told: Notices, kind: str) -> None:
    known = told.opening(path)
    for number in range(300):
        known.put(key(number), DONE)
    known.close()
    assert not path.with_name(f"{FILE}-wal").exists()
    damage(path, kind)
    first, second = told.opening(path), told.opening(path)
    assert first.get(key(5)) is None
    assert second.get(key(5)) is None  # it meets the new file, and leaves it there
    (words,) = told
    assert "damaged" in words
    first.put(key(5), DONE)
    assert second.get(key(5)) == DONE._replace(remembered=True)
    assert path.with_name(f"{FILE}.damaged").is_file()
    assert len(told) == 1


def test_a_file_that_is_damaged_while_it_is_open(path: Path, told: Notices) -> None:
    known = told.opening(path)
    for number in range(300):
        known.put(key(number), DONE)
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(path, "text")
    other = told.opening(path)
    other.put(key(400), DONE)
    for number in range(401, 420):
        known.put(key(number), DONE)
    assert len(told) <= 2
    assert told.opening(path).get(key(400)) is not None


def test_a_file_of_another_version_is_left_alone(path: Path, told: Notices) -> None:
    known = told.opening(path)
    known.put(key(0), DONE)
    known.close()
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA user_version = 99")
    content = path.read_bytes()
    again = told.opening(path)
    again.put(key(1), DONE)
    assert again.get(key(0)) is None
    (words,) = told
    assert "format 99" in words
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "column", ["top1 = 'x'", "top1 = 1.5", "seconds = -1", "image_steps = 'x'", "largest_batch = 'x'"]
)
def test_a_row_that_makes_no_sense_is_not_known(path: Path, told: Notices, column: str) -> None:
    known = told.opening(path)
    known.put(key(0), DONE)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(f"UPDATE evaluations SET {column}")
    assert known.get(key(0)) is None
    assert told == []


def test_a_writer_that_never_ends_is_not_waited_for_at_every_candidate(
    path: Path, told: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvit_search.search.known._WAIT_S", 0.05)
    known = told.opening(path)
    known.put(key(0), DONE)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert known.get(key(0)) is not None  # readers do not wait
        known.put(key(1), DONE)
        known.put(key(2), DONE)
    (words,) = told
    assert "locked" in words
