import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvit_search.errors import InputError
from mvit_search.profile.cost import params_of
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly, unseen
from mvit_search.space import load_space

SPACE = load_space("mobilevit")
SMALLEST = params_of(SPACE.smallest())


@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(SMALLEST, 10_000_000))
@settings(max_examples=30, deadline=None)
def test_a_draw_is_inside_its_share_of_the_budget(seed, share, budget):
    params = draw_evenly(SPACE, Limits(budget, 1000), share, random.Random(seed))
    assert params_of(SPACE.config(params)) <= SMALLEST + share * (budget - SMALLEST)


def test_draws_of_a_tight_budget_are_wide_here_and_narrow_there():
    """Not small in everything: each costly dimension keeps more than one value, and its heaviest now and then."""
    drawn = [draw_evenly(SPACE, Limits(1_000_000, 1000), 1.0, random.Random(seed)) for seed in range(60)]
    heaviest = [sum(params[key] == max(SPACE.dimensions[key]) for params in drawn) for key in SPACE.costly]
    assert all(len({params[key] for params in drawn}) > 1 for key in SPACE.costly)
    assert sum(count > 0 for count in heaviest) > len(heaviest) / 4


def test_the_smallest_budget_has_its_candidate():
    params = draw_evenly(SPACE, Limits(SMALLEST, 1000), 1.0, random.Random(0))
    assert params_of(SPACE.config(params)) == SMALLEST


def test_an_unreachable_budget_says_the_smallest_reachable():
    with pytest.raises(InputError, match=f"the smallest reachable is {SMALLEST:,} parameters"):
        Limits(SMALLEST - 1, 1000).check_reachable(SPACE)


def test_limits_count_the_classes():
    config = SPACE.smallest()
    assert Limits(SMALLEST, 1000).excess(config) == {}
    assert Limits(SMALLEST, 1001).excess(config)["params"] == pytest.approx((config.head_channels + 1) / SMALLEST)


def test_unseen_gives_up_on_a_space_that_is_used_up():
    mini = load_space("mobilevit-mini")
    everything = {mini.config(mini.draw(random.Random(seed))).digest() for seed in range(30_000)}
    assert len(everything) == mini.size()
    assert unseen(mini, Limits(6_000_000, 1000), everything, random.Random(0)) is None
