"""A study that the tests of storages write."""

from datetime import datetime

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

STUDY = "a run"
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
DISTRIBUTIONS = {
    "width": IntDistribution(16, 96, step=8),
    "kind": CategoricalDistribution(("standard", "séparable", None, 3)),
    "depth": CategoricalDistribution((1, 2, 4)),
    "ratio": FloatDistribution(0.5, 4.0),
}


def trial(number: int, state: TrialState = TrialState.RUNNING, *, conditional: bool = False) -> FrozenTrial:
    """A trial whose content follows from its number; where `conditional`, without one of the parameters."""
    params = {
        "width": 16 + 8 * (number % 11),
        "kind": ("standard", "séparable", None, 3)[number % 4],
        "depth": (1, 2, 4)[number % 3],
        "ratio": 0.5 + number % 35 / 10,
    }
    if conditional:
        del params["depth"]
    now = datetime.now()
    return FrozenTrial(
        number=number, trial_id=number, state=state, value=None, intermediate_values={},
        values=[number / 3, -float(number)] if state == TrialState.COMPLETE else None,
        datetime_start=now, datetime_complete=now if state.is_finished() else None,
        params=params, distributions={name: DISTRIBUTIONS[name] for name in params},
        user_attrs={"rung": number % 3, "word": "größe \u2028 \"quoted\" \\ \x00 {},\"params\":{"},
        system_attrs={"constraints": [0.5, -1.0]},
    )  # fmt: skip
