"""Prescreening: of K proposals the highest scored is trained, whatever moment a kill comes at."""

import json
import re
from contextlib import suppress

import pytest

from mvit_search.records import RunFolder
from mvit_search.search import Store
from tests.search.fakes import FormulaEvaluator, FormulaScreener, Killed, make_plan, search
from tests.search.test_driver import TINY_SPACE

SETTINGS = {"trials": 9, "budget": 6_000_000, "final_seeds": 1, "prescreen": "synflow:3"}


def trials(path):
    with Store.open(RunFolder(path), make_plan().shape) as store:
        return list(store.trials)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder, trainings, document, journal lines, screener) of a run that nothing disturbed."""
    run = tmp_path_factory.mktemp("prescreened") / "run"
    evaluator, screener = FormulaEvaluator(), FormulaScreener()
    document = search(run, evaluator, screener=screener, **SETTINGS)
    return run, evaluator.done, document, (run / "study.journal").read_bytes().splitlines(keepends=True), screener


def test_the_best_of_each_pool_is_trained_and_the_rest_leave_a_count(uninterrupted):
    run, done, document, _, screener = uninterrupted
    screened, scores = screener.done, screener.scores
    records = RunFolder(run).records()
    assert document["trained"] == len(done) == 9
    assert document["prescreened"] == 2 * 3
    assert len(screened) == len(set(screened)) == 3 * 3
    assert [r.origin for r in records] == ["preset"] * 3 + ["initial"] * 3 + ["sampler"] * 3
    found = trials(run)
    assert len(found) == 9
    assert [trial.user_attrs.get("prescreened", 0) for trial in found] == [0] * 6 + [2] * 3
    for place, record in enumerate(records[6:]):
        pool, pool_scores = (noted[3 * place : 3 * place + 3] for noted in (screened, scores))
        assert pool.index(record.digest) == pool_scores.index(max(pool_scores))


@pytest.mark.parametrize("share", [0.58, 0.71, 0.77, 0.88, 0.97])
def test_a_journal_cut_anywhere_carries_on_alike(tmp_path, uninterrupted, share):
    _, done, wanted, journal, _ = uninterrupted
    line = int(share * len(journal))
    torn = int(100 * share) % 2 == 0
    run = tmp_path / "run"
    run.mkdir()
    (run / "study.journal").write_bytes(b"".join(journal[:line]) + (journal[line][:15] if torn else b""))
    evaluator, screener = FormulaEvaluator(), FormulaScreener()
    found = search(run, evaluator, screener=screener, **SETTINGS)
    assert _without_place(found) == _without_place(wanted)
    known = sum(b'"candidate:' in entry for entry in journal[:line])
    assert evaluator.done == done[known:]


@pytest.mark.parametrize("kill_at", [1, 4, 8])
def test_killed_while_a_pool_is_scored(tmp_path, uninterrupted, kill_at):
    _, done, wanted, *_ = uninterrupted

    class Mortal(FormulaScreener):
        def evaluate(self, task):
            if len(self.done) == kill_at:
                raise Killed
            return super().evaluate(task)

    first, second = FormulaEvaluator(), FormulaEvaluator()
    with pytest.raises(Killed):
        search(tmp_path / "run", first, screener=Mortal(), **SETTINGS)
    found = search(tmp_path / "run", second, screener=FormulaScreener(), **SETTINGS)
    assert first.done + second.done == done
    assert _without_place(found) == _without_place(wanted)


@pytest.mark.parametrize("kill_at", [7, 8])
def test_killed_where_proposals_are_fruitless(tmp_path, monkeypatch, kill_at):
    """A low limit, so that pools are trained before they are full, and candidates drawn by us stand in them."""
    monkeypatch.setattr("mvit_search.search.proposer._FRUITLESS_LIMIT", 2)
    settings = {**SETTINGS, "budget": 2_000_000, "sampler": "random"}
    whole = FormulaEvaluator()
    wanted = search(tmp_path / "whole", whole, screener=FormulaScreener(), **settings)
    assert wanted["prescreened"] < 2 * 3
    first, second = FormulaEvaluator(kill_at=kill_at), FormulaEvaluator()
    with suppress(Killed):
        search(tmp_path / "run", first, screener=FormulaScreener(), **settings)
    found = search(tmp_path / "run", second, screener=FormulaScreener(), **settings)
    assert first.done + second.done == whole.done
    assert _without_place(found) == _without_place(wanted)


def test_where_nothing_can_be_scored_the_first_is_trained(tmp_path):
    evaluator, screener = FormulaEvaluator(), FormulaScreener(fails=lambda config: True)
    search(tmp_path / "run", evaluator, screener=screener, **SETTINGS)
    assert [digest for digest, _ in evaluator.done][6:] == screener.done[::3]


def test_a_space_smaller_than_a_pool_is_used_up(tmp_path):
    space = tmp_path / "tiny.yaml"
    space.write_text(TINY_SPACE)
    evaluator = FormulaEvaluator()
    document = search(
        tmp_path / "run", evaluator, screener=FormulaScreener(), space=str(space), trials=50, final_seeds=1,
        prescreen="synflow:100",
    )  # fmt: skip
    assert document["ended_by"] == "space exhausted"
    assert len(set(evaluator.done)) == len(evaluator.done) == 3 + 4


def test_the_time_limit_ends_the_filling_of_a_pool(tmp_path):
    evaluator, screener = FormulaEvaluator(), FormulaScreener()
    document = search(
        tmp_path / "run", evaluator, screener=screener, trials=30, time_s=15, prescreen="synflow:500",
        clock=lambda: float(len(evaluator.done) + len(trials_asked)), final_seeds=1,
        observer=_Counting(trials_asked := []),
    )  # fmt: skip
    assert document["ended_by"] in ("time", "trials")
    assert len(screener.done) < 500


class _Counting:
    """Lets time pass with every proposal that comes to nothing."""

    def __init__(self, seen):
        self.seen = seen

    def update(self, progress, record):
        if progress.duplicates or progress.rejected:
            self.seen.append(None)

    def notice(self, words):
        return None


def _without_place(document):
    text = json.dumps({k: v for k, v in document.items() if k not in ("run", "directory")})
    return json.loads(re.sub(r'"trial": \d+', '"trial": 0', text.replace('"whole/', '"run/')))
