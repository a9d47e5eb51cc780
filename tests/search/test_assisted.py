"""The assisted sampler beyond the contract of all samplers: what its model learns, and which child it proposes."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution

from mvit_search.records import hypervolume
from mvit_search.search.samplers import Problem, Turn, assisted, make_sampler
from mvit_search.search.samplers.assisted import Places, Process
from mvit_search.search.sampling import Draft, Sampling
from tests.search.fakes import make_plan

SPACE = {
    **{f"n{index}": IntDistribution(0, 20, step=2) for index in range(6)},
    "kind": CategoricalDistribution(("a", "b", "c")),
    "ratio": CategoricalDistribution((1.0, 2.0, 4.0)),
    "fixed": IntDistribution(3, 3),
}


def value(params) -> float:
    return 0.3 + 0.05 * params["n0"] / 20 + 0.2 * (params["kind"] == "b") - 0.1 * (params["n1"] / 20 - 0.5) ** 2


def cost(params) -> tuple[float, ...]:
    return (1.0 + params["n2"] + params["n3"] + params["ratio"],)


def study(seed, count, *, name="nsga2", costs=None, noise=0.0):
    """A study of so many trials that `name` proposed, all finished; values with noise."""
    sampling, rng = Sampling(["maximize", "minimize"], SPACE, lambda key, value: None), random.Random(seed)
    problem = Problem(SPACE, 2, 200, 10, costs)
    for index in range(count):
        if index < 10:
            draft = Draft({key: rng.choice(choices(each)) for key, each in SPACE.items()}, {})
        else:
            draft = sampling.propose(make_sampler(name, Turn(seed, index), problem))
        trial = sampling.admit(draft, {})
        sampling.set_values(trial.number, [value(trial.params) + rng.gauss(0, noise), *cost(trial.params)])
    return sampling, problem


def choices(distribution):
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return range(distribution.low, distribution.high + 1, distribution.step)


def trials(sampling):
    return sampling._study.get_trials(deepcopy=False)


def found(sampling) -> float:
    """What the trials are worth without the noise."""
    return hypervolume([(trial.values[1], value(trial.params)) for trial in trials(sampling)], 50.0)


def test_it_finds_more_than_unassisted_from_the_same_number_of_trials():
    pairs = [
        (found(study(s, 50, name="assisted", costs=cost, noise=0.02)[0]), found(study(s, 50, noise=0.02)[0]))
        for s in range(6)
    ]
    assert sum(assisted > plain for assisted, plain in pairs) >= 5


def test_without_known_costs_it_learns_them():
    pairs = [
        (found(study(s, 50, name="assisted", noise=0.02)[0]), found(study(s, 50, noise=0.02)[0])) for s in range(6)
    ]
    assert sum(assisted > plain for assisted, plain in pairs) >= 5


def test_what_breaks_a_limit_is_not_proposed_while_another_child_keeps_it():
    def limited(params):
        return cost(params) if params["n2"] + params["n3"] <= 16 else None

    sampling, _ = study(1, 40, name="assisted", costs=limited)
    over = [limited(trial.params) is None for trial in trials(sampling)]
    assert any(over[:10])
    assert not any(over[20:])


def test_a_child_that_is_known_is_left_out():
    sampling, _ = study(2, 60, name="assisted", costs=cost)
    keys = [tuple(sorted(trial.params.items())) for trial in trials(sampling)]
    assert len({*keys[10:]}) == len(keys[10:])


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-50.0, 200.0)])
def test_values_may_have_any_scale(scale):
    """Zero-cost scores are no shares: the proposal is the same on another scale."""
    shift, factor = scale
    sampling, problem = study(3, 30, costs=cost)
    for trial in trials(sampling):
        sampling.set_values(trial.number, [shift + factor * value(trial.params), *cost(trial.params)])
    draft = sampling.propose(make_sampler("assisted", Turn(3, 30), problem))
    assert draft.params.keys() == SPACE.keys()


@given(st.integers(0, 10_000))
def test_the_model_interpolates_what_is_smooth_and_is_unsure_far_away(seed):
    rng = np.random.default_rng(seed)
    seen = rng.uniform(size=(60, 5))
    values = 3 + seen[:, 0] - np.sin(2 * seen[:, 1])
    model = Process.fitted(seen, values)
    at = rng.uniform(size=(40, 5))
    expected, deviation = model.predicted(at)
    assert np.corrcoef(expected, 3 + at[:, 0] - np.sin(2 * at[:, 1]))[0, 1] > 0.9
    _, far = model.predicted(at + 3)
    assert (deviation >= 0).all()
    assert far.min() > deviation.max()


def test_equal_values_are_no_trouble():
    seen = np.random.default_rng(0).uniform(size=(20, 3))
    expected, deviation = Process.fitted(seen, np.full(20, 0.4)).predicted(seen)
    assert np.allclose(expected, 0.4)
    assert np.isfinite(deviation).all()


def test_places_put_numbers_in_their_range_and_categories_one_apart():
    places = Places(SPACE)
    base = {key: choices(each)[0] for key, each in SPACE.items()}
    moved = [base, {**base, "n0": 20}, {**base, "kind": "c"}, {**base, "ratio": 2.0}]
    at = places.of(moved)
    squares = [float(((row - at[0]) ** 2).sum()) for row in at]
    assert squares == pytest.approx([0, 1, 1, (1 / 3) ** 2])


def test_a_run_tells_what_candidates_cost_as_its_front_has_it():
    plan = make_plan(objectives=("top1", "params", "latency_ms"), sampler="assisted")
    known = plan.problem(20).costs
    assert known is not None
    config = plan.presets()["mobilevit-xs"]
    assert known(plan.space.params(config)) == (plan.target.latency(config, 1000).ms, 2_317_848.0)
    tight = make_plan(budget=1_000_000).problem(20).costs
    assert tight is not None
    assert tight(plan.space.params(config)) is None


def test_few_trials_are_not_modelled(monkeypatch):
    monkeypatch.setattr(assisted, "LEAST", 1000)
    sampling, problem = study(4, 30, costs=cost)
    turn = Turn(4, 30)
    plain = sampling.propose(make_sampler("nsga2", turn, problem))
    first = sampling.propose(make_sampler("assisted", turn, problem))
    assert plain.params.keys() == first.params.keys()
    shared = [key for key in plain.params if plain.params[key] == first.params[key]]
    assert len(shared) >= len(SPACE) - 3  # what was to be mutated is drawn apart
