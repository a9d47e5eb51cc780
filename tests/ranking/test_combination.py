"""Combining two scores: gains where both know something, chance where neither does, and no leak."""

import numpy as np
import pytest

from mvit_search.ranking.combination import FOLDS, REPEATS, _training_masks, combined, combined_proxies
from mvit_search.ranking.proxies import measured
from mvit_search.ranking.statistics import kendall
from tests.ranking.synthetic import table


def test_every_repeat_leaves_every_candidate_out_once():
    masks = _training_masks(23, 0).reshape(REPEATS, FOLDS, 23)
    assert ((~masks).sum(axis=1) == 1).all()


def test_a_held_out_accuracy_moves_nothing_of_its_own_fits():
    """Score i is the mean over fits without i: move accuracy i alone, and only the others' scores may change."""
    rng = np.random.default_rng(0)
    training, partners, reference = rng.normal(size=20), rng.normal(size=(3, 20)), rng.normal(size=20)
    before = combined(training, partners, reference)
    for index in (0, 7, 19):
        moved = reference.copy()
        moved[index] += 10.0
        after = combined(training, partners, moved)
        assert after.scores[index] == before.scores[index]
        assert (np.delete(after.scores, index) != np.delete(before.scores, index)).any()


@pytest.mark.parametrize(("count", "partners"), [(15, 1), (24, 8)])
def test_pure_noise_ranks_by_chance(count, partners):
    """The mean tau over 300 tables of noise is zero within four standard errors (0.05); in-sample fits would give
    0.15 and more, and predictions with an intercept about as much below zero."""
    rng = np.random.default_rng(1)
    taus, fitted = [], []
    for seed in range(300):
        training, others = rng.normal(size=count), rng.normal(size=(partners, count))
        reference = rng.normal(size=count)
        taus.append(kendall(combined(training, others, reference, seed=seed).scores, reference))
        both = np.stack([training, others[0]], axis=1)
        weights, *_ = np.linalg.lstsq(both - both.mean(axis=0), reference - reference.mean(), rcond=None)
        fitted.append(kendall(both @ weights, reference))
    assert abs(np.mean(taus)) < 4 * np.std(taus) / 300**0.5
    assert np.mean(fitted) > 0.1  # so that a leak would show


def test_two_scores_with_noise_of_their_own_rank_better_together():
    rng = np.random.default_rng(2)
    gains = []
    for seed in range(40):
        reference = rng.normal(size=40)
        training, partner = (reference + rng.normal(size=40) for _ in range(2))
        found = combined(training, partner[None], reference, seed=seed)
        gains.append(kendall(found.scores, reference) - kendall(training, reference))
        assert 0.2 < np.median(found.shares) < 0.8
    assert np.mean(gains) > 0.05


def test_a_useless_partner_gets_little_weight_and_the_useful_one_is_chosen():
    rng = np.random.default_rng(3)
    reference = rng.normal(size=60)
    training = reference + 0.5 * rng.normal(size=60)
    alone = combined(training, rng.normal(size=(1, 60)), reference)
    assert np.median(np.abs(alone.shares)) < 0.2
    others = np.stack([rng.normal(size=60), reference + 0.5 * rng.normal(size=60), rng.normal(size=60)])
    assert (combined(training, others, reference).partners == 1).all()


def test_a_partner_that_ranks_backwards_is_turned_round():
    rng = np.random.default_rng(4)
    reference = rng.normal(size=40)
    training, partner = reference + rng.normal(size=40), -reference + 0.5 * rng.normal(size=40)
    found = combined(training, partner[None], reference)
    assert np.median(found.shares) < -0.3
    assert kendall(found.scores, reference) > kendall(training, reference)


def test_proxies_of_a_table():
    proxies = {proxy.name: proxy for proxy in combined_proxies(measured(table(24)))}
    one = proxies["32px-5000img-2ep + params"]
    assert one.fitted
    assert len(one.weights) == FOLDS * REPEATS
    assert one.cpu_seconds == 50.0
    best = proxies["32px-5000img-2ep + the best partner"]
    assert "% of fits" in best.source
    assert not any("(loss)" in name for name in proxies)
    assert combined_proxies(measured(table(9))) == []
