"""The whole analysis on tables of known signal: who is recommended, what is said with it, what JSON holds."""

import json
from dataclasses import replace

import pytest

from mvit_search.errors import InputError
from mvit_search.ranking.recommendation import seconds_words, share_words
from mvit_search.ranking.summary import analyse, document
from tests.ranking.synthetic import configs, table

LONG = "32px-5000img-12ep"


def judged(found):
    return {one.proxy.name: one for one in found.judged}


@pytest.fixture(scope="module")
def clear():
    """Rungs rank nearly as the end does, nothing else does; three seeds with a little noise."""
    return analyse(clear_rows())


def clear_rows():
    return table(30, seeds=(0, 1, 2), noise=0.01, rung_noise=0.01, short_noise=1.0, score_noise=50.0)


def test_the_cheapest_that_clears_is_recommended(clear):
    chosen = clear.recommendation.chosen
    assert chosen.proxy.name == f"{LONG}, epoch 1"
    assert clear.recommendation.cleared
    first, *notes = clear.recommendation.sentences
    assert first.startswith(f"Use {LONG}, epoch 1 (tau 0.")
    assert "25 CPU s a candidate, 8 % of the long schedule" in first
    assert any("It beats params by" in note for note in notes)
    assert any("against trainings with other seeds its tau is" in note for note in notes)
    assert any("It was picked among" in note for note in notes)


def test_noise_is_not_recommended():
    found = analyse(table(20, rung_noise=5.0, short_noise=5.0, score_noise=500.0))
    assert not found.recommendation.cleared
    assert found.recommendation.sentences[0].startswith("None clears tau 0.50 with its whole interval. The best is ")
    entry = document(found)["recommendation"]
    assert entry["proxy"] is None
    assert entry["best"]


def test_a_higher_threshold_takes_a_dearer_proxy(clear):
    dearer = analyse(
        table(30, seeds=(0, 1, 2), noise=0.01, rung_noise=0.05, short_noise=1.0, score_noise=50.0), threshold=0.7
    )
    assert dearer.recommendation.chosen.proxy.cpu_seconds > clear.recommendation.chosen.proxy.cpu_seconds
    assert dearer.recommendation.chosen.agreement.tau.low > 0.7


def test_where_parameters_do_as_well_it_is_said():
    """Accuracies that rise with the parameters alone: params is perfect, and no training is shown to beat it."""
    rows = table(24)
    places = {params: place for place, params in enumerate(sorted({r.params for r in rows}))}
    rows = [replace(r, top1=0.2 + 0.02 * places[r.params]) if r.top1 is not None else r for r in rows]
    found = analyse(rows)
    notes = " ".join(found.recommendation.sentences)
    assert "It is not shown to beat params (tau 1.00 [1.00, 1.00], difference 0.00" in notes
    assert "The threshold is also cleared by params" in notes
    assert found.recommendation.beats["params"] is False


def test_few_candidates_clear_nothing():
    found = analyse(table(6, rung_noise=0.0))
    assert judged(found)[f"{LONG}, epoch 8"].agreement.tau == pytest.approx((1, 1, 1))
    assert not found.recommendation.cleared
    assert "With fewer than 10 candidates no interval is believed: train more." in found.recommendation.sentences


def test_the_luck_of_a_shared_training_shows_with_other_seeds():
    """Rungs that know nothing but the luck of their own training: they agree with it, and with no other."""
    found = analyse(table(40, seeds=(0, 1), spread=0.001, noise=0.05, rung_noise=0.0))
    rung = judged(found)[f"{LONG}, epoch 8"]
    assert rung.agreement.tau.value > 0.4
    assert abs(rung.other_seeds.tau) < 0.25
    assert found.repeatability.reliability < 0.4


def test_scores_that_are_all_equal_rank_nothing_and_break_nothing():
    rows = [replace(r, score=1.0) if r.fidelity.endswith("naswot") else r for r in table(12)]
    found = analyse(rows)
    assert judged(found)["naswot"].agreement is None
    assert next(p for p in document(found)["proxies"] if p["name"] == "naswot")["tau"] is None


def test_cost_is_counted_in_image_steps_where_there_are_no_seconds():
    rows = [replace(r, cpu_seconds=0.0) for r in table(24, short_noise=0.001, rung_noise=0.5)]
    found = analyse(rows)
    assert found.recommendation.chosen.proxy.name == "32px-5000img-2ep, epoch 1"
    assert "5,000 image steps a candidate, 8 % of the long schedule" in found.recommendation.sentences[0]


def test_json_is_whole_and_plain(clear):
    held = json.loads(json.dumps(document(clear), allow_nan=False))
    assert held["reference"]["fidelity"] == LONG
    assert held["reference"]["candidates"] == 30
    assert held["reference"]["seeds"] == [0, 1, 2]
    assert (
        held["reference"]["repeatability"]["seed_to_seed_tau"]["low"]
        < held["reference"]["repeatability"]["ceiling_tau"]
    )
    assert held["recommendation"]["sentence"] == clear.recommendation.sentences[0]
    names = [proxy["name"] for proxy in held["proxies"]]
    assert names[:3] == ["MACs", "params", "latency"]
    assert len(names) == len(set(names))
    rung = next(proxy for proxy in held["proxies"] if proxy["name"] == f"{LONG}, epoch 2")
    assert rung["shares_trainings_with_reference"]
    assert rung["spread"]["ratio"] > 1
    combination = next(proxy for proxy in held["proxies"] if proxy["family"] == "combination")
    assert combination["partner_weight"]["p5"] <= combination["partner_weight"]["median"]
    assert document(analyse(clear_rows())) == held


def test_a_candidate_without_the_long_schedule_is_left_out():
    rows = table(14)
    gone = configs(14)[3].digest()
    found = analyse([r for r in rows if not (r.digest == gone and r.fidelity == LONG)])
    assert len(found.measured.means) == 13
    assert judged(found)["params"].agreement.candidates == 13


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, float("nan")])
def test_thresholds_that_are_none(threshold):
    with pytest.raises(InputError, match=r"--threshold .*must be above 0 and below 1"):
        analyse(table(12), threshold=threshold)


def test_words_for_costs():
    assert [seconds_words(s) for s in (0.04, 0.987, 1.25, 9.97, 1234.4)] == ["0.04", "1.0", "1.2", "10", "1,234"]
    assert [share_words(s) for s in (0.25, 0.0042, 1.0)] == ["25 %", "0.42 %", "100 %"]
