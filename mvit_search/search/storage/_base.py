"""What a store asks of a storage: one study, of which this process is the only writer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mvit_search.errors import ConflictError


class Attributes(Mapping[str, Any]):
    """JSON values by name, parsed only when looked up: ten thousand records are 20 MB as text, and 100 MB as dicts.

    `text(name)` is the JSON itself, for a parser of its own (pydantic reads a record from text at twice the speed).
    """

    def __init__(self, texts: Mapping[str, str | bytes]) -> None:
        self._texts = texts

    def __getitem__(self, name: str) -> Any:
        return json.loads(self._texts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def text(self, name: str) -> str | bytes:
        """The value as JSON.

        Raises:
            KeyError: there is none of that name.
        """
        return self._texts[name]


class Loaded(NamedTuple):
    """A study as it was found.

    Attributes:
        user_attrs, system_attrs: the study's own, not those of its trials.
        trials: all of them, by number. Trials of equal distributions share one dict of them, which must not be
            changed; where a distribution equals the run's own, it is that very object.
    """

    user_attrs: Attributes
    system_attrs: Attributes
    trials: list[FrozenTrial]


class Backing(Protocol):
    """An open study. Every call that returns has put what it was given where SIGKILL cannot take it back.

    `load` comes first, once. What fails for good (a full disk, a server that stays away) raises WorkError, and what
    was written by calls that had returned is safe; a second writer raises ConflictError.
    """

    def load(self) -> Loaded: ...

    def create_trial(self, trial: FrozenTrial) -> None:
        """Add a trial with all its parameters, distributions and attributes, in one write; intermediate values are not
        kept.

        Raises:
            ConflictError: `trial.number` is not the next one: somebody else writes to the study.
        """

    def finish_trial(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """Give a trial its end.

        Raises:
            ConflictError: it has one already, or there is no such trial.
        """

    def set_user_attrs(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the study, in this order, in one write."""

    def set_system_attr(self, key: str, value: Any) -> None: ...

    def transaction(self) -> AbstractContextManager[None]:
        """All writes within as one, made at the end of the block; none if the block raises.

        A database has all of them or none. In a journal a power cut (not a kill) can leave the first few, so that
        they should be in an order in which that does no harm.
        """

    def close(self) -> None: ...


def check_directions(found: Sequence[StudyDirection], wanted: Sequence[StudyDirection], field: str, value: str) -> None:
    """Raises ConflictError where a study has other objectives than the run."""
    if list(found) != list(wanted):
        was, now = (", ".join(each.name.lower() for each in directions) for directions in (found, wanted))
        rule = f"belongs to a run with other objectives ({was}; now {now})"
        raise ConflictError(field, value, rule, "give another --name")
