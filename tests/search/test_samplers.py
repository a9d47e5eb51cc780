"""Samplers: one contract for all, then what each promises beyond it."""

import json
import os
import random
import sys
import types
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.samplers._ga import BaseGASampler
from optuna.trial import FrozenTrial, TrialState

from mvit_search.errors import InputError, UnknownNameError
from mvit_search.search.samplers import (
    EXHAUSTIVE,
    SAMPLERS,
    Exhausted,
    Problem,
    Turn,
    check_sampler,
    choose,
    make_sampler,
)
from mvit_search.search.samplers import tpe as tpe_module
from mvit_search.search.samplers.nsga2 import SteadySampler
from mvit_search.search.sampling import Draft, Sampling
from mvit_search.space import load_space

MIXED = {
    "width": IntDistribution(8, 64, step=8),
    "depth": IntDistribution(1, 4),
    "kind": CategoricalDistribution(("silu", "relu", "gelu")),
    "fusion": CategoricalDistribution((True, False)),
    "ratio": CategoricalDistribution((1.0, 1.5, 2.0)),
    "patch": IntDistribution(2, 2),
}
ALL = [*SAMPLERS, "optuna.samplers:RandomSampler"]
POPULATION = 4

CONDITIONAL = """
description: a dimension that is there for deep stages alone
knobs: {deep: {choices: [true, false]}}
image_size: [64, 64]
stem_channels: 16
head_expansion: {choices: [2, 4]}
activation: {choices: [silu, relu]}
stages:
  - {kind: conv, out_channels: 16, num_blocks: 1, stride: 2, expand_ratio: {choices: [2, 4]}}
  - kind: mobilevit
    out_channels: {low: 32, high: 64, step: 16}
    stride: 2
    expand_ratio: 2
    transformer_dim: {low: 32, high: 64, step: 16}
    num_layers: {low: 1, high: 2}
    num_heads: 2
    ffn_ratio: {choices: [1.0, 2.0], when: {deep: true}, otherwise: 4.0}
    patch_h: 2
    patch_w: 2
    conv_kernel_size: 3
"""


def problem(distributions=MIXED, objectives=2, trials=40):
    return Problem(distributions, objectives, trials, POPULATION)


def study(objectives=2, distributions=MIXED):
    return Sampling(["maximize", *["minimize"] * (objectives - 1)], distributions, lambda key, value: None)


def values(params, objectives=2):
    """More of everything is better and dearer, with what looks like noise."""
    weight = sum(float(value) for value in params.values() if isinstance(value, (int, float)))
    noise = random.Random(repr(sorted(params.items(), key=lambda item: item[0]))).random()
    return (weight + 9 * noise, weight, weight**1.5 - 20 * noise)[:objectives]


def history(name, asked, count, *, seed=1, in_flight=3):
    """A study of so many trials: the first two not the sampler's, every seventh failed, the last ones in flight."""
    sampling, rng = study(asked.objectives, asked.distributions), random.Random(seed)
    waiting = []
    for index in range(count):
        if index < 2:
            params = {key: rng.choice(all_values(each)) for key, each in asked.distributions.items()}
            draft = Draft(params, {})
        else:
            draft = sampling.propose(make_sampler(name, Turn(seed, index), asked))
        waiting.append(sampling.admit(draft, {}))
        if len(waiting) > in_flight:
            end(sampling, waiting.pop(0), asked.objectives)
    return sampling


def end(sampling, trial, objectives=2):
    if trial.number % 7 == 5:
        sampling.fail(trial.number)
    else:
        sampling.set_values(trial.number, values(trial.params, objectives))


def all_values(distribution):
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return range(distribution.low, distribution.high + 1, distribution.step)


def trials_of(sampling):
    return sampling._study.get_trials(deepcopy=False)


def rebuilt(sampling, asked):
    """The same study, from what a storage holds of it."""
    again = study(asked.objectives, asked.distributions)
    trials = [
        FrozenTrial(
            number=trial.number, trial_id=trial.number, state=trial.state, value=None, values=trial.values,
            params=dict(trial.params), distributions=dict(asked.distributions), user_attrs={},
            system_attrs=json.loads(json.dumps(trial.system_attrs)), intermediate_values={},
            datetime_start=trial.datetime_start, datetime_complete=trial.datetime_complete,
        )
        for trial in trials_of(sampling)
    ]  # fmt: skip
    attrs = sampling._storage.get_study_system_attrs(0)
    again.restore(json.loads(json.dumps(attrs)), trials)
    return again


@pytest.fixture(scope="module")
def histories():
    """(sampler, objectives) -> a study with 15 trials of it, 9 where each takes long; nobody changes it."""
    found = {}

    def get(name, objectives):
        if (name, objectives) not in found:
            found[name, objectives] = history(name, problem(objectives=objectives), 9 if name == "gp" else 15)
        return found[name, objectives]

    return get


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("name", ALL)
class TestEverySampler:
    def test_proposes_inside_the_distributions(self, name, objectives, histories):
        for trial in trials_of(histories(name, objectives)):
            assert trial.params.keys() == MIXED.keys()
            for key, each in MIXED.items():
                assert trial.params[key] in all_values(each)
                assert type(trial.params[key]) is type(all_values(each)[0])

    def test_depends_on_the_study_and_the_turn_alone(self, name, objectives, histories):
        sampling, asked = histories(name, objectives), problem(objectives=objectives)
        for attempt in range(1 if name == "gp" else 2):
            turn = Turn(1, sampling.admitted, attempt)
            first = sampling.propose(make_sampler(name, turn, asked))
            assert sampling.propose(make_sampler(name, turn, asked)) == first
            assert rebuilt(sampling, asked).propose(make_sampler(name, turn, asked)) == first

    def test_another_attempt_is_another_proposal(self, name, objectives, histories):
        sampling, asked = histories(name, objectives), problem(objectives=objectives)
        turns = [Turn(1, sampling.admitted, attempt) for attempt in range(2 if name == "gp" else 6)]
        proposed = [sampling.propose(make_sampler(name, turn, asked)).params for turn in turns]
        assert len({repr(sorted(params.items())) for params in proposed}) > 1

    def test_leaves_the_study_with_its_trials(self, name, objectives, histories):
        sampling = histories(name, objectives)
        before = sampling.admitted
        sampling.propose(make_sampler(name, Turn(1, before), problem(objectives=objectives)))
        assert sampling.admitted == before

    def test_is_accepted(self, name, objectives, histories):
        check_sampler(name, problem(objectives=objectives))

    def test_begins_on_an_empty_study(self, name, objectives, histories):
        draft = study(objectives).propose(make_sampler(name, Turn(0, 0), problem(objectives=objectives)))
        assert draft.params.keys() == MIXED.keys()


@pytest.mark.parametrize("name", ALL)
def test_spaces_with_conditions(name, tmp_path):
    file = tmp_path / "conditional.yaml"
    file.write_text(CONDITIONAL)
    space = load_space(str(file))
    asked = problem(space.distributions())
    sampling = history(name, asked, 9)
    for trial in trials_of(sampling):
        space.config(trial.params)


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "random", "tpe"])
def test_the_whole_space_of_mobilevit(name):
    space = load_space("mobilevit")
    asked = problem(space.distributions(), trials=10**6)
    check_sampler(name, asked)
    for trial in trials_of(history(name, asked, 12)):
        space.config(trial.params)


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
class TestGenerations:
    def test_lost_notes_are_found_again(self, name):
        """A kill can come before the parents of a generation are on file: a serial run must choose the same."""
        asked = problem(objectives=2)
        sampling = history(name, asked, 30, in_flight=0)
        bare = rebuilt(sampling, asked)
        bare.restore({}, trials_of(sampling))
        turn = Turn(1, sampling.admitted)
        assert bare.propose(make_sampler(name, turn, asked)) == sampling.propose(make_sampler(name, turn, asked))
        kept, found = (s._storage.get_study_system_attrs(0) for s in (sampling, bare))
        assert found == kept
        assert any(":parent:5" in key for key in kept)

    def test_whichever_attempt_comes_first_the_parents_are_the_same(self, name):
        asked = problem(objectives=3)
        parents = []
        for attempt in range(5):
            sampling = history(name, asked, 14, in_flight=0)
            before = dict(sampling._storage.get_study_system_attrs(0))
            sampling.propose(make_sampler(name, Turn(1, 14, attempt), asked))
            parents.append(sampling._storage.get_study_system_attrs(0))
        assert parents[0] != before
        assert all(each == parents[0] for each in parents)

    def test_a_straggler_can_still_become_a_parent(self, name):
        asked = problem()
        sampling, rng = study(), random.Random(0)
        waiting = {}
        straggler = 3
        for index in range(6 * POPULATION):
            draft = sampling.propose(make_sampler(name, Turn(1, index), asked))
            trial = sampling.admit(draft, {})
            if index == straggler:
                waiting[index] = trial
            else:
                sampling.set_values(index, (rng.random(), 1 + rng.random()))
            if index == 3 * POPULATION:
                sampling.set_values(straggler, (99.0, 0.0))  # better than all, three generations late
        noted = sampling._storage.get_study_system_attrs(0)
        chosen = {key.rpartition(":")[2]: ids for key, ids in noted.items() if ":parent:" in key}
        assert straggler not in chosen["1"]
        assert straggler in chosen[max(chosen, key=int)]

    def test_generations_never_fall_and_are_full(self, name):
        sampling = history(name, problem(), 40)
        key = next(key for key in trials_of(sampling)[-1].system_attrs if key.endswith(":generation"))
        noted = [trial.system_attrs[key] for trial in trials_of(sampling) if key in trial.system_attrs]
        assert noted == sorted(noted)
        assert noted[-1] > 3
        for generation in range(1, noted[-1] - 1):
            finished = [t for t in trials_of(sampling) if t.system_attrs.get(key) == generation and t.values]
            assert len(finished) >= POPULATION

    def test_population_is_optunas(self, name):
        asked = problem()
        sampling = history(name, asked, 40)
        sampler = make_sampler(name, Turn(1, 40), asked)
        for generation in range(1, 8):
            own = [trial.number for trial in sampler.get_population(sampling._study, generation)]
            theirs = BaseGASampler.get_population(sampler, sampling._study, generation)
            assert own == [trial.number for trial in theirs]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["finished", "in flight", "failed"]), st.booleans())),
    st.integers(2, 5),
)
def test_the_latest_generation_is_what_a_full_scan_finds(steps, population):
    """`steps`: by how much the generation rises, what became of the trial, whether its generation is on file."""
    states = {"finished": TrialState.COMPLETE, "in flight": TrialState.RUNNING, "failed": TrialState.FAIL}
    sampling, current, noted, finished = study(), 0, 0, {}
    trials = []
    for number, (rise, what, on_file) in enumerate(steps):
        current += rise
        if on_file:
            noted = current
        if what == "finished":
            finished[noted] = finished.get(noted, 0) + 1
        attrs = {"SteadySampler:generation": current} if on_file else {}
        trial = sampling.admit(Draft({"width": 8}, attrs), {})
        trial.state, trial.values = states[what], [1.0, 1.0] if what == "finished" else None
        trials.append(trial)
        assert trial.number == number
    latest = max(finished, default=0)
    expected = latest + (finished.get(latest, 0) >= population)
    asking = sampling.admit(Draft({}, {}), {})
    sampler = SteadySampler(0, problem()._replace(population=population))
    assert sampler.get_trial_generation(sampling._study, asking) == expected


class TestTpe:
    def test_looks_at_the_latest_and_what_is_in_flight(self, monkeypatch):
        monkeypatch.setattr(tpe_module, "LEARNT_FROM", 20)
        asked = problem()
        sampling = history("random", asked, 60, in_flight=0)

        def proposed():
            return [sampling.propose(make_sampler("tpe", Turn(3, 60, i), asked)).params for i in range(8)]

        before = proposed()
        for number in range(10):
            if number % 7 != 5:
                sampling.set_values(number, (1000.0, -1000.0))
        assert proposed() == before
        sampling.admit(Draft(before[0], {}), {})
        assert proposed() != before

    def test_learns(self):
        """More of its proposals than of uniform ones are near the best: here depth 4 and silu."""
        asked, sampling = problem(), study()
        for index in range(60):
            draft = sampling.propose(make_sampler("tpe" if index >= 20 else "random", Turn(0, index), asked))
            good = (draft.params["depth"] == 4) + (draft.params["kind"] == "silu")
            sampling.set_values(sampling.admit(draft, {}).number, (float(good), -float(good)))
        late = [t.params for t in trials_of(sampling)[30:]]
        assert sum(p["depth"] == 4 and p["kind"] == "silu" for p in late) > len(late) / 3  # uniform: 1 in 12


class TestGp:
    def test_more_trials_than_it_can_bear(self):
        with pytest.raises(InputError, match=r"gp.*1000") as caught:
            check_sampler("gp", problem(trials=1_000))
        assert_one_line(caught)


SMALL = {"a": IntDistribution(2, 6, step=2), "b": CategoricalDistribution(("x", "y", None)), "c": MIXED["patch"]}


class TestGrid:
    def proposals(self, seed, admits=lambda params: True, first=()):
        """All that is proposed, in order, as a driver would ask."""
        asked, sampling, attempt = problem(SMALL), study(distributions=SMALL), 0
        proposed = []
        for params in first:
            sampling.admit(Draft(params, {}), {})
        while True:
            try:
                draft = sampling.propose(make_sampler("grid", Turn(seed, sampling.admitted, attempt), asked))
            except Exhausted:
                return proposed
            proposed.append(tuple(draft.params.values()))
            sampling._storage.trials = sampling._storage.trials[: sampling.admitted]
            if admits(draft.params) and draft.params not in [t.params for t in trials_of(sampling)]:
                trial = sampling.admit(draft, {})
                if sampling.admitted % 2:
                    sampling.fail(trial.number)
                attempt = 0
            else:
                attempt += 1

    def test_goes_through_the_whole_space_once(self):
        found = self.proposals(0)
        assert len(found) == 9 == len(set(found))

    def test_passes_by_what_was_not_admitted(self):
        found = self.proposals(0, admits=lambda params: params["a"] != 4)
        assert len(found) == 9 == len(set(found))

    def test_nothing_admitted_ends_too(self):
        assert len(self.proposals(0, admits=lambda params: False)) == 9

    def test_candidates_that_others_drew_first(self):
        assert len(self.proposals(0, first=[{"a": 4, "b": "x", "c": 2}])) == 9

    def test_order_depends_on_the_seed(self):
        orders = {tuple(self.proposals(seed)) for seed in range(4)}
        assert len(orders) == 4

    def test_a_space_that_is_too_large_is_counted(self):
        with pytest.raises(InputError, match="candidates, and a grid may have 20,000") as caught:
            check_sampler("grid", problem(load_space("mobilevit").distributions()))
        assert_one_line(caught)
        with pytest.raises(InputError, match="30,000 candidates"):
            check_sampler("grid", problem({"a": IntDistribution(1, 10_000), "b": IntDistribution(1, 3)}))

    def test_continuous_numbers(self):
        with pytest.raises(InputError, match="continuous"):
            check_sampler("grid", problem({"a": FloatDistribution(0, 1)}))

    def test_is_the_one_that_ends(self):
        assert {"grid"} == EXHAUSTIVE


USERS = """
import optuna
from optuna.samplers import RandomSampler

class Picky(RandomSampler):
    def __init__(self, flavour):
        super().__init__()

class Noting(RandomSampler):
    made = []
    def __init__(self, *, seed=None, population_size=7):
        super().__init__(seed)
        self.made.append((seed, population_size))

class OneObjective(RandomSampler):
    def infer_relative_search_space(self, study, trial):
        self._raise_error_if_multi_objective(study)
        return {}

class NoSampler:
    pass

number = 3
"""


class TestImported:
    @pytest.fixture
    def users(self, tmp_path, monkeypatch):
        (tmp_path / "users_samplers.py").write_text(USERS)
        (tmp_path / "users_broken.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("users_samplers", None)

    def test_is_given_what_its_constructor_takes(self, users):
        sampler = make_sampler("users_samplers:Noting", Turn(5, 2), problem())
        assert isinstance(sampler, RandomSampler)
        assert type(sampler).made[-1] == (Turn(5, 2).draw(), POPULATION)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("users_nowhere:Noting", "no module 'users_nowhere'"),
            ("users_samplers:Nothing", "has no 'Nothing'"),
            ("users_samplers:NoSampler", "no subclass"),
            ("users_samplers:number", "no subclass"),
            ("users_samplers:Picky", "cannot be made"),
            ("users_samplers:OneObjective", "multi-objective"),
            ("users_broken:Any", "ZeroDivisionError"),
            ("optuna.samplers:PartialFixedSampler", "cannot be made"),
        ],
    )
    def test_what_is_refused(self, users, name, words):
        with pytest.raises(InputError, match=words) as caught:
            check_sampler(name, problem())
        assert_one_line(caught)

    @pytest.mark.parametrize("name", ["nsga4", "NSGA2", "", ":", "users_samplers:", ":Noting"])
    def test_unknown_names(self, name):
        with pytest.raises(UnknownNameError) as caught:
            check_sampler(name, problem())
        assert_one_line(caught)
        assert set(SAMPLERS) < set(caught.value.known)


def hub_of(packages, calls):
    """A module with the one function of optunahub that is called, with its signature."""

    def load_module(
        package, *, repo_owner="optuna", repo_name="optunahub-registry", registry_root="package", ref="main",
        base_url="https://api.github.com", force_reload=None, auth=None,
    ):  # fmt: skip
        calls.append(package)
        if package not in packages:
            raise FileNotFoundError(f"{package}\nis not there")
        module = types.ModuleType(package.rpartition("/")[2])
        for key, value in packages[package].items():
            setattr(module, key, value)
        return module

    hub = types.ModuleType("optunahub")
    hub.load_module = load_module
    return hub


class HubSampler(RandomSampler):
    def __init__(self, seed=None):
        super().__init__(seed)
        self.given = seed


class OtherSampler(RandomSampler):
    pass


class TestHub:
    @pytest.fixture
    def calls(self, monkeypatch):
        found = []
        packages = {
            "samplers/one": {"HubSampler": HubSampler, "BaseSampler": BaseSampler, "RandomSampler": RandomSampler},
            "samplers/two": {"HubSampler": HubSampler, "OtherSampler": OtherSampler},
            "samplers/none": {"BaseSampler": BaseSampler},
        }
        monkeypatch.setitem(sys.modules, "optunahub", hub_of(packages, found))
        monkeypatch.delenv("OPTUNAHUB_NO_ANALYTICS", raising=False)
        return found

    def test_the_only_sampler_of_a_package(self, calls):
        for index in range(3):
            sampler = make_sampler("hub:one", Turn(2, index), problem())
            assert isinstance(sampler, HubSampler)
            assert sampler.given == Turn(2, index).draw()
        assert calls == ["samplers/one"]  # once for all proposals

    def test_a_named_one(self, calls):
        check_sampler("hub:samplers/two:OtherSampler", problem())
        assert isinstance(make_sampler("hub:two:OtherSampler", Turn(2, 0), problem()), OtherSampler)

    def test_nothing_is_asked_or_sent(self, calls):
        check_sampler("hub:samplers/one:HubSampler", problem())
        assert os.environ["OPTUNAHUB_NO_ANALYTICS"] == "1"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("hub:", "must be hub:PACKAGE"),
            ("hub:two", "HubSampler, OtherSampler; say which, hub:samplers/two:Class"),
            ("hub:none", "not one sampler but: none"),
            ("hub:one:Missing", "has no 'Missing'"),
            ("hub:absent", "could not be loaded .FileNotFoundError"),
        ],
    )
    def test_what_is_refused(self, calls, name, words):
        with pytest.raises(InputError, match=words) as caught:
            check_sampler(name, problem())
        assert_one_line(caught)

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "optunahub", None)
        with pytest.raises(InputError, match="pip install optunahub") as caught:
            check_sampler("hub:auto_sampler", problem())
        assert_one_line(caught)


class TestAuto:
    @pytest.mark.parametrize("objectives", [2, 3, 6])
    @pytest.mark.parametrize("size", [2, 100, 10_000, 10**23])
    def test_names_a_sampler_that_bears_the_run_and_says_why(self, size, objectives):
        for trials in (1, 12, 24, 60, 120, 400, 10_000, 1_000_000):
            name, why = choose(trials, size, objectives)
            assert why
            assert "\n" not in why
            if name == "grid":
                assert trials >= size
            else:
                check_sampler(name, problem(objectives=objectives, trials=trials))

    def test_follows_what_was_measured(self):
        assert [choose(trials, 10**23, 2).name for trials in (24, 1000, 1001)] == ["assisted", "assisted", "nsga2"]
        assert choose(400, 10**23, 3).name == "nsga3"

    def test_a_space_that_can_be_gone_through(self):
        assert choose(200, 192, 2).name == "grid"
        assert "192" in choose(200, 192, 2).why

    def test_cannot_be_made_before_it_is_resolved(self):
        with pytest.raises(UnknownNameError):
            make_sampler("auto", Turn(0, 0), problem())


def test_optunas_warnings_do_not_reach_the_user():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in SAMPLERS:
            make_sampler(name, Turn(0, 0), problem())


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(0, 60))
def test_every_turn_has_a_seed_of_its_own(seed, admitted, attempt):
    turn = Turn(seed, admitted, attempt)
    assert 0 <= turn.draw() < 2**31
    others = [Turn(seed, admitted, attempt + 1), Turn(seed, admitted + 1, attempt), Turn(seed + 1, admitted, attempt)]
    assert turn.draw() not in [other.draw() for other in others]
    assert turn.lasting("grid") == others[0].lasting("grid") == others[1].lasting("grid")


def assert_one_line(caught):
    assert "\n" not in str(caught.value)
