"""The study in memory: what a sampler sees of it, and that nothing of a proposal stays."""

import copy

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from mvit_search.search.samplers import Problem, Turn, make_sampler
from mvit_search.search.sampling import Draft, Sampling

DISTRIBUTIONS = {"a": IntDistribution(0, 100), "b": CategoricalDistribution(("x", "y")), "c": IntDistribution(3, 3)}
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
PROBLEM = Problem(DISTRIBUTIONS, 2, 50, 5)


def sampling(kept=None):
    return Sampling(
        DIRECTIONS, DISTRIBUTIONS, lambda key, value: (kept if kept is not None else {}).update({key: value})
    )


def filled(study, count, name="nsga2"):
    for index in range(count):
        draft = study.propose(make_sampler(name, Turn(0, index), PROBLEM))
        trial = study.admit(draft, {"event": index})
        study.set_values(trial.number, (draft.params["a"] / 100, float(index % 7)))
    return study


def test_a_proposal_leaves_nothing():
    study = sampling()
    drafts = [study.propose(RandomSampler(seed=seed)) for seed in range(5)]
    assert study.admitted == 0
    assert len({draft.params["a"] for draft in drafts}) > 1
    assert all(draft.params["c"] == 3 for draft in drafts)


def test_a_sampler_that_fails_leaves_nothing():
    class Failing(RandomSampler):
        def sample_independent(self, *arguments):
            raise ValueError("no idea")

    study = sampling()
    with pytest.raises(ValueError, match="no idea"):
        study.propose(Failing())
    assert study.admitted == 0


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe", "random"])
def test_a_restored_study_proposes_the_same(name):
    kept = {}
    study = filled(sampling(kept), 23, name)
    again = sampling()
    again.restore(kept, study._storage.trials)
    turn = Turn(0, 23)
    assert again.propose(make_sampler(name, turn, PROBLEM)) == study.propose(make_sampler(name, turn, PROBLEM))


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_what_a_trial_is_called_in_a_database_changes_no_proposal(name):
    """A database counts the trials of all its studies; the parents of a generation are found by their numbers."""
    study = filled(sampling(), 10, name)
    stored = [copy.copy(trial) for trial in study._storage.trials]
    for trial in stored:
        trial._trial_id += 1000
    for attempt in range(5):
        kept = dict(study._storage.system_attrs)
        again = sampling()
        again.restore(kept, stored)
        turn = Turn(0, 10, attempt)
        assert again.propose(make_sampler(name, turn, PROBLEM)) == study.propose(make_sampler(name, turn, PROBLEM))


def test_values_may_be_told_anew_and_a_trial_may_fail():
    study = sampling()
    trial = study.admit(Draft({"a": 1, "b": "x", "c": 3}, {"k": 1}), {"event": 0})
    assert (trial.number, trial.state, trial.values) == (0, TrialState.RUNNING, None)
    study.set_values(0, (0.5, 2.0))
    first = study._storage.trials[0]
    study.set_values(0, (0.7, 2.0))
    assert study._storage.trials[0].values == [0.7, 2.0]
    assert first.values == [0.5, 2.0]  # what Optuna kept a list of is not changed under it
    study.set_violation(0, {"top1": 0.25})
    study.set_violation(0, {"top1": 0.25})
    assert study._storage.trials[0].constraints == {"top1": 0.25}
    assert study._storage.trials[0].system_attrs["k"] == 1
    study.fail(0)
    assert (study._storage.trials[0].state, study._storage.trials[0].values) == (TrialState.FAIL, None)


def test_what_breaks_a_limit_is_no_parent():
    study = sampling()
    for index in range(5):
        study.admit(Draft({"a": 10 * index, "b": "x", "c": 3}, {}), {"event": index})
        study.set_values(index, (0.9, 1.0) if index == 4 else (0.1, 5.0))
    study.set_violation(4, {"latency_ms": 0.5})
    drafts = [study.propose(make_sampler("nsga2", Turn(0, 5, attempt), PROBLEM)) for attempt in range(40)]
    assert sum(draft.params["a"] == 40 for draft in drafts) < 20
