"""Every error this project raises on purpose.

    MvitSearchError
    ├── InputError              bad input: the caller can mend it; the CLI exits 2
    │   ├── UnknownNameError    a name that no preset, space, target, ... has
    │   └── ConflictError       a results folder that belongs to something else, or is in use
    └── WorkError               the input was fine, the work failed; the CLI exits 1
        ├── TrainingDiverged    a candidate's loss became NaN or infinite: a recorded outcome
        ├── OutOfMemory         a candidate does not fit in memory even in small batches: a recorded outcome
        └── TargetUnavailable   what measures latencies does not answer; it may later

Messages are one line: the field, the value, the rule it broke, and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class MvitSearchError(Exception):
    """Base of all errors raised on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process hands its errors over pickled, and would otherwise call constructors with a message alone.
        return _restored, (type(self), str(self), self.__dict__)


def _restored(kind: "type[MvitSearchError]", message: str, attributes: dict[str, Any]) -> MvitSearchError:
    error = kind.__new__(kind, message)
    error.__dict__.update(attributes)
    return error


class InputError(MvitSearchError):
    """Bad input. `field` names what was wrong, as the user wrote it."""

    def __init__(self, field: str, value: object, rule: str, advice: str = "") -> None:
        self.field, self.value, self.rule, self.advice = field, value, rule, advice
        shown = "" if value is None else f" {value!r}"
        super().__init__(_one_line(f"{field}{shown}: {rule}" + (f"; {advice}" if advice else "")))


class UnknownNameError(InputError):
    """A name that is not in the list of known names; says the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        near = get_close_matches(name.lower(), [k.lower() for k in self.known], n=1, cutoff=0.5)
        by_lower = {k.lower(): k for k in self.known}
        advice = f"did you mean {by_lower[near[0]]!r}?" if near else ""
        listed = ", ".join(self.known) or "none"
        super().__init__(kind, name, f"unknown {kind} (known: {listed})", advice)


class ConflictError(InputError):
    """A results folder that belongs to another run, or that a live process holds."""


class WorkError(MvitSearchError):
    """The input was fine; the work itself failed."""


class TrainingDiverged(WorkError):
    """The training loss became NaN or infinite."""


class OutOfMemory(WorkError):
    """A training does not fit in memory, however small the batch."""


class TargetUnavailable(WorkError):
    """What measures latencies does not answer. `retry_after_s`: when it asked to be tried again, if it did."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(_one_line(message))


def _one_line(text: str) -> str:
    return " ".join(text.split())
