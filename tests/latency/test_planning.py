"""The design of measurements: greedy steps against brute force, the determinant lemma, and random designs."""

import itertools
import math
import random
from functools import cache

import numpy as np
import pytest

from mvit_search.analysis.measuring_plan import choose
from mvit_search.analysis.space_survey import sample
from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.architecture.ops import parts
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget, load_target
from mvit_search.latency.calibrating.planning import d_optimal, information_rows, log_det
from mvit_search.latency.features import Features, features
from mvit_search.latency.target_file import TargetFile
from mvit_search.profile.cost import params_of
from mvit_search.space import load_space


@cache
def target(name: str = "iphone12") -> TargetFile:
    loaded = load_target(name)
    assert isinstance(loaded, PredictedTarget)
    return loaded.file


@cache
def pool(size: int = 150) -> tuple[MobileViTConfig, ...]:
    return tuple(one.config for one in sample(load_space("mobilevit"), load_target("iphone12"), size, budget=6_000_000))


@cache
def pool_features(size: int = 150) -> tuple[Features, ...]:
    return tuple(features(parts(config)) for config in pool(size))


def test_the_first_is_the_best_single_one_and_a_few_are_nearly_the_best_few():
    small = pool_features()[:12]
    rows, ridge = information_rows(small, target()), target().settings.ridge
    for count in (1, 2, 3, 4):
        best = max(log_det(rows[list(places)], ridge) for places in itertools.combinations(range(12), count))
        found = d_optimal(small, target(), count).log_det
        assert found <= best + 1e-9
        assert found >= (1 - 1 / math.e) * best
        assert found >= 0.95 * best  # of these networks, greedy is far better than its bound
        if count == 1:
            assert found == pytest.approx(best)


def test_every_step_adds_what_raises_the_determinant_most():
    rows, ridge = information_rows(pool_features(), target()), target().settings.ridge
    chosen = d_optimal(pool_features(), target(), 6).chosen
    for step in range(len(chosen)):
        before = list(chosen[:step])
        gains = [-math.inf if p in before else log_det(rows[[*before, p]], ridge) for p in range(len(rows))]
        assert int(np.argmax(gains)) == chosen[step]


def test_the_lemma_agrees_with_determinant_and_inverse():
    rows, ridge = information_rows(pool_features(), target()), target().settings.ridge
    design = d_optimal(pool_features(), target(), 25)
    measured = rows[list(design.chosen)]
    assert design.log_det == pytest.approx(log_det(measured, ridge), rel=1e-9)

    def worst(information):
        return 100 * math.sqrt(ridge * max(row @ np.linalg.solve(information, row) for row in rows))

    nothing = ridge * np.eye(rows.shape[1])
    assert design.error_before_percent == pytest.approx(worst(nothing))
    assert design.error_after_percent == pytest.approx(worst(nothing + measured.T @ measured))
    assert design.error_after_percent < 0.2 * design.error_before_percent


@pytest.mark.parametrize("name", ["iphone12", "iphone13", "iphone14"])
def test_no_random_design_tells_as_much(name):
    rows, ridge = information_rows(pool_features(), target(name)), target(name).settings.ridge
    rng = random.Random(0)
    for count in (5, 20):
        found = d_optimal(pool_features(), target(name), count)
        assert len(set(found.chosen)) == count
        drawn = [log_det(rows[rng.sample(range(len(rows)), count)], ridge) for _ in range(100)]
        assert found.log_det > max(drawn) + 1


def test_a_design_begins_with_the_smaller_ones_and_ends_with_the_pool():
    long, short = d_optimal(pool_features(), target(), 30), d_optimal(pool_features(), target(), 8)
    assert long.chosen[:8] == short.chosen
    assert sorted(d_optimal(pool_features()[:5], target(), 9).chosen) == [0, 1, 2, 3, 4]
    twins = (*pool_features()[:3], *pool_features()[:3])
    assert len(set(d_optimal(twins, target(), 6).chosen)) == 6


def test_none_and_nothing_are_refused():
    with pytest.raises(InputError, match="at least 1"):
        d_optimal(pool_features(), target(), 0)
    with pytest.raises(InputError, match="no candidate"):
        d_optimal((), target(), 3)


def test_a_choice_of_a_space_is_inside_the_budget_and_the_same_each_time():
    arguments = (load_space("mobilevit"), load_target("iphone12"), 6)
    choice = choose(*arguments, budget=3_000_000, seed=4, pool=60)
    assert choice == choose(*arguments, budget=3_000_000, seed=4, pool=60)
    assert choice.planned != choose(*arguments, budget=3_000_000, seed=5, pool=60).planned
    digests = {network.config.digest() for network in choice.planned}
    assert len(digests) == 6
    assert all(params_of(network.config) <= 3_000_000 for network in choice.planned)
    assert choice.pool == 62  # with XXS and XS


def test_presets_are_in_the_pool_by_name():
    choice = choose(load_space("mobilevit"), load_target("iphone12"), 23, budget=6_000_000, pool=20)
    names = {network.name: network.config for network in choice.planned}
    assert {name for name in names if not name.startswith("candidate-")} == {
        "mobilevit-xxs", "mobilevit-xs", "mobilevit-s",
    }  # fmt: skip
    assert names["mobilevit-s"] == PRESETS["mobilevit-s"]


def test_a_target_that_measures_needs_no_plan():
    with pytest.raises(InputError, match="measures"):
        choose(load_space("mobilevit"), load_target("cpu-torch"), 5)
