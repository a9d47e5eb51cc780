"""What a run values candidates by: how it is written, and that a score is nowhere called an accuracy."""

import json
import re
from pathlib import Path

import pytest
import yaml

from mvit_search.analysis import write_report
from mvit_search.analysis.tables import front_table
from mvit_search.data import load_data
from mvit_search.errors import ConflictError, InputError, UnknownNameError, WorkError
from mvit_search.proxy import parse_recipe
from mvit_search.proxy.zero_cost import score
from mvit_search.records import RunFolder
from mvit_search.search import Evaluation, RunSettings, Task, prepare, run_search
from mvit_search.search.evaluator import ZeroCostEvaluator
from mvit_search.search.progress import Silent
from mvit_search.search.proxies import Prescreen, ProxyChoice, parse_prescreen, parse_proxy
from mvit_search.search.run import _factory
from mvit_search.space import load_space
from tests.search.fakes import FormulaEvaluator, FormulaScreener, make_plan, search


@pytest.mark.parametrize("text", ["training", "zero-cost:synflow", "table:results/a.csv#long"])
def test_a_proxy_is_spelled_one_way(text):
    assert str(parse_proxy(text)) == text


@pytest.mark.parametrize("text", ["", "train", "zero-cost", "zero-cost:", "table:", "training:2", "macs"])
def test_proxies_that_are_none(text):
    with pytest.raises(InputError, match="must be training, zero-cost:NAME or table:FILE"):
        parse_proxy(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("synflow", "must be NAME:K"),
        ("synflow:", "must be NAME:K"),
        ("synflow:-3", "must be NAME:K"),
        ("synflow:1", "best of 2 to 1000"),
        ("synflow:0", "best of 2 to 1000"),
        ("synflow:1001", "best of 2 to 1000"),
        ("synflow:" + "9" * 5000, "best of 2 to 1000"),
        ("sinflow:8", "did you mean 'synflow'"),
    ],
)
def test_prescreens_that_are_none(text, words):
    with pytest.raises(InputError, match=words):
        parse_prescreen(text)


def test_what_is_understood():
    assert parse_prescreen("zico:1000") == Prescreen("zico", 1000)
    assert parse_proxy("zero-cost:params") == ProxyChoice("zero-cost", "params")
    with pytest.raises(UnknownNameError, match="did you mean 'naswot'"):
        parse_proxy("zero-cost:nas-wot")


SMALL = {"target": "iphone12", "budget": 3_000_000, "images": 100}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"proxy": "zero-cost:zen", "epochs": 2}, "--epochs 2: means nothing with --proxy zero-cost:zen"),
        ({"proxy": "zero-cost:zen", "prescreen": "zico:4"}, "--prescreen 'zico:4': means nothing"),
        ({"proxy": "table:t.csv", "data_fraction": 0.5, "images": None}, "--data-fraction 0.5: means nothing"),
        ({"proxy": "table:t.csv"}, "--images 100: means nothing with --table t.csv"),
        ({"proxy": "table:no-such.csv", "images": None}, "table 'no-such.csv': cannot be read"),
        ({"threads": 10**6}, "--threads 1000000: must be at most [0-9]+, four for each of this machine's cores"),
        ({"proxy": "zero-cost:params", "data": "no-such/"}, "data 'no-such/'"),
    ],
)
def test_settings_that_contradict_the_proxy(settings, words):
    with pytest.raises(InputError, match=words):
        prepare(RunSettings(**{**SMALL, **settings}))


def test_the_proxy_decides_the_evaluator_and_is_pinned(tmp_path):
    plan = prepare(RunSettings(**SMALL, proxy="zero-cost:naswot"))
    worker = _factory(plan, tmp_path, None)()
    assert isinstance(worker, ZeroCostEvaluator)
    assert worker.name == "naswot"
    assert plan.pins()["proxy"] == "zero-cost:naswot"
    assert plan.pins()["recipe"] is None
    assert plan.describe("r")["proxy"] == "zero-cost:naswot"
    assert plan.describe("r")["recipe"] is None
    search(tmp_path / "run", trials=4, final_seeds=1)
    for change in ({"proxy": "zero-cost:naswot"}, {"prescreen": "naswot:3"}):
        with pytest.raises(ConflictError, match="belongs to a run with"):
            search(tmp_path / "run", FormulaScreener(), trials=4, final_seeds=1, **change)


def test_a_run_says_why_its_images_are_not_cached(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MVIT_SEARCH_CACHE", str(tmp_path / "file"))
    said = []

    class Listener(Silent):
        def notice(self, words):
            said.append(words)

    settings = RunSettings(**SMALL, data="shapes:100", trials=1, final_seeds=1)
    run_search(settings, RunFolder(tmp_path / "run"), observer=Listener(), evaluator=FormulaEvaluator())
    assert [words for words in said if words.startswith("images are held in memory, not cached: ")] == said
    assert len(said) == 1


def test_the_recipe_that_the_docs_show_is_one():
    shown = re.search(
        r"```yaml\n(.*?)```",
        Path(__file__).parents[2].joinpath("docs/search.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    recipe = parse_recipe(yaml.safe_load(shown[1]))
    assert all((recipe.ema_decay, recipe.scales, recipe.start_share, recipe.final_share, recipe.flip))
    assert max(map(recipe.batch_at, recipe.scales)) == 57


def test_a_fraction_of_the_data_is_another_run():
    whole, half = (prepare(RunSettings(**{**SMALL, "images": None}, data_fraction=f)) for f in (None, 0.5))
    assert len(half.data.train_images) == pytest.approx(len(whole.data.train_images) / 2, abs=10)
    assert whole.pins()["data"] != half.pins()["data"]


@pytest.mark.parametrize("name", ["params", "naswot"])
def test_the_evaluator_gives_the_score(name):
    space, data = load_space("mobilevit-mini"), load_data("digits", image_size=32, max_images=100)
    config = space.smallest()
    found = ZeroCostEvaluator(name, data, relative_size=space.relative_size).evaluate(Task(config, 3))
    assert found.value == score(name, config, data, seed=3, threads=1, share=space.relative_size(config)).value
    assert found.error is None


def test_a_network_that_cannot_be_scored_is_that_candidates_failure(monkeypatch):
    from mvit_search.proxy.zero_cost import scoring

    monkeypatch.setitem(scoring.OF_TABLE, "params", lambda config, classes: float("nan"))
    space, data = load_space("mobilevit-mini"), load_data("digits", image_size=32, max_images=100)
    found = ZeroCostEvaluator("params", data, relative_size=space.relative_size).evaluate(Task(space.smallest(), 0))
    assert (found.value, found.error) == (None, "params: the score is nan")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """(folder, document) of a run on scores that are all negative, over a tight budget."""
    path = tmp_path_factory.mktemp("scored") / "run"
    document = search(path, FormulaScreener(), trials=10, budget=3_000_000, final_seeds=2, proxy="zero-cost:naswot")
    return RunFolder(path), document


def test_a_run_on_scores_names_them_scores(scored):
    folder, document = scored
    assert document["proxy"] == "zero-cost:naswot"
    assert (document["trained"], document["scored"], document["hypervolume"]) == (0, 10, None)
    assert document["hypervolume_reference"] == {}
    assert all(row["outcome"] == "scored" and row["top1"] is None and row["score"] < 0 for row in document["front"])
    assert all(len(row["score_by_seed"]) == 2 for row in document["front"])
    assert [row["score"] for row in document["front"]] == sorted(row["score"] for row in document["front"])
    assert folder.select("best").score_by_seed
    assert document["baselines"][2]["outcome"] == "over budget"


def test_what_is_shown_of_a_run_on_scores_has_no_percentage(scored):
    folder, document = scored
    table = front_table(document)
    assert "Score (naswot)" in table.columns
    assert not any("Top-1" in column for column in table.columns)
    column = table.columns.index("Score (naswot)")
    assert all(cells[column].startswith("-") and "%" not in cells[column] for cells in table.rows)
    text = write_report(folder, folder.path / "r.html").read_text()
    page = text[text.index("<body") :]
    words = page[: page.index("<script")] if "<script" in page else page
    assert "none was trained, so no accuracy is known" in words
    assert "Top-1" not in words
    assert "more accurate" not in words
    assert "Zero-cost score naswot, nothing trained" in page
    assert "hypervolume" not in page.lower().split("plotly")[0]


def test_a_scored_run_that_is_killed_carries_on(tmp_path, scored):
    _, wanted = scored

    class Killed(BaseException):
        pass

    class Mortal(FormulaScreener):
        def evaluate(self, task) -> Evaluation:
            if len(self.done) == 7:
                raise Killed
            return super().evaluate(task)

    settings = {"trials": 10, "budget": 3_000_000, "final_seeds": 2, "proxy": "zero-cost:naswot"}
    with pytest.raises(Killed):
        search(tmp_path / "run", Mortal(), **settings)
    found = search(tmp_path / "run", FormulaScreener(), **settings)
    assert [(row["ref"], row["score"]) for row in found["front"]] == [
        (row["ref"], row["score"]) for row in wanted["front"]
    ]


def test_a_run_in_which_nothing_can_be_scored_says_so(tmp_path):
    with pytest.raises(WorkError, match="none of 2 candidates could be scored: the score is nan"):
        search(
            tmp_path / "run", FormulaScreener(fails=lambda config: True), trials=2, proxy="zero-cost:zen", final_seeds=1
        )


def test_a_training_run_says_that_it_trains(tmp_path):
    document = search(tmp_path / "run", FormulaEvaluator(), trials=4, final_seeds=1)
    assert document["proxy"] == "training"
    assert "scored" not in document
    assert "prescreened" not in document
    assert json.loads((tmp_path / "run" / "run.json").read_text())["proxy"] == "training"
    assert make_plan().pins()["proxy"] == "training"
