"""Fronts and hypervolumes of any number of objectives, all at once and record by record."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.records import (
    Front,
    LatencyFact,
    Record,
    check_objectives,
    hypervolume,
    indistinguishable,
    knee,
    pareto_front,
)
from mvit_search.records.pareto import hypervolume_added

CONFIG = PRESETS["mobilevit-xxs"]
PLAIN = LatencyFact(ms=1.0, low_ms=1.0, high_ms=1.0, source="predicted: x", target="x", protocol="p")
THREE = ("top1", "latency_ms", "params")
FOUR = (*THREE, "peak_activation_bytes")
OBJECTIVES = [("top1", "latency_ms"), ("top1", "params"), THREE, FOUR]
REFERENCE = {"top1": 0.0, "latency_ms": 6.0, "params": 6.0, "peak_activation_bytes": 6.0}


def make(number: int, *costs: int, top1: tuple[float, ...] = (), within: bool = True, scored: bool = False) -> Record:
    """A record of (latency in ms, params, peak bytes); without a top-1 a failed one."""
    ms, params, peak = (*costs, 1, 1)[:3]
    values = {("score_by_seed" if scored else "top1_by_seed"): dict(enumerate(top1))}
    return Record(
        number=number, origin="sampler", outcome=("scored" if scored else "trained") if top1 else "failed",
        digest=str(number), config=CONFIG, params=params, macs=1, weight_bytes=1, peak_activation_bytes=peak,
        latency=PLAIN.model_copy(update={"ms": float(ms)}), within=within, **values,
    )  # fmt: skip


figure = st.integers(1, 7)
rows = st.tuples(figure, figure, figure, st.one_of(st.none(), st.integers(0, 6)), st.booleans())


def of_row(number, row):
    ms, params, peak, top1, broken = row
    return make(number, ms, params, peak, top1=() if top1 is None else (top1 / 6,), within=not broken or top1 != 3)


def values(record, objectives):
    return tuple(-record.value if key == "top1" else float(getattr(record, key)) for key in objectives)


@given(st.lists(rows, max_size=30), st.sampled_from(OBJECTIVES))
def test_a_front_is_what_no_other_dominates(raw, objectives):
    records = [of_row(number, row) for number, row in enumerate(raw)]
    having = [(values(r, objectives), r.number) for r in records if r.succeeded]
    wanted = {
        number
        for own, number in having
        if not any(
            all(x <= y for x, y in zip(other, own, strict=True)) and (other, n) < (own, number)
            for other, n in having
            if n != number and (other != own or n < number)
        )
    }
    front = pareto_front(records, objectives)
    assert {r.number for r in front} == wanted
    cost = "latency_ms" if "latency_ms" in objectives else objectives[1]
    assert [getattr(r, cost) for r in front] == sorted(getattr(r, cost) for r in front)


@given(st.lists(st.tuples(st.integers(0, 11), rows), max_size=40), st.sampled_from(OBJECTIVES))
def test_a_front_kept_up_to_date_is_that_of_all_records(steps, objectives):
    front, known = Front(objectives, REFERENCE), {}
    for number, row in steps:
        record = of_row(number, row)
        before = front.members
        changed = front.update(record) if number in known else front.add(record)
        known[number] = record
        assert front.members == pareto_front(known.values(), objectives)
        assert changed or front.members == before
        costs = [key for key in objectives if key != "top1"]
        points = [(*(getattr(r, key) for key in costs), r.value) for r in known.values() if r.succeeded]
        assert front.hypervolume() == pytest.approx(hypervolume(points, *(REFERENCE[key] for key in costs)))


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 6)] * (n + 1)), max_size=9)))
def test_a_hypervolume_is_the_count_of_dominated_cells(raw):
    side = 5
    axes = len(raw[0]) if raw else 3
    cells = itertools.product(range(side), repeat=axes)
    raw = [(*row[:-1], min(row[-1], side)) for row in raw]
    dominated = sum(
        any(all(cost <= x for cost, x in zip(row[:-1], cell, strict=False)) and row[-1] > cell[-1] for row in raw)
        for cell in cells
    )
    found = hypervolume([(*map(float, row[:-1]), row[-1] / side) for row in raw], *[float(side)] * (axes - 1))
    assert found == pytest.approx(dominated / side**axes)


@pytest.mark.parametrize("costs", [1, 2, 3, 4])
def test_volumes_added_one_by_one_make_the_whole(costs):
    rng = random.Random(costs)
    points = [tuple(rng.random() for _ in range(costs + 1)) for _ in range(30)]
    worst = [0.9] * costs
    added = [hypervolume_added(point, points[:index], *worst) for index, point in enumerate(points)]
    assert min(added) >= -1e-12
    assert list(itertools.accumulate(added)) == pytest.approx([hypervolume(points[: n + 1], *worst) for n in range(30)])


@pytest.mark.parametrize("costs", [2, 3, 4])
def test_a_hypervolume_agrees_with_optunas(costs):
    import numpy as np
    from optuna._hypervolume import compute_hypervolume

    rng = random.Random(costs)
    points = [tuple(rng.random() for _ in range(costs + 1)) for _ in range(40)]
    inside = [point for point in points if max(point[:-1]) <= 0.9]
    turned = np.array([(*point[:-1], -point[-1]) for point in inside])
    wanted = compute_hypervolume(turned, np.array([*[0.9] * costs, 0.0])) / 0.9**costs
    assert hypervolume(points, *[0.9] * costs) == pytest.approx(wanted)


def test_scores_have_a_front_and_no_hypervolume():
    front = Front()
    front.add(make(0, 2, top1=(-70.0,), scored=True))
    front.add(make(1, 1, top1=(-80.0,), scored=True))
    assert [r.number for r in front.members] == [1, 0]
    assert front.hypervolume() is None
    assert Front(THREE, REFERENCE).hypervolume() == 0


def test_a_candidate_over_a_limit_or_stopped_is_on_no_front():
    fine = make(0, 5, top1=(0.5,))
    over = make(1, 1, top1=(0.9,), within=False)
    stopped = make(2, 1, top1=(0.9,)).model_copy(update={"outcome": "stopped", "top1_by_seed": {}})
    front = Front()
    for record in (fine, over, stopped):
        front.add(record)
    assert pareto_front([fine, over, stopped]) == front.members == (fine,)
    front.update(make(2, 1, top1=(0.9,)))
    assert [r.number for r in front.members] == [2]
    front.update(stopped)
    assert front.members == (fine,)


def test_a_knee_weighs_the_mean_of_the_costs():
    records = [make(0, 1, 1, top1=(0.2,)), make(1, 3, 4, top1=(0.7,)), make(2, 2, 5, top1=(0.72,)),
               make(3, 6, 6, top1=(0.8,))]  # fmt: skip
    assert knee(pareto_front(records, THREE), THREE).number == 2
    # By parameters alone the second is past the knee.
    assert knee(records, ("top1", "params")).number == 1
    level = [make(n, 1 + n, 5, top1=(0.5 + n / 10,)) for n in range(3)]
    assert knee(level, THREE) in level


def test_seeds_tell_neighbours_apart_or_not():
    front = [make(0, 1, top1=(0.50, 0.52)), make(1, 2, top1=(0.53, 0.53)), make(2, 3, top1=(0.70, 0.74))]
    # Pooled: sqrt((2 + 0 + 8) / 3) = 1.83 points of three degrees; 3.18 * 1.83 * sqrt(1/2 + 1/2) = 5.8 points.
    assert indistinguishable(front) == {0: (1,), 1: (0,), 2: ()}
    far = [make(0, 1, top1=(0.50, 0.52)), make(1, 2, top1=(0.57, 0.57)), front[2]]
    assert indistinguishable(far) == {0: (), 1: (), 2: ()}


def test_one_seed_is_judged_by_the_noise_of_others_or_not_at_all():
    single = [make(0, 1, top1=(0.50,)), make(1, 2, top1=(0.53,)), make(2, 3, top1=(0.9,))]
    assert indistinguishable(single) is None
    assert indistinguishable([]) is None
    presets = [make(7, 9, top1=(0.4, 0.41, 0.42)), make(8, 9, top1=(0.3, 0.31, 0.32))]
    # sqrt(2) * 2.78 * 1 point.
    assert indistinguishable(single, presets) == {0: (1,), 1: (0,), 2: ()}


def test_the_quantile_is_students():
    from scipy import stats

    from mvit_search.records.seed_noise import SeedNoise

    for degrees in (*range(1, 30), 100, 10_000):
        margin = SeedNoise(0.01, degrees).margin(2, 2)
        assert margin == pytest.approx(0.01 * stats.t.ppf(0.975, degrees), rel=2e-4)


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        (("top1", "latency"), UnknownNameError, "did you mean 'latency_ms'"),
        (("top1", "params", "params"), InputError, "--objective 'params': is given twice"),
        (("params", "macs"), InputError, "top1 is not among them"),
        (("top1",), InputError, "is the only objective"),
    ],
)
def test_objectives_that_make_no_front(keys, error, words):
    with pytest.raises(error, match=words):
        check_objectives(keys)


def test_the_value_comes_first_in_whatever_order_it_was_asked_for():
    assert check_objectives(("params", "top1", "macs")) == ("top1", "params", "macs")
