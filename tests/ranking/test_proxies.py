"""From rows to proxies: what is compared with what, at which cost."""

from dataclasses import replace
from math import log

import pytest

from mvit_search.errors import InputError
from mvit_search.ranking.proxies import RECIPE, RESOLUTION, RUNG, SHORT, ZERO, covering, measured
from tests.ranking.synthetic import configs, row, scored, table

LONG = "32px-5000img-12ep"


def by_name(rows, **arguments):
    return {proxy.name: proxy for proxy in measured(rows, **arguments).proxies}


def test_the_longest_schedule_is_the_reference():
    found = measured(table(8))
    assert (found.reference.fidelity, found.reference.epochs) == (LONG, 12)
    assert len(found.means) == 8
    assert list(found.rungs) == [1, 2, 4, 8, 12]
    assert found.cost == (300.0, 60_000)
    assert measured(table(8), "16px-5000img-3ep").reference.epochs == 3


def test_every_rung_schedule_and_score_is_a_proxy():
    found = by_name(table(8))
    families = {name: proxy.family for name, proxy in found.items() if not name.endswith("(loss)")}
    assert families == {
        f"{LONG}, epoch 1": RUNG, f"{LONG}, epoch 2": RUNG, f"{LONG}, epoch 4": RUNG, f"{LONG}, epoch 8": RUNG,
        "32px-5000img-2ep, epoch 1": SHORT, "32px-5000img-2ep": SHORT, "16px-5000img-3ep": RESOLUTION,
        "naswot": ZERO, "synflow": ZERO, "params": "size", "MACs": "size", "latency": "latency",
    }  # fmt: skip
    assert found[f"{LONG}, epoch 4"].cpu_seconds == 100.0
    assert found["naswot"].cpu_seconds == 0.4
    assert found["16px-5000img-3ep"].image_steps == 15_000


def test_scores_are_the_rows():
    rows = table(6)
    found = by_name(rows)
    wanted = {r.digest: r.top1 for r in rows if (r.fidelity, r.epoch) == (LONG, 4)}
    assert found[f"{LONG}, epoch 4"].scores == {0: wanted}
    losses = {r.digest: -r.loss for r in rows if (r.fidelity, r.epoch) == (LONG, 4)}
    assert found[f"{LONG}, epoch 4 (loss)"].scores == {0: losses}
    assert found["params"].scores[0][rows[0].digest] == pytest.approx(log(rows[0].params))


def test_a_latency_says_how_it_is_known():
    assert "does not say whether predicted or measured" in by_name(table(6))["latency"].source
    told = by_name(table(6), latency_source="predicted for iPhone 12")
    assert told["latency"].source.endswith("latency predicted for iPhone 12")
    without = by_name([replace(r, latency_ms=None) for r in table(6)])
    assert "latency" not in without


def test_two_recipes_under_one_label_are_two_proxies():
    rows = table(6)
    other = [replace(r, recipe="ffff0000") for r in rows if r.fidelity == "32px-5000img-2ep"]
    names = by_name([*rows, *other])
    assert {"32px-5000img-2ep (recipe ab13)", "32px-5000img-2ep (recipe ffff00)"} <= names.keys()
    variant = [replace(r, fidelity=f"{LONG}-ema", recipe="ee") for r in rows if r.fidelity == LONG]
    found = measured([*rows, *variant])
    assert found.reference.fidelity == LONG  # of equally long ones the plain one
    assert next(p for p in found.proxies if p.name == f"{LONG}-ema").family == RECIPE


def test_counted_scores_are_not_listed_twice():
    extra = [scored(config, name, 1.0) for config in configs(6) for name in ("params", "macs")]
    assert [p.name for p in measured([*table(6), *extra]).proxies].count("params") == 1


def test_failures_are_counted_and_have_no_score():
    rows = table(8)
    bad = row(configs(8)[0], "32px-5000img-2ep", 1, 2, None, error="diverged", recipe="ab13", loss=None)
    found = measured([r for r in rows if (r.digest, r.fidelity) != (bad.digest, bad.fidelity)] + [bad])
    proxy = next(p for p in found.proxies if p.name == "32px-5000img-2ep")
    assert found.failed == 1
    assert bad.digest not in proxy.scores[0]
    digests, _ = covering(proxy, found.means)
    assert len(digests) == 7


def test_the_last_of_two_equal_rows_counts():
    rows = table(6)
    again = replace(rows[4], top1=0.123)
    assert measured([*rows, again]).top1[0][again.digest] == 0.123


def test_seeds_with_gaps_are_left_out():
    rows = table(8, seeds=(0, 1, 2))
    gap = [r for r in rows if not (r.seed == 1 and r.digest == rows[0].digest)]
    found = measured(gap)
    proxy = next(p for p in found.proxies if p.name == f"{LONG}, epoch 2")
    digests, seeds = covering(proxy, found.means)
    assert (len(digests), seeds) == (8, [0, 2])
    assert covering(proxy, ["nobody"]) == ([], [])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda: table(4), "was finished for 4 candidates, fewer than 5"),
        (lambda: [r for r in table(6) if r.epoch < r.epochs and r.top1], "no training of .*reached its last epoch"),
        (lambda: [r for r in table(6) if r.score is not None], "holds no training"),
    ],
)
def test_tables_that_are_not_enough(rows, words):
    with pytest.raises(InputError, match=words):
        measured(rows())


def test_an_unknown_reference_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="did you mean '32px-5000img-12ep'"):
        measured(table(6), "32px-5000img-11ep")
