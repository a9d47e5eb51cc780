"""The study as the single source of truth: an Optuna journal file with the candidates' records in it.

Trials hold proposals; records are study attributes `candidate:<number>`, because a record also exists for
a preset outside the space and grows when the finals re-train it. A record is written before its trial is
told, so a crash between the two costs nothing: at the next start the trial is told from the record.
"""

import fcntl
import json
import os
import time
import warnings
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import ValidationError

from mvit_search.errors import ConflictError, InputError
from mvit_search.records import Record, RunFolder
from mvit_search.space import Params

_STUDY = "mvit-search"
_DIGESTS = {"data": "images", "recipe": "training recipe", "space": "search space"}  # pinned by digest
_RECORD = "candidate:"
_OUTCOME = "outcome"
_POOL, _SCORE = "pool", "prescreen_score"
OUTCOMES = ("trained", "scored", "failed", "rejected", "duplicate", "prescreened", "replaced", "discarded")
"""How a proposal can end; what each means stands at what tells it."""


class Store:
    """An open study, held by this process alone.

    Open with `Store.open(folder)`, close with `close()` or as a context manager.
    """

    def __init__(self, study: optuna.Study, lock: int) -> None:
        self.study = study
        self._lock = lock

    @classmethod
    def open(cls, folder: RunFolder) -> Self:
        """Open or create the study in `folder`.

        Raises:
            ConflictError: another live process holds the run.
            InputError: the folder cannot be written, or the study file cannot be read.
        """
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError("results folder", str(folder.path), f"cannot be written ({error.strerror})") from None
        if not _locked(lock):
            owner = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            rule = f"is in use by another run (process {owner})"
            raise ConflictError(
                "results folder", str(folder.path), rule, "wait for it, or give another --name"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        try:
            return cls(_open_study(folder.study_file), lock)
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def pin(self, pins: Mapping[str, Any]) -> None:
        """Tie the study to what it was started with.

        Raises:
            ConflictError: naming the first thing that differs.
        """
        known = self.study.user_attrs.get("pins")
        if known is None:
            self.study.set_user_attr("pins", dict(pins))
            return
        for key, value in pins.items():
            if known.get(key) != value:
                was = known.get(key)
                rule = f"belongs to a run with {key} {was!r}, not {value!r}"
                if key in _DIGESTS and was and value:
                    rule = f"belongs to a run with other {_DIGESTS[key]} (digest {was}, not {value})"
                raise ConflictError(
                    "results folder", None, rule, "give another --name, or the settings it was started with"
                )

    def remembered(self, key: str) -> Any:
        """A value kept with `remember`, or None."""
        return self.study.user_attrs.get(key)

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value with the study."""
        self.study.set_user_attr(key, value)

    def records(self) -> list[Record]:
        """Every record, by number."""
        attributes = self.study.user_attrs
        try:
            found = [Record.model_validate(attributes[key]) for key in attributes if key.startswith(_RECORD)]
        except ValidationError as error:
            rule = f"its study holds a record that is none ({error.error_count()} problems)"
            raise InputError("results folder", None, rule, "was it written by another version?") from None
        return sorted(found, key=lambda record: record.number)

    def save(self, record: Record) -> None:
        """Write a record, or its newer state."""
        self.study.set_user_attr(f"{_RECORD}{record.number}", record.model_dump(mode="json"))

    def ask(
        self, distributions: dict[str, BaseDistribution], sampler: BaseSampler, params: Params | None = None
    ) -> Trial:
        """A new proposal: the sampler's, or `params` if given."""
        self.study.sampler = sampler
        self._enqueue(params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self.study.ask(distributions)

    def tell_record(self, trial: Trial, record: Record, *, duplicate: bool = False) -> None:
        """A finished candidate. A failed one counts as failed: the sampler learns nothing from it."""
        trial.set_user_attr(_OUTCOME, "duplicate" if duplicate else record.outcome)
        if record.outcome == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, values=(record.value, record.latency_ms))

    def tell_unevaluated(self, trial: Trial, outcome: str) -> None:
        """A proposal that nothing is known of: prescreened away, or the same as one beside it.

        Told as failed, for the sampler can learn nothing from it: any value would be made up. That starves it of
        nothing, unlike proposals over a limit, since one of each pool is trained.
        """
        trial.set_user_attr(_OUTCOME, outcome)
        self.study.tell(trial, state=TrialState.FAIL)

    def replace(self, trial: Trial, params: Params) -> None:
        """Let `params` be what is asked for next, in place of `trial`, which ends without a value."""
        # In this order: a kill in between leaves both, and the same is done again.
        self._enqueue(params)
        self.tell_unevaluated(trial, "replaced")

    def waiting(self) -> bool:
        """Whether a proposal stands ready that `ask` will give out before any other."""
        return bool(self._trials(TrialState.WAITING))

    def tell_rejected(
        self, trial: Trial, excess: Mapping[str, float], worst_value: float, worst_latency_ms: float
    ) -> None:
        """A proposal over a limit: complete, worst in both objectives, with its constraints.

        Told as failed, such proposals would starve the sampler of parents.
        """
        with warnings.catch_warnings():
            # A proposal that a kill cut off between here and `tell` has its constraint already.
            warnings.filterwarnings("ignore", message="The constraint value is ignored")
            for name, over in excess.items():
                trial.set_constraint(name, over)
        trial.set_user_attr(_OUTCOME, "rejected")
        self.study.tell(trial, values=(worst_value, worst_latency_ms))

    def unfinished(self, parameters: Set[str]) -> list[Trial]:
        """Proposals that were in flight when the run last ended.

        One that a kill cut short before all of `parameters` were written is discarded: it was never admitted. Where
        its parameters were ours and not the sampler's, they are asked for again.
        """
        whole = []
        for frozen in self._trials(TrialState.RUNNING):
            trial = Trial(self.study, frozen._trial_id)
            if frozen.params.keys() == parameters:
                whole.append(trial)
            else:
                self._enqueue(frozen.system_attrs.get("fixed_params"))
                self.tell_unevaluated(trial, "discarded")
        return whole

    def trailing(self, *outcomes: str) -> int:
        """How many of the latest finished proposals, without a break, had one of these outcomes.

        A proposal in flight is a break, unless it is the latest: whether that one is admitted is yet to be seen.
        """
        count = 0
        proposed = self._trials(TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING)
        told = [trial for trial in proposed if trial.user_attrs.get(_OUTCOME) != "discarded"]
        if told and told[-1].state == TrialState.RUNNING:
            told.pop()
        for trial in reversed(told):
            if trial.user_attrs.get(_OUTCOME) not in outcomes:
                break
            count += 1
        return count

    def latest(self) -> int:
        """Number of the latest proposal that was not discarded; -1 before the first."""
        proposed = self._trials(TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING)
        return max((t.number for t in proposed if t.user_attrs.get(_OUTCOME) != "discarded"), default=-1)

    def put_in_pool(self, trial: Trial, number: int) -> None:
        """Note that `trial` is one of the proposals of which one becomes record `number`."""
        trial.set_user_attr(_POOL, number)

    def pool_of(self, trial: Trial) -> int | None:
        """The record that its pool becomes; None if it is in none."""
        number: int | None = trial.user_attrs.get(_POOL)
        return number

    def note_score(self, trial: Trial, score: float | None) -> None:
        """Keep what a pooled proposal scored; None if it could not be scored."""
        trial.set_user_attr(_SCORE, score)

    def scored(self, trial: Trial) -> tuple[float | None] | None:
        """(its score,), or None if it has not been scored yet."""
        attributes = trial.user_attrs
        return (attributes[_SCORE],) if _SCORE in attributes else None

    def outcomes(self) -> dict[str, int]:
        """How many proposals ended how, by each of `OUTCOMES`."""
        counts = dict.fromkeys(OUTCOMES, 0)
        for trial in self._trials():
            outcome = trial.user_attrs.get(_OUTCOME)
            if outcome is not None and trial.state.is_finished():
                counts[outcome] += 1
        return counts

    def _enqueue(self, params: Params | None) -> None:
        # A kill between enqueueing and asking leaves the proposal waiting; it is the one that is asked for again.
        if params is not None and not self.waiting():
            self.study.enqueue_trial(params)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)


def _locked(lock: int) -> bool:
    """Take the lock; a second look, because a dashboard that asks whether a run is alive holds it for an instant."""
    for attempt in range(3):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05 * attempt)
        else:
            return True
    return False


def _open_study(path: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        _mend(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        # Not `load_if_exists`: that writes to the file even where it loads.
        if any(study.study_name == _STUDY for study in storage.get_all_studies()):
            return optuna.load_study(storage=storage, study_name=_STUDY)
        return optuna.create_study(storage=storage, study_name=_STUDY, directions=("maximize", "minimize"))
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        # Optuna meets a foreign or damaged journal with whatever its replay runs into, `assert` included.
        rule = f"holds a study that cannot be read ({type(error).__name__})"
        raise InputError("results folder", str(path), rule, "give another --name, or restore the file") from None


def _mend(path: Path) -> None:
    """Undo what a kill can leave behind: a held journal lock, and half a line at the end.

    Safe because the run's own lock is held: nobody else writes. Half a line is an operation that was never
    acknowledged; left in place, the next append would make it a corrupt line in the middle.
    """
    Path(f"{path}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole:
        # Optuna forgives a last line that is no JSON, and would then append to it.
        json.loads(content[content.rfind(b"\n", 0, whole - 1) + 1 : whole])
    if whole != len(content):
        os.truncate(path, whole)
