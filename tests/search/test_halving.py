"""Order of candidates, who is promoted, and what the sampler is told of those who are not."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvit_search.search import ordering
from mvit_search.search.halving import KEPT_LEAST, KEPT_MOST, Halving, Promotion
from mvit_search.search.ladder import Ladder, Rung
from mvit_search.search.ordering import front_ranks, order, spread
from mvit_search.search.translation import Line, Translation, estimate_full

# Few distinct numbers, so that equal points and equal objectives come up all the time.
NUMBERS = st.integers(0, 6).map(float)
POINTS = st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[NUMBERS] * m), min_size=1, max_size=40))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=60)
LADDER = Ladder((Rung(1), Rung(3), Rung(9)), 3)


def _peeled(points: list[tuple[float, ...]]) -> list[int]:
    """Ranks by the definition: take away who is not dominated, again and again."""
    ranks = [-1] * len(points)
    for rank in itertools.count():
        left = [i for i, r in enumerate(ranks) if r < 0]
        if not left:
            return ranks
        front = [i for i in left if not any(_dominates(points[j], points[i]) for j in left)]
        for i in front:
            ranks[i] = rank
    raise AssertionError


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@given(POINTS)
def test_ranks_are_those_of_a_front_by_front_sort(points: list[tuple[float, ...]]) -> None:
    assert front_ranks(points).tolist() == _peeled(points)


@given(PAIRS)
def test_two_objectives_have_a_fast_path_that_says_the_same(points: list[tuple[float, float]]) -> None:
    table = np.array(points)
    assert ordering._ranks_of_pairs(table).tolist() == ordering._ranks(table).tolist()


@pytest.mark.parametrize("objectives", [2, 3])
def test_ranks_hold_over_more_points_than_one_block(objectives: int) -> None:
    points = np.random.default_rng(objectives).normal(size=(700, objectives)).round(1)
    assert front_ranks(points).tolist() == _peeled([tuple(row) for row in points.tolist()])


@given(POINTS, st.integers(0, 45))
def test_order_is_a_permutation_by_front_and_its_beginning_can_be_asked_for(
    points: list[tuple[float, ...]], first: int
) -> None:
    whole = order(points)
    assert sorted(whole) == list(range(len(points)))
    ranks = front_ranks(points)[whole]
    assert (np.diff(ranks) >= 0).all()
    assert order(points, first) == whole[:first]


@given(PAIRS)
def test_a_front_begins_with_its_ends(points: list[tuple[float, float]]) -> None:
    ranks = front_ranks(points)
    front = [point for point, rank in zip(points, ranks, strict=True) if rank == 0]
    chosen = [points[index] for index in order(points)[: len(front)]]
    assert chosen[0] == min(front)
    if len(set(front)) > 1:
        assert chosen[1] == min(front, key=lambda point: point[1])


def test_within_a_front_the_next_is_the_farthest_from_all_before() -> None:
    line = np.array([[0, 100], [10, 90], [50, 50], [30, 70], [80, 20], [100, 0]], dtype=float)
    assert spread(line, 6) == [0, 5, 2, 3, 4, 1]


def test_one_objective_and_equal_points_go_by_value_and_index() -> None:
    assert order([(3.0,), (1.0,), (2.0,), (1.0,)]) == [1, 3, 2, 0]
    assert order([(1.0, 1.0)] * 4) == [0, 1, 2, 3]
    assert order([]) == []


@pytest.mark.parametrize("bad", [[(1.0, float("nan"))], [(float("inf"), 0.0)], [1.0, 2.0]])
def test_points_must_be_finite_rows(bad: list[object]) -> None:
    with pytest.raises(ValueError, match="finite"):
        order(bad)


# Halving. A run is played: new candidates come, whoever is due goes up, results come back in any order.


def _played(seed: int, candidates: int, workers: int, ladder: Ladder = LADDER) -> tuple[Halving, list[tuple]]:
    """A run of this many candidates with so many at once; some fail, some are dropped. With its events."""
    chance = random.Random(seed)
    halving, events, under_way, begun = Halving(ladder), [], [], 0
    while True:
        while len(under_way) < workers:
            promotion = halving.next_promotion(closing=begun == candidates)
            if promotion is None and begun < candidates:
                promotion = Promotion(begun, 0)
                begun += 1
            if promotion is None:
                break
            under_way.append(promotion)
            events.append(("begin", promotion.rung, promotion.number))
            halving.begin(promotion.rung, promotion.number)
        if not under_way:
            return halving, events
        number, rung = under_way.pop(chance.randrange(len(under_way)))
        end = chance.random()
        if end < 0.05:
            events.append(("fail", number))
        elif end < 0.1 and rung:
            events.append(("drop", rung, number))
        else:
            events.append(("add", rung, number, (chance.random() - rung / 10, chance.random())))
        _tell(halving, events[-1])


def _tell(halving: Halving, event: tuple) -> None:
    kind, *arguments = event
    {"begin": halving.begin, "add": halving.add, "drop": halving.drop, "fail": halving.fail}[kind](*arguments)


RUNS = (st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 4))


@given(*RUNS)
def test_of_n_results_no_more_than_a_share_goes_up_and_nobody_twice(seed: int, candidates: int, workers: int) -> None:
    _, events = _played(seed, candidates, workers)
    valued: list[set[int]] = [set(), set(), set()]
    spent: list[set[int]] = [set(), set(), set()]
    for kind, *rest in events:
        if kind == "add":
            valued[rest[0]].add(rest[1])
        elif kind == "drop":
            spent[rest[0]].remove(rest[1])
        elif kind == "begin" and rest[0]:
            rung, number = rest
            assert number in valued[rung - 1]
            assert number not in spent[rung]
            alone = not valued[rung] and len(spent[rung]) >= 1
            spent[rung].add(number)
            assert alone or len(spent[rung]) <= -(-len(valued[rung - 1]) // 3)


@given(*RUNS)
def test_before_the_end_shares_are_rounded_down(seed: int, candidates: int, workers: int) -> None:
    _, events = _played(seed, candidates, workers)
    begun = sum(event[0] == "begin" and event[1] == 0 for event in events)
    valued, spent, last = 0, 0, 0
    for kind, *rest in events:
        if kind == "begin" and rest[0] == 0:
            last += 1
        valued += kind == "add" and rest[0] == 0
        spent += (kind == "begin" and rest[0] == 1) - (kind == "drop" and rest[0] == 1)
        if last < begun:
            assert spent <= valued // 3


@given(*RUNS)
def test_events_told_again_lead_to_the_same_promotion(seed: int, candidates: int, workers: int) -> None:
    _, events = _played(seed, candidates, workers)
    live = Halving(LADDER)
    for count, event in enumerate(events):
        _tell(live, event)
        live.keepers()
        expected = live.next_promotion()
        if count % 7 == 0:
            again = Halving(LADDER)
            for earlier in events[: count + 1]:
                _tell(again, earlier)
            assert again.next_promotion() == expected
            assert again.next_promotion(closing=True) == live.next_promotion(closing=True)
            assert again.next_promotion() == expected


@given(*RUNS)
def test_who_goes_up_next_has_kept_weights(seed: int, candidates: int, workers: int) -> None:
    _, events = _played(seed, candidates, workers)
    halving = Halving(LADDER)
    for event in events:
        _tell(halving, event)
        kept = halving.keepers()
        assert len([rung for _, rung in kept if rung == 0]) <= KEPT_MOST + workers
        for closing in (False, True):
            due = halving.next_promotion(closing=closing)
            assert due is None or Promotion(due.number, due.rung - 1) in kept


@given(st.integers(1, 40), st.integers(2, 5), st.integers(2, 5))
def test_somebody_reaches_the_top_however_few_they_are(candidates: int, eta: int, rungs: int) -> None:
    halving = Halving(Ladder(tuple(Rung(3**k) for k in range(rungs)), eta))
    chance = random.Random(candidates)
    for number in range(candidates):
        halving.add(0, number, (chance.random(), chance.random()))
    reached = [candidates] + [0] * (rungs - 1)
    while (due := halving.next_promotion(closing=True)) is not None:
        halving.begin(due.rung, due.number)
        halving.add(due.rung, due.number, (chance.random(), chance.random()))
        reached[due.rung] += 1
    assert all(above == -(-below // eta) for below, above in itertools.pairwise(reached))
    assert reached[-1] >= 1


def test_at_the_end_those_that_fail_are_replaced_until_somebody_is_at_the_top() -> None:
    halving = Halving(Ladder((Rung(1), Rung(9)), 3))
    for number in range(3):
        halving.add(0, number, (number, number))
    tried = []
    while (due := halving.next_promotion(closing=True)) is not None:
        halving.begin(due.rung, due.number)
        assert halving.next_promotion(closing=True) is None  # one is on the way
        halving.fail(due.number)
        tried.append(due.number)
    assert tried == [0, 1, 2]


def test_the_best_goes_first_and_the_highest_rung_before_the_lower() -> None:
    halving = Halving(LADDER)
    for number in range(9):
        halving.add(0, number, (9 - number, 9 - number))
    assert halving.next_promotion() == (8, 1)
    for number in (8, 7, 6):
        halving.begin(1, number)
    assert halving.next_promotion() is None
    for number in (8, 7, 6):
        halving.add(1, number, (number, number))
    for number in range(9, 12):
        halving.add(0, number, (20, 20))
    assert halving.next_promotion() == (6, 2)
    assert halving.next_promotion(closing=True) == (5, 1)
    halving.begin(2, 6)
    assert halving.next_promotion() == (5, 1)


def test_what_came_to_nothing_may_be_tried_again_and_what_failed_may_not() -> None:
    halving = Halving(LADDER)
    for number in range(6):
        halving.add(0, number, (number, number))
    halving.begin(1, 0)
    halving.drop(1, 0)
    assert halving.next_promotion() == (0, 1)
    halving.begin(1, 0)
    halving.fail(0)
    assert halving.next_promotion() == (1, 1)
    halving.begin(1, 1)
    assert halving.next_promotion() is None


def test_a_value_that_came_without_the_rungs_below_is_nobodys_share() -> None:
    halving = Halving(LADDER)
    halving.add(2, 100, (0, 0))
    for number in range(3):
        halving.add(0, number, (number, number))
    assert halving.next_promotion() == (0, 1)
    with pytest.raises(ValueError, match="before"):
        halving.add(2, 100, (0, 0))


def test_beyond_two_hundred_the_best_are_looked_up_among_a_hundredth_less() -> None:
    halving = Halving(LADDER)
    for number in range(405):
        halving.add(0, number, (1000 - number, 1000 - number))
        while (due := halving.next_promotion()) is not None:
            halving.begin(due.rung, due.number)
    # The sizes are ..., 399, 402, 406: of 405 one more may go up than of 402, but who is chosen at 406, or at the end.
    assert halving.next_promotion(closing=True) == (404, 1)
    assert Promotion(404, 0) in halving.keepers()
    assert halving.next_promotion() is None
    halving.add(0, 405, (0, 0))
    assert halving.next_promotion() == (405, 1)


def test_weights_are_kept_while_the_next_rung_trains_from_them() -> None:
    halving = Halving(LADDER)
    for number in range(3):
        halving.add(0, number, (number, number))
    halving.begin(1, 0)
    assert halving.keepers() == {(0, 0), (1, 0), (2, 0)}
    halving.add(1, 0, (0, 0))
    assert halving.keepers() == {(0, 1), (1, 0), (2, 0)}
    halving.fail(1)
    assert halving.keepers() == {(0, 1), (2, 0)}


def test_few_weights_are_kept_of_many_candidates() -> None:
    halving = Halving(LADDER)
    for number in range(2000):
        halving.add(0, number, (number, -number))
    assert KEPT_LEAST <= len(halving.keepers()) <= 2 * KEPT_MOST


# What the sampler is told.

TABLES = st.lists(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=4), min_size=1, max_size=30)


def _table(rows: list[list[float]]) -> np.ndarray:
    table = np.full((len(rows), 4), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table


@given(TABLES)
def test_the_highest_keep_their_value_and_the_others_their_order(rows: list[list[float]]) -> None:
    told = estimate_full(_table(rows))
    top = max(map(len, rows))
    for rung in range(1, top + 1):
        here = sorted((values[-1], own) for values, own in zip(rows, told, strict=True) if len(values) == rung)
        assert all(low[1] <= high[1] + 1e-12 for low, high in itertools.pairwise(here))
        if rung == top:
            assert all(value == own for value, own in here)


@given(TABLES)
def test_one_value_is_told_as_in_the_table(rows: list[list[float]]) -> None:
    translation = Translation.learnt(_table(rows))
    one_by_one = [translation.carried_up(len(values) - 1, values[-1]) for values in rows]
    assert estimate_full(_table(rows)).tolist() == one_by_one


def test_a_few_pairs_shift_and_many_also_stretch() -> None:
    few = np.full((5, 2), np.nan)
    few[:, 0] = [0.1, 0.2, 0.3, 0.4, 0.5]
    few[4, 1] = 0.8
    assert estimate_full(few) == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8])
    many = np.full((4000, 2), np.nan)
    many[:, 0] = np.linspace(0, 0.4, 4000)
    many[:3999, 1] = 2 * many[:3999, 0] + 0.1
    assert estimate_full(many)[-1] == pytest.approx(0.9, abs=0.01)


def test_two_promoted_ones_do_not_turn_the_line() -> None:
    two = np.full((11, 2), np.nan)
    two[:, 0] = np.linspace(0, 0.5, 11)
    two[9:, 1] = 0.8, 0.78
    assert estimate_full(two)[0] == pytest.approx(0.79 - 0.475, abs=0.01)


def test_slopes_are_chained_too() -> None:
    values = np.full((4000, 3), np.nan)
    values[:, 0] = np.linspace(0, 0.2, 4000)
    values[:2000, 1] = 2 * values[:2000, 0] + 0.1
    values[:1999, 2] = 2 * values[:1999, 1]
    assert estimate_full(values)[-1] == pytest.approx(1.0, abs=0.1)


def test_rungs_are_chained_and_a_rung_that_was_skipped_is_too() -> None:
    gap = np.array([[0.1, 0.3, np.nan], [np.nan, 0.4, 0.8], [0.2, np.nan, np.nan]])
    assert estimate_full(gap) == pytest.approx([0.7, 0.8, 0.8])
    skipped = np.array([[0.1, np.nan, 0.3], [0.2, np.nan, np.nan]])
    assert estimate_full(skipped) == pytest.approx([0.3, 0.4])


def test_without_pairs_values_are_told_as_they_are() -> None:
    assert Translation.learnt(np.full((0, 3), np.nan)) == ((Line(), Line(), Line()), 0)
    apart = np.array([[0.1, np.nan], [np.nan, 0.5], [np.nan, np.nan]])
    assert np.array_equal(estimate_full(apart), [0.1, 0.5, np.nan], equal_nan=True)
    assert estimate_full(np.full((0, 3), np.nan)).shape == (0,)
