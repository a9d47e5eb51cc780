"""The study that samplers look at: in memory, rebuilt from the storage at every start.

Optuna writes a proposal to its storage parameter by parameter. Here a proposal is drawn in memory, and only a candidate
that may be trained is written, in one go. Proposals over a limit, or met before, leave no trial: they are sampled away.

The values that samplers see may be revised, which Optuna's own storages forbid: under successive halving a candidate's
standing changes as it, and others, reach higher rungs.
"""

import copy
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mvit_search.space import Params

_STUDY_ID = 0


class Draft(NamedTuple):
    """What a sampler proposed, and what it wants to find with the trial later (the generation it belongs to)."""

    params: Params
    system_attrs: dict[str, Any]


class Sampling:
    """Trials as samplers see them: in flight (RUNNING), valued (COMPLETE) or failed (FAIL).

    `remember` is called with what a sampler keeps with the study (parents of a generation), to be persisted.
    """

    def __init__(
        self, directions: Sequence[StudyDirection], distributions: Mapping[str, BaseDistribution],
        remember: Callable[[str, Any], None],
    ) -> None:  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.distributions = dict(distributions)
        self._storage = _OneStudy(remember)
        self._study = optuna.create_study(storage=self._storage, directions=list(directions))

    def restore(self, system_attrs: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> None:
        """Take over what was persisted; trials in the order of their numbers."""
        self._storage.system_attrs = dict(system_attrs)
        self._storage.trials = [_by_number(trial) for trial in trials]

    @property
    def admitted(self) -> int:
        """Number that the next admitted trial gets."""
        return len(self._storage.trials)

    def propose(self, sampler: BaseSampler) -> Draft:
        """A proposal; nothing of it stays."""
        self._study.sampler = sampler
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._study.ask(self.distributions)
        finally:
            drawn = self._storage.trials.pop()
        return Draft(drawn.params, drawn.system_attrs)

    def admit(self, draft: Draft, user_attrs: Mapping[str, Any]) -> FrozenTrial:
        """Make a proposal a trial in flight; returns it, to be persisted."""
        number = self.admitted
        trial = FrozenTrial(
            number=number, trial_id=number, state=TrialState.RUNNING, value=None, values=None,
            params=dict(draft.params), distributions=self.distributions, user_attrs=dict(user_attrs),
            system_attrs=dict(draft.system_attrs), intermediate_values={}, datetime_start=datetime.now(UTC),
            datetime_complete=None,
        )  # fmt: skip
        self._storage.trials.append(trial)
        return trial

    def set_values(self, number: int, values: Sequence[float]) -> None:
        """What the sampler is told of a trial; may be called again with others."""
        trial = copy.copy(self._storage.trials[number])
        trial.state, trial.values = TrialState.COMPLETE, list(values)
        trial.datetime_complete = trial.datetime_complete or datetime.now(UTC)
        self._storage.trials[number] = trial

    def set_violation(self, number: int, violations: Mapping[str, float]) -> None:
        """By how much the trial breaks each limit that only measuring or training shows; above 0 is broken."""
        trial = copy.copy(self._storage.trials[number])
        trial.system_attrs = dict(trial.system_attrs)
        for name, amount in violations.items():
            if name not in trial.constraints:
                trial.set_constraint(name, amount)
        self._storage.trials[number] = trial

    def fail(self, number: int) -> None:
        """The trial came to nothing: the sampler learns nothing from it."""
        trial = copy.copy(self._storage.trials[number])
        trial.state, trial.values = TrialState.FAIL, None
        trial.datetime_complete = datetime.now(UTC)
        self._storage.trials[number] = trial


def _by_number(trial: FrozenTrial) -> FrozenTrial:
    """A trial whose id is its number, whatever its row in a database is called: samplers find parents by it."""
    if trial._trial_id == trial.number:
        return trial
    renamed = copy.copy(trial)
    renamed._trial_id = trial.number
    return renamed


class _OneStudy(BaseStorage):
    """The least of a storage: one study, one process, no copies. Trial ids are trial numbers."""

    def __init__(self, remember: Callable[[str, Any], None]) -> None:
        self.trials: list[FrozenTrial] = []
        self.system_attrs: dict[str, Any] = {}
        self._remember = remember
        self._directions: list[StudyDirection] = []
        self._name = ""

    # Of the study.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._directions, self._name = list(directions), study_name or "sampling"
        return _STUDY_ID

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._remember(key, value)
        self.system_attrs[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        return _STUDY_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.system_attrs

    def get_all_studies(self) -> list[Any]:
        return []

    # Of trials: each change makes a new object, because Optuna keeps lists of the old ones.

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = len(self.trials)
        trial = template_trial or FrozenTrial(
            number=number, trial_id=number, state=TrialState.RUNNING, value=None, values=None, params={},
            distributions={}, user_attrs={}, system_attrs={}, intermediate_values={}, datetime_start=datetime.now(UTC),
            datetime_complete=None,
        )  # fmt: skip
        self.trials.append(trial)
        return number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = copy.copy(self.trials[trial_id])
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}
        self.trials[trial_id] = trial

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        raise NotImplementedError

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = copy.copy(self.trials[trial_id])
        trial.user_attrs = {**trial.user_attrs, key: value}
        self.trials[trial_id] = trial

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = copy.copy(self.trials[trial_id])
        trial.system_attrs = {**trial.system_attrs, key: value}
        self.trials[trial_id] = trial

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,):
            return []  # nothing ever waits; looking for it at every proposal would cost the most
        found = self.trials if states is None else [trial for trial in self.trials if trial.state in states]
        return copy.deepcopy(found) if deepcopy else list(found)
