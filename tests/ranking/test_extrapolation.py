"""Continued learning curves: exact where the curve has the shape, robust where one rung lies."""

import numpy as np
import pytest

from mvit_search.ranking.extrapolation import Curves, extrapolated_proxies, last_slope, power_law, shared_exponent
from mvit_search.ranking.proxies import measured
from tests.ranking.synthetic import table

EPOCHS = (1, 2, 4, 8)


def curves(exponent, noise=0.0, count=20, seed=0):
    rng = np.random.default_rng(seed)
    level, fall = rng.uniform(0.5, 0.8, count), rng.uniform(0.1, 0.4, count)
    times = np.array(EPOCHS, dtype=float) ** -exponent
    values = level[:, None] - fall[:, None] * times + noise * rng.normal(size=(count, len(EPOCHS)))
    return Curves(EPOCHS, values), level - fall * 40.0**-exponent


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.0, 2.0])
def test_a_power_law_is_continued_exactly(exponent):
    found, end = curves(exponent)
    assert shared_exponent(found) == exponent
    assert power_law(found, 40) == pytest.approx(end)


def test_noise_moves_it_little():
    found, end = curves(0.5, noise=0.005)
    assert np.median(np.abs(power_law(found, 40) - end)) < 0.02


def test_one_bad_rung_does_not_carry_it_away():
    found, end = curves(1.0)
    found.accuracies[3, 1] -= 0.3
    assert power_law(found, 40)[3] == pytest.approx(end[3], abs=0.1)
    # The line through the last two rungs would believe a bad one.
    found.accuracies[3, 3] -= 0.3
    assert abs(last_slope(found, 40)[3] - end[3]) > 0.3


def test_a_falling_curve_is_taken_as_flat():
    found = Curves((1, 2, 4), np.array([[0.3, 0.2, 0.1], [0.1, 0.2, 0.25]]))
    assert power_law(found, 100)[0] == pytest.approx(0.2)


def test_the_last_slope_by_hand():
    """0.2 at 2 and 0.3 at 4: 0.1 a doubling, so 0.5 at 16."""
    assert last_slope(Curves((2, 4), np.array([[0.2, 0.3]])), 16) == pytest.approx([0.5])


def test_a_proxy_costs_what_its_last_rung_costs_and_never_sees_the_end():
    rows = table(12, seeds=(0, 1))
    found = measured(rows)
    proxies = {proxy.name: proxy for proxy in extrapolated_proxies(found)}
    assert len(proxies) == 5  # to 2, 4 and 8 by the slope, to 4 and 8 by the power law
    one = proxies["32px-5000img-12ep, epoch 4 continued (power law)"]
    assert (one.cpu_seconds, one.image_steps, sorted(one.scores)) == (100.0, 20_000, [0, 1])
    changed = [r if r.epoch != 12 else r.__class__(**{**vars(r), "top1": 1 - r.top1}) for r in rows]
    again = {proxy.name: proxy for proxy in extrapolated_proxies(measured(changed))}
    assert again[one.name].scores == one.scores
