"""The surrogate: it differs as the trainings that it was fitted to do, and its tables are replayed."""

import importlib.util
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from mvit_search.errors import InputError
from mvit_search.records import RunFolder
from mvit_search.records.table import read_table
from mvit_search.search import RunSettings, run_search
from mvit_search.search.ladder import parse_rungs
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly
from mvit_search.search.surrogate import Surrogate, SurrogateEvaluator, fit_surrogate
from mvit_search.search.task import Task
from mvit_search.space import load_space

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "surrogate_table.py"
ROWS = read_table(ROOT / "results" / "reference" / "cifar10_proxy" / "table.csv")
FIT = fit_surrogate(ROWS)
SPACE, LIMITS = load_space("mobilevit"), Limits(6_000_000, 1000)
FIRST, SECOND = (Surrogate(FIT, SPACE, LIMITS, landscape) for landscape in (0, 1))
RUNGS = "32px-5000img-1ep+32px-5000img-4ep+32px-5000img-12ep"


def drawn(count, seed=0):
    rng = random.Random(seed)
    return [SPACE.config(draw_evenly(SPACE, LIMITS, rng.random(), rng)) for _ in range(count)]


CONFIGS = drawn(60)


def test_candidates_seeds_and_schedules_differ_as_the_real_ones_do():
    spreads, seeds, taus = [], [], []
    for surrogate in (FIRST, SECOND):
        ends = np.array([[100 * surrogate.top1(c, seed, 12) for seed in range(3)] for c in CONFIGS])
        short = [surrogate.top1(config, 0, 2) for config in CONFIGS]
        spreads.append(ends[:, 0].std())
        seeds.append(ends.std(axis=1, ddof=1))
        taus.append(kendalltau(short, ends[:, 0]).statistic)
    assert 1.5 < np.mean(spreads) < 3.5
    assert np.sqrt(np.mean(np.square(seeds))) == pytest.approx(0.77, abs=0.12)
    assert 0.5 < np.mean(taus) < 0.85  # 0.72 measured


def test_it_is_a_function_of_landscape_config_seed_and_schedule():
    again = Surrogate(FIT, SPACE, LIMITS)
    config = CONFIGS[0]
    assert FIRST.top1(config, 0, 12) == again.top1(config, 0, 12)
    assert FIRST.expected(config, 12) != SECOND.expected(config, 12)
    assert FIRST.top1(config, 0, 12) != FIRST.top1(config, 1, 12) != FIRST.expected(config, 12)


def test_between_fitted_schedules_it_goes_evenly():
    for config in CONFIGS[:10]:
        ends = [FIRST.expected(config, epochs) for epochs in (4, 7, 12)]
        assert min(ends[0], ends[2]) <= ends[1] <= max(ends[0], ends[2])
        assert FIRST.expected(config, 3, way=12) != FIRST.expected(config, 3)


@pytest.mark.parametrize(("epochs", "way"), [(13, None), (0, None), (3, 8), (13, 12)])
def test_schedules_that_were_not_fitted_are_refused(epochs, way):
    with pytest.raises(InputError, match="the surrogate has"):
        FIRST.top1(CONFIGS[0], 0, epochs, way=way)


def test_a_rung_costs_what_it_adds():
    evaluator = SurrogateEvaluator(FIRST, parse_rungs("1,4,12", 3))
    climbed = [evaluator.evaluate(Task(CONFIGS[0], 5, rung, rung - 1)) for rung in range(3)]
    assert [one.image_steps for one in climbed] == [4992, 3 * 4992, 8 * 4992]
    whole = evaluator.evaluate(Task(CONFIGS[0], 5, 2))
    assert whole.value == climbed[2].value == FIRST.top1(CONFIGS[0], 5, 12)
    assert whole.seconds == pytest.approx(sum(one.seconds for one in climbed))


def test_too_little_to_fit():
    digests = dict.fromkeys(row.digest for row in ROWS)
    few = [*digests][:9]
    with pytest.raises(InputError, match="so few candidates have every schedule"):
        fit_surrogate([row for row in ROWS if row.digest in few])
    with pytest.raises(InputError, match="no candidate was trained with several seeds"):
        fit_surrogate([row for row in ROWS if row.seed == 0])
    failed = [replace(row, top1=None, loss=None, error="nan") for row in ROWS if row.score is None]
    with pytest.raises(InputError, match="so few candidates have every schedule"):
        fit_surrogate(failed)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("surrogate") / "t.csv"
    command = [sys.executable, TOOL, "--candidates", "60", "--seeds", "1", "--way", "--out", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"60 candidates, 480 rows in {path}\n"
    return path


def test_its_table_holds_what_the_surrogate_says(table):
    rows = read_table(table)
    assert {row.name for row in rows} == {"", "mobilevit-xxs", "mobilevit-xs", "mobilevit-s"}
    for row in rows[:100]:
        way = row.epochs if row.epoch < row.epochs else None
        assert row.top1 == pytest.approx(FIRST.top1(row.config, row.seed, row.epoch, way=way), abs=1e-5)


@pytest.mark.parametrize("fidelity", [RUNGS, "32px-5000img-12ep"])
def test_its_table_is_replayed_with_rungs(tmp_path, table, fidelity):
    settings = RunSettings(
        target="iphone12", budget=6_000_000, proxy=f"table:{table}#{fidelity}", trials=12, final_seeds=1,
        fidelity="halving",
    )  # fmt: skip
    document = run_search(settings, RunFolder(tmp_path / "run"))
    assert document["front"]
    records = RunFolder(tmp_path / "run").records()
    assert {one.epochs for record in records for one in record.evaluations} == {1, 4, 12}


def test_the_docs_tell_the_fit_as_it_is():
    spec = importlib.util.spec_from_file_location("surrogate_table", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    told = (ROOT / "docs" / "search-efficiency.md").read_text(encoding="utf-8")
    for line in list(tool.check(FIT, ROWS, 1))[2:]:
        measured = line.split(", ")[0]  # without what depends on the landscapes
        assert measured in told, f"{measured}: run tools/surrogate_table.py --check"
