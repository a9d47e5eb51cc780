"""Rank correlations and their intervals against scipy, hand counts and known noise."""

import math

import numpy as np
import pytest
from scipy import stats

from mvit_search.ranking.statistics import (
    advantage,
    agreement,
    kendall,
    repeatability,
    resampled_rhos,
    resampled_taus,
    resamples,
    spread,
)


def test_tau_b_counted_by_hand():
    """Pairs of (1,1) (2,3) (2,2) (3,2): 3 concordant, 1 discordant, one tied in each; sqrt((6-1)(6-1)) = 5.

    (1,1)-(2,3) +, (1,1)-(2,2) +, (1,1)-(3,2) +, (2,3)-(2,2) tie, (2,3)-(3,2) -, (2,2)-(3,2) tie.
    """
    assert kendall(np.array([1.0, 2, 2, 3]), np.array([1.0, 3, 2, 2])) == pytest.approx(2 / 5)


def test_resampled_values_are_those_of_scipy_on_the_resample():
    rng = np.random.default_rng(0)
    first = np.round(rng.normal(size=30), 1)  # with ties
    second = np.round(first + rng.normal(size=30), 1)
    weights = resamples(30, 40, 1)
    assert weights.sum(axis=1) == pytest.approx(np.full(40, 30))
    taus, rhos = resampled_taus(first, second, weights), resampled_rhos(first, second, weights)
    for draw, counts in enumerate(weights):
        chosen = np.repeat(np.arange(30), counts.astype(int))
        assert taus[draw] == pytest.approx(stats.kendalltau(first[chosen], second[chosen]).statistic)
        assert rhos[draw] == pytest.approx(stats.spearmanr(first[chosen], second[chosen]).statistic)


def test_a_resample_of_one_candidate_has_no_ranking_and_is_left_out():
    values = np.arange(3.0)
    alone, two = np.array([0.0, 3, 0]), np.array([2.0, 0, 1])
    assert np.isnan(resampled_taus(values, values, np.stack([alone, two]))).tolist() == [True, False]
    assert np.isnan(resampled_rhos(values, values, np.stack([alone, two]))).tolist() == [True, False]
    found = agreement(values[None], values, draws=200)
    assert found is not None
    assert found.tau == found.rho == (1, 1, 1)


def test_order_alone_counts_and_the_seed_decides():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=25)
    scores = reference + rng.normal(size=25)
    found = agreement(scores[None], reference)
    assert found is not None
    raised = agreement(np.exp(3 * scores)[None], reference)
    assert raised is not None
    assert (found.tau, found.rho) == (raised.tau, raised.rho)
    turned = agreement(-scores[None], reference)
    assert turned is not None
    assert turned.tau == pytest.approx((-found.tau.value, -found.tau.high, -found.tau.low))
    other = agreement(scores[None], reference, seed=1)
    assert other is not None
    assert other.tau.value == found.tau.value
    assert other.tau.low != found.tau.low


def test_several_seeds_are_worth_the_mean_of_each():
    rng = np.random.default_rng(2)
    reference = rng.normal(size=40)
    scores = reference + rng.normal(size=(3, 40))
    found = agreement(scores, reference)
    assert found is not None
    assert found.tau.value == pytest.approx(np.mean([kendall(row, reference) for row in scores]))
    assert (found.seeds, found.candidates) == (3, 40)
    # The mean of three trainings ranks better than one, and is not what a search pays for.
    assert kendall(scores.mean(axis=0), reference) > found.tau.value


@pytest.mark.parametrize(("scores", "reference"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_what_is_all_equal_ranks_nothing(scores, reference):
    assert agreement(np.array([scores], dtype=float), np.array(reference, dtype=float)) is None


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_interval_covers_the_truth(correlation):
    """Jointly normal values have tau = 2/pi asin(r). At 40 candidates the 95 % percentile interval covers it in 90 to
    99 % of 300 tables: a shift of the interval by half its width would leave half of that."""
    rng = np.random.default_rng(3)
    truth = 2 / math.pi * math.asin(correlation)
    hits = 0
    for _ in range(300):
        reference = rng.normal(size=40)
        scores = correlation * reference + math.sqrt(1 - correlation**2) * rng.normal(size=40)
        found = agreement(scores[None], reference, draws=300)
        assert found is not None
        hits += found.tau.low <= truth <= found.tau.high
    assert 0.90 * 300 <= hits <= 0.99 * 300


def test_a_paired_difference_is_narrower_than_two_intervals_apart():
    """Two copies of one score differ by nothing; two alike scores by less than their own intervals say."""
    rng = np.random.default_rng(4)
    reference = rng.normal(size=50)
    first = reference + rng.normal(size=50)
    second = first + 0.1 * rng.normal(size=50)
    ours, theirs = (agreement(values[None], reference) for values in (first, second))
    assert ours is not None
    assert theirs is not None
    assert advantage(ours, ours) == (0, 0, 0)
    found = advantage(ours, theirs)
    assert found.value == pytest.approx(ours.tau.value - theirs.tau.value)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.5 * (ours.tau.high - ours.tau.low)


def test_the_spread_is_the_benchmarks():
    """std of means over the root of the mean variance, as `benchmarks/proxy_spread.py` prints them."""
    found = spread([[1.0, 3.0], [5.0, 5.0], [9.0, 11.0]])
    assert found.between == pytest.approx(math.sqrt(49 / 3))  # of 2, 5 and 10
    assert found.within == pytest.approx(math.sqrt(4 / 3))
    assert found.ratio == pytest.approx(found.between / found.within)
    assert found.corrected == pytest.approx(math.sqrt(found.between**2 - found.within**2 / 2))


def test_spreads_with_seeds_missing():
    found = spread([[1.0, 3.0], [5.0], [9.0, 11.0, 10.0]])
    assert found.within == pytest.approx(math.sqrt((2.0 * 1 + 1.0 * 2) / 3))
    assert spread([[1.0], [2.0]]).within is None
    noise = spread([[1.0, 9.0], [9.0, 1.0]])
    assert (noise.between, noise.corrected, noise.ratio) == (0, 0, 0)


def test_the_corrected_spread_is_the_true_one():
    rng = np.random.default_rng(0)
    worth = 2.0 * rng.normal(size=4000)
    found = spread((worth[:, None] + 3.0 * rng.normal(size=(4000, 3))).tolist())
    assert found.corrected == pytest.approx(2.0, rel=0.05)
    assert found.within == pytest.approx(3.0, rel=0.02)
    assert found.between > 2.5


def test_the_ceiling_is_what_a_perfect_score_reaches():
    """A score without noise, held to means over three noisy seeds, reaches the ceiling, and no more."""
    rng = np.random.default_rng(6)
    worth = rng.normal(size=1500)
    finals = worth[:, None] + 1.5 * rng.normal(size=(1500, 3))
    found = repeatability(finals.tolist(), draws=50)
    assert found is not None
    assert found.reliability == pytest.approx(1 / (1 + 1.5**2 / 3), abs=0.04)
    assert found.ceiling == pytest.approx(kendall(worth, finals.mean(axis=1)), abs=0.03)
    # Two single trainings: the correlation is 1 / (1 + 1.5²).
    assert found.repeat is not None
    assert found.repeat.value == pytest.approx(2 / math.pi * math.asin(1 / (1 + 1.5**2)), abs=0.03)
    assert found.repeat.low < found.repeat.value < found.repeat.high


def test_one_seed_says_nothing_of_repeating():
    assert repeatability([[0.5], [0.6]]) is None
    assert repeatability([[0.5, 0.5]] * 6) is None
    few = [[0.1, 0.2], [0.3, 0.2], [0.5, 0.6], [0.7, 0.7]]
    assert repeatability([*few, [0.9]]) is None
    assert repeatability([*few, [0.9, 0.8]]) is not None
