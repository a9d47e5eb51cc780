"""What a run knows, durably: proposals as Optuna trials, candidates' records as attributes of the study.

Records are study attributes `candidate:<number>`, because a record also exists for a preset outside the space, and
grows when higher rungs and the finals train it again. A record and what becomes of its trial are one write where the
storage can do that; where a kill comes between the two, the record is the truth and the trial is told at the next
start.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from mvit_search._files import sweep_temporary
from mvit_search.errors import ConflictError, InputError
from mvit_search.records import Record, RunFolder
from mvit_search.search.storage import Backing, FileLock, hold_folder, open_backing

STUDY_NAME = "mvit-search"
_DIGESTS = {"data": "images", "recipe": "training recipe", "space": "search space"}  # pinned by digest
_RECORD = "candidate:"


@contextmanager
def collection_paused() -> Iterator[None]:
    """Read without looking for garbage: ten thousand records are a million objects, and none of them is any.

    Python looks whenever there are some more; that takes as long as the reading.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class StudyShape(NamedTuple):
    """What a study's trials are made of: directions of the objectives, and the space's parameters."""

    directions: tuple[StudyDirection, ...]
    distributions: Mapping[str, BaseDistribution]


class Store:
    """An open study, written by this process alone.

    Open with `Store.open(folder, shape)`, close with `close()` or as a context manager.

    Attributes:
        trials: every admitted proposal by number, as it was when the store was opened.
        system_attrs: what samplers keep with the study.
    """

    def __init__(self, backing: Backing, lock: FileLock) -> None:
        self._backing, self._lock = backing, lock
        with collection_paused():
            loaded = backing.load()
        self._loaded = loaded.user_attrs
        self._remembered: dict[str, Any] = {}
        self.system_attrs = {key: loaded.system_attrs[key] for key in loaded.system_attrs}
        self.trials = loaded.trials

    @classmethod
    def open(
        cls, folder: RunFolder, shape: StudyShape, url: str | None = None, pins: Mapping[str, Any] | None = None
    ) -> Self:
        """Open or create the study of `folder`: in a file there, or in the database at `url`.

        Args:
            pins: what the study must have been started with, see `pin`.

        Raises:
            ConflictError: another live process holds the run; or other pins, naming the first thing that differs.
            InputError: the folder cannot be written, or the study cannot be read.
        """
        name = STUDY_NAME if url is None else f"{STUDY_NAME}/{folder.name}"
        lock = hold_folder(folder.path)
        try:
            sweep_temporary(folder.path)  # of a run that was killed: the lock says that nobody writes now
            backing = open_backing(folder.path, url, name, shape.directions, shape.distributions)
        except BaseException:
            lock.close()
            raise
        try:
            store = cls(backing, lock)
            if pins is not None:
                store.pin(pins)
        except BaseException:
            backing.close()
            lock.close()
            raise
        return store

    def close(self) -> None:
        self._backing.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def pin(self, pins: Mapping[str, Any]) -> None:
        """Tie the study to what it was started with.

        Raises:
            ConflictError: naming the first thing that differs.
        """
        self.compare(pins)
        if self.remembered("pins") is None:
            self.remember("pins", dict(pins))

    def compare(self, pins: Mapping[str, Any]) -> None:
        """Refuse a study that was started with something else; one that was not started yet may become anything.

        Raises:
            ConflictError: naming the first thing that differs.
        """
        known = self.remembered("pins")
        if known is None:
            return
        for key in dict.fromkeys((*pins, *known)):
            value, was = pins.get(key), known.get(key)
            if was == value:
                continue
            rule = f"belongs to a run with {key} {was!r}, not {value!r}"
            if key in _DIGESTS and was and value:
                rule = f"belongs to a run with other {_DIGESTS[key]} (digest {was}, not {value})"
            advice = "give another --name, or the settings it was started with"
            raise ConflictError("results folder", None, rule, advice)

    def remembered(self, key: str) -> Any:
        """A value kept with `remember`, or None."""
        if key in self._remembered:
            return self._remembered[key]
        return self._loaded.get(key)

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value with the study."""
        self._backing.set_user_attrs({key: value})
        self._remembered[key] = value

    def keep_system_attr(self, key: str, value: Any) -> None:
        """Keep what a sampler wants to find again."""
        self._backing.set_system_attr(key, value)

    def records(self) -> list[Record]:
        """Every record, by number, as they were when the store was opened."""
        keys = [key for key in self._loaded if key.startswith(_RECORD)]
        try:
            with collection_paused():
                found = [Record.model_validate_json(self._loaded.text(key)) for key in keys]
        except ValidationError as error:
            rule = f"its study holds a record that is none ({error.error_count()} problems)"
            raise InputError("results folder", None, rule, "was it written by another version?") from None
        return sorted(found, key=lambda record: record.number)

    def admit(self, trial: FrozenTrial) -> None:
        """Write a proposal that is about to be evaluated."""
        self._backing.create_trial(trial)

    def save(self, record: Record, told: tuple[TrialState, Sequence[float] | None] | None = None) -> None:
        """Write a record, or its newer state; and, if given, how its trial ended."""
        with self._backing.transaction():
            self._backing.set_user_attrs({f"{_RECORD}{record.number}": record.model_dump(mode="json")})
            if told is not None and record.trial is not None:
                self._backing.finish_trial(record.trial, *told)

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """How a trial ended whose record is written already."""
        self._backing.finish_trial(number, state, values)
