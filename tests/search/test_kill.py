"""Runs that are killed, or stand before a full disk, a folder without leave, or another run, and are carried on.

Black boxes: the command in processes of its own. What is there is read from the files (tools/run_files.py).
"""

import json
import os
import re
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

from mvit_search.errors import ConflictError
from mvit_search.records import RunFolder
from mvit_search.search import parse_settings, run_search
from tests.search.forked_runs import Launcher, launcher

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
from run_files import damaged, finished, outcome, records  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc and mounts, as Linux does")

TABLE = ROOT / "results" / "reference" / "digits_proxy" / "table.csv"
REPLAYED = ("--budget", "6M", "--target", "iphone12", "--table", f"{TABLE}#17px-899img-8ep", "--trials", "12")
TRAINED = (
    "--budget", "2M", "--target", "iphone12", "--images", "64", "--proxy-size", "32", "--trials", "6",
    "--final-seeds", "1", "--time", "1h", "--no-cache", "--fidelity", "halving", "--epochs", "2", "--eta", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with launcher(tmp_path_factory.mktemp("runs")) as started:
        yield started


@pytest.fixture(scope="module")
def alone(runs: Launcher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the replayed run comes to when nothing disturbs it."""
    results = tmp_path_factory.mktemp("alone")
    assert runs.run(results, REPLAYED) == (0, [])
    return outcome(results / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with _mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=24m", "tmpfs") as disk:
        yield disk


class _mounted:
    """Something mounted for the length of a `with`; skips where that is not allowed."""

    def __init__(self, place: Path, *words: str) -> None:
        self._place, self._words = place, words

    def __enter__(self) -> Path:
        self._place.mkdir(exist_ok=True)
        if shutil.which("mount") is None:
            pytest.skip("no mount here")
        done = subprocess.run(["mount", *self._words, self._place], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        return self._place

    def __exit__(self, *exc: object) -> None:
        subprocess.run(["umount", self._place], check=True)


def _fill(disk: Path, left_kib: int) -> Path:
    """A file that leaves so much of a disk."""
    free = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(free.f_bavail * free.f_bsize - left_kib * 1024))
    return ballast


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_left_alone() -> None:
    """The quick form of tools/kill_harness.py, which checks as it goes."""
    words = [sys.executable, str(ROOT / "tools" / "kill_harness.py"), "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = re.search(r"^kills: (\d+)$", done.stdout, flags=re.MULTILINE)
    assert kills
    assert int(kills[1]) >= 8, done.stdout


@pytest.mark.parametrize("left_kib", [8, 28, 120, 300])
def test_a_full_disk_ends_a_run_in_one_line_and_the_same_command_carries_on(
    runs: Launcher, small_disk: Path, alone: dict[str, Any], left_kib: int
) -> None:
    ballast = _fill(small_disk, left_kib)
    code, said = runs.run(small_disk, REPLAYED)
    assert code == 1
    assert len(said) == 1
    assert "No space left on device" in said[0]
    before = finished(small_disk / "run")
    assert not damaged(small_disk / "run", at_rest=True)
    ballast.unlink()
    assert runs.run(small_disk, REPLAYED) == (0, [])
    assert before.items() <= finished(small_disk / "run").items()
    assert outcome(small_disk / "run") == alone


@pytest.mark.slow
def test_a_disk_that_is_full_of_weights_ends_a_run_in_one_line_and_the_same_command_carries_on(
    runs: Launcher, small_disk: Path
) -> None:
    ballast = _fill(small_disk, 9000)
    code, said = runs.run(small_disk, TRAINED)
    assert code == 1
    assert len(said) == 1
    assert "No space left on device" in said[0]
    before = finished(small_disk / "run")
    assert before
    ballast.unlink()
    assert runs.run(small_disk, TRAINED) == (0, [])
    assert before.items() <= finished(small_disk / "run").items()
    assert not damaged(small_disk / "run", at_rest=True)


def test_a_folder_that_may_only_be_read_is_refused_in_one_line(runs: Launcher, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    with _mounted(results, "--bind", str(results)):
        subprocess.run(["mount", "-o", "remount,bind,ro", results], check=True)
        code, said = runs.run(results, REPLAYED)
    assert code == 2
    assert len(said) == 1
    assert "Read-only file system" in said[0]
    assert str(results) in said[0]


def test_a_path_below_a_file_is_refused_in_one_line(runs: Launcher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = runs.run(tmp_path / "file", REPLAYED)
    assert code == 2
    assert len(said) == 1
    assert str(tmp_path / "file") in said[0]


@pytest.mark.parametrize("storage", ["file", "sqlite"])
def test_a_second_run_in_a_live_ones_place_is_refused_and_harms_nothing(
    runs: Launcher, tmp_path: Path, alone: dict[str, Any], storage: str
) -> None:
    """In the same folder; and with the same study in a database, from another folder."""
    options, second = REPLAYED, tmp_path / "first"
    if storage == "sqlite":
        options, second = (*REPLAYED, "--storage", f"sqlite:///{tmp_path / 'study.db'}"), tmp_path / "second"
    first = runs.start(tmp_path / "first", options)
    first.until(lambda: (tmp_path / "first" / "run" / "candidates.csv").exists())
    first.signal(signal.SIGSTOP)
    try:
        files = _contents(tmp_path / "first")
        code, said = runs.run(second, options)
        assert code == 2
        assert len(said) == 1
        assert re.search(rf"process {first.pid}\b.* for \d+ (s|min)", said[0]), said
        assert _contents(tmp_path / "first") == files
    finally:
        first.signal(signal.SIGCONT)
    assert first.ended() == (0, [])
    assert _fronts_digests(tmp_path / "first" / "run") == [point["digest"] for point in alone["front"]]


def test_a_folder_that_another_run_made_in_the_same_instant_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not there when this run looked, and another's when it wants to hold it."""
    folder = RunFolder(tmp_path / "run")

    def hold(path: Path) -> None:
        path.mkdir()
        (path / "study.journal").write_text("another's")
        raise ConflictError("results folder", str(path), "is in use by another run")

    monkeypatch.setattr("mvit_search.search.store.hold_folder", hold)
    settings = {"budget": 6_000_000, "target": "iphone12", "proxy": f"table:{TABLE}#17px-899img-8ep"}
    with pytest.raises(ConflictError):
        run_search(parse_settings(settings), folder)
    assert (folder.path / "study.journal").read_text() == "another's"


def _fronts_digests(run: Path) -> list[str]:
    return [point["digest"] for point in json.loads((run / "front.json").read_text())["front"]]


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_database_that_another_program_holds_is_said_in_one_line(
    runs: Launcher, tmp_path: Path, alone: dict[str, Any]
) -> None:
    options = (*REPLAYED, "--storage", f"sqlite:///{tmp_path / 'study.db'}?timeout=1")
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as holder:
        holder.execute("CREATE TABLE held (x)")
        holder.execute("BEGIN EXCLUSIVE")
        code, said = runs.run(tmp_path, options)
    assert code == 2
    assert len(said) == 1
    assert "locked" in said[0]
    assert runs.run(tmp_path, options) == (0, [])
    assert _fronts_digests(tmp_path / "run") == [point["digest"] for point in alone["front"]]


@pytest.mark.slow
def test_a_pool_survives_a_worker_and_the_driver(runs: Launcher, tmp_path: Path) -> None:
    """A worker killed in the middle: the run goes on. Then the driver: its workers end, and the run is carried on."""
    options, run = (*TRAINED, "--engine", "pool", "--workers", "2"), tmp_path / "run"
    first = runs.start(tmp_path, options)
    first.until(lambda: len(finished(run)) >= 1)
    os.kill(_workers(first.pid)[0], signal.SIGKILL)
    first.until(lambda: len(finished(run)) >= 4)
    workers = _workers(first.pid)
    assert len(workers) == 2
    first.signal(signal.SIGKILL)
    assert first.ended().code == -signal.SIGKILL
    before = finished(run)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}/exe").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.05)
    assert runs.run(tmp_path, options) == (0, [])
    assert before.items() <= finished(run).items()
    assert not damaged(run, at_rest=True)
    _check_each_was_valued_once(run)


def _workers(driver: int) -> list[int]:
    """Processes of the pool: children that were spawned, but for the one that minds shared memory."""
    children = [int(pid) for pid in Path(f"/proc/{driver}/task/{driver}/children").read_text().split()]
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _check_each_was_valued_once(run: Path) -> None:
    known = records(run)
    assert len({record["digest"] for record in known}) == len(known) == 6
    for record in known:
        valued = [(each["seed"], each["rung"]) for each in record["evaluations"]]
        assert len(set(valued)) == len(valued)
        assert record["outcome"] in ("trained", "stopped"), record["error"]
