"""Several hard limits at once: what breaks them, what can be reached, what a draw keeps."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvit_search.errors import InputError
from mvit_search.latency import load_target
from mvit_search.profile import cost
from mvit_search.search.descent import descend
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly, unseen
from mvit_search.space import load_space, space_names

SPACE = load_space("mobilevit")
TARGET = load_target("iphone12")
COSTS = ("params", "macs", "weight_bytes", "peak_activation_bytes")
AMPLE = {"params": 10**12, "num_classes": 1000}


@given(st.randoms(use_true_random=False), st.lists(st.floats(0.5, 2), min_size=6, max_size=6))
@settings(max_examples=30)
def test_each_broken_limit_is_told_with_its_share_and_no_other(rng, shares):
    config = SPACE.config(SPACE.draw(rng))
    costs, ms, top1 = cost(config), TARGET.latency(config).ms, 0.4
    limited = {key: max(1, round(share * getattr(costs, key))) for key, share in zip(COSTS, shares, strict=False)}
    limits = Limits(**limited, num_classes=1000, latency_ms=shares[4] * ms, min_top1=shares[5] * top1)
    over = {key: getattr(costs, key) / most - 1 for key, most in limited.items()}
    expected = {key: share for key, share in over.items() if share > 0}
    assert limits.excess(config) == pytest.approx(expected)
    latency = {"latency_ms": 1 / shares[4] - 1} if shares[4] < 1 else {}
    assert limits.excess(config, ms) == pytest.approx(expected | latency)
    value = {"top1": 1 - 1 / shares[5]} if shares[5] > 1 else {}
    assert limits.excess_after(top1, ms) == pytest.approx(latency | value)
    assert limits.excess_after(None, None) == {}


def test_what_is_at_its_limit_fits():
    config = SPACE.smallest()
    costs, ms = cost(config), TARGET.latency(config).ms
    exact = Limits(costs.params, 1000, costs.macs, costs.peak_activation_bytes, costs.weight_bytes, ms, 0.5)
    assert exact.excess(config, ms) == {}
    assert exact.excess_after(0.5, ms) == {}


@pytest.mark.parametrize(
    ("limit", "option", "unit"),
    [
        ({"macs": 1000}, "--max-macs", "MACs"),
        ({"weight_bytes": 1000}, "--max-weights", "KiB"),
        ({"peak_activation_bytes": 1000}, "--max-memory", "KiB"),
        ({"latency_ms": 0.1}, "--max-latency", r"ms \(predicted\)"),
        ({"params": 1000}, "--budget", "parameters"),
    ],
)
def test_a_limit_beyond_the_space_says_its_smallest_reachable_value(limit, option, unit):
    space = load_space("mobilevit-mini")
    with pytest.raises(InputError, match=rf"^{option} {next(iter(limit.values()))}: nothing in space .*{unit}") as told:
        Limits(**AMPLE | limit).check_reachable(space, TARGET)
    assert "\n" not in str(told.value)


def reachable(space, key):
    """The least of a cost, by the descent that `check_reachable` uses."""
    found = descend(space, space.params(space.smallest()), lambda config: getattr(cost(config), key))
    return getattr(cost(space.config(found)), key)


@pytest.mark.parametrize("name", ["mobilevit-mini", "mobilevit-patch"])
@pytest.mark.parametrize("key", COSTS)
def test_the_smallest_reachable_value_is_that_of_every_candidate(name, key):
    space = load_space(name)
    least = min(getattr(cost(space.config(params)), key) for params in space.assignments())
    assert reachable(space, key) == least
    Limits(**AMPLE | {key: least}).check_reachable(space)
    with pytest.raises(InputError, match=f"{least:,}"):
        Limits(**AMPLE | {key: least - 1}).check_reachable(space)


@pytest.mark.parametrize("name", space_names())
def test_no_draw_is_below_what_is_called_the_smallest(name):
    space, rng = load_space(name), random.Random(1)
    drawn = [cost(space.config(space.scaled(space.draw(rng), 0.0))) for _ in range(100)]
    for key in COSTS:
        assert min(getattr(costs, key) for costs in drawn) >= reachable(space, key)


def test_limits_that_cannot_be_kept_together_name_the_tightest():
    # Alone each can be: the least parameters are those of the smallest network, the least latency has more.
    fewest, fastest = 285_000, 1.47
    Limits(fewest, 1000, latency_ms=fastest).check_reachable(SPACE)  # Nothing is known of latencies without a target.
    Limits(fewest, 1000).check_reachable(SPACE, TARGET)
    Limits(10**9, 1000, latency_ms=fastest).check_reachable(SPACE, TARGET)
    limits = Limits(fewest, 1000, macs=89_600_000, latency_ms=fastest)
    words = "nothing was found in space mobilevit that keeps it within --budget and --max-macs as well; the nearest has"
    with pytest.raises(InputError, match=rf"^--max-latency 1.47: {words} 1\.5\d\d ms \(predicted\)$"):
        limits.check_reachable(SPACE, TARGET)


def test_a_limit_that_the_smallest_network_misses_and_another_keeps_is_reachable():
    smallest = cost(SPACE.smallest())
    assert reachable(SPACE, "macs") < smallest.macs
    Limits(smallest.params, 1000, macs=smallest.macs - 1).check_reachable(SPACE)


@pytest.mark.parametrize(
    "limits", [{"macs": 300_000_000}, {"macs": 95_000_000, "peak_activation_bytes": 2_700_000}, {"latency_ms": 3.0},
               {"weight_bytes": 2_000_000, "latency_ms": 2.0}]
)  # fmt: skip
def test_draws_keep_every_limit(limits):
    chosen, rng = Limits(6_000_000, 1000, **limits), random.Random(3)

    def excess(config):
        return chosen.excess(config, TARGET.latency(config).ms)

    drawn = [SPACE.config(draw_evenly(SPACE, chosen, (place + 0.5) / 20, rng, excess)) for place in range(20)]
    assert not any(excess(config) for config in drawn)
    assert len({config.digest() for config in drawn}) == 20
    found = unseen(SPACE, chosen, {config.digest() for config in drawn}, rng, excess=excess)
    assert found is not None
    assert not excess(SPACE.config(found))
