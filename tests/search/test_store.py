import multiprocessing
import os

import pytest
from optuna.study import StudyDirection

from mvit_search.errors import ConflictError, InputError
from mvit_search.records import RunFolder
from mvit_search.search import RunSettings, Store, run_search
from mvit_search.search.store import StudyShape
from tests.search.fakes import FormulaEvaluator, search
from tests.search.test_driver import TINY_SPACE

SHAPE = StudyShape((StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE), {})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"budget": 5_000_000}, "budget 6000000, not 5000000"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"sampler": "random"}, "sampler 'nsga2', not 'random'"),
        ({"space": "mobilevit-mini"}, r"other search space \(digest 095bc27d364b, not [0-9a-f]{12}\)"),
        ({"threads": 2}, "threads 1, not 2"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path, change, what):
    search(tmp_path / "run", trials=4, final_seeds=1)
    before = _content(tmp_path / "run")
    with pytest.raises(ConflictError, match=what):
        search(tmp_path / "run", trials=4, **{"final_seeds": 1, **change})
    assert _content(tmp_path / "run") == before


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def _hold(path, held, release):
    with Store.open(RunFolder(path), SHAPE):
        held.set()
        release.wait(30)


def test_a_run_that_is_alive_elsewhere_is_refused(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "run", held, release))
    process.start()
    try:
        assert held.wait(30)
        with pytest.raises(ConflictError, match=f"in use by another run .process {process.pid}."):
            Store.open(RunFolder(tmp_path / "run"), SHAPE)
    finally:
        release.set()
        process.join(30)
    Store.open(RunFolder(tmp_path / "run"), SHAPE).close()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Store.open(RunFolder(tmp_path / "file" / "run"), SHAPE)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a read-only file system to write to")
def test_a_read_only_file_system():
    from pathlib import Path

    with pytest.raises(InputError, match="cannot be written"):
        Store.open(RunFolder(Path("/proc/self/run")), SHAPE)


def test_a_record_of_another_kind_in_the_study(tmp_path):
    with Store.open(RunFolder(tmp_path / "run"), SHAPE) as store:
        store.remember("candidate:0", {"number": 0})
    with (
        Store.open(RunFolder(tmp_path / "run"), SHAPE) as store,
        pytest.raises(InputError, match="holds a record that is none"),
    ):
        store.records()


@pytest.mark.parametrize("text", ["garbage\n", '{"op_code": 99}\n', "{}\n"])
def test_a_study_file_that_is_none(tmp_path, text):
    run = tmp_path / "run"
    run.mkdir()
    (run / "study.journal").write_text(text)
    with pytest.raises(InputError, match="holds a study that cannot be read"):
        Store.open(RunFolder(run), SHAPE)
    assert (run / "study.journal").read_text() == text
    with pytest.raises(InputError, match="holds a study that cannot be read"):
        Store.open(RunFolder(run), SHAPE)


def test_auto_stays_what_it_came_to_when_a_run_is_made_longer(tmp_path):
    space = tmp_path / "tiny.yaml"
    space.write_text(TINY_SPACE)
    settings = {"target": "iphone12", "budget": 6_000_000, "images": 100, "space": str(space), "sampler": "auto"}
    for trials, sampler in ((2, "assisted"), (60, "assisted")):  # 60 go through the whole space: a grid, if begun so
        document = run_search(
            RunSettings(**settings, trials=trials, final_seeds=1), RunFolder(tmp_path / "run"),
            evaluator=FormulaEvaluator(),
        )  # fmt: skip
        assert document["sampler"] == sampler


def test_what_is_refused_before_it_begins_leaves_nothing_in_a_database(tmp_path):
    settings = {
        "target": "iphone12",
        "images": 100,
        "trials": 3,
        "final_seeds": 1,
        "storage": f"sqlite:///{tmp_path}/s.db",
    }
    with pytest.raises(InputError, match="unknown run"):
        run_search(RunSettings(budget=6_000_000, from_run="nobody", **settings), RunFolder(tmp_path / "r" / "run"))
    document = run_search(
        RunSettings(budget=4_000_000, **settings), RunFolder(tmp_path / "r" / "run"), evaluator=FormulaEvaluator()
    )
    assert document["trained"] == 3
