"""The run's log of events: asks, beginnings, promotions, ends, in their order, one JSON object a line.

The order is in the storage: with every trial and every valuation stands its place. `events.jsonl` is written from it,
so that it never says anything else; it is written anew when a run is carried on, and then line by line.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from optuna.trial import FrozenTrial

from mvit_search._files import write_atomically
from mvit_search.errors import InputError
from mvit_search.records import Record
from mvit_search.records.record import Evaluated

FILE = "events.jsonl"
EVENT = "event"
"""Attribute of a trial: its place in the order of events."""


def asked(trial: FrozenTrial, digest: str) -> dict[str, Any]:
    """A proposal was admitted; with how many were passed over before it."""
    attrs = trial.user_attrs
    return {"event": attrs[EVENT], "kind": "ask", "trial": trial.number, "digest": digest, **{
        key: value for key, value in attrs.items() if key != EVENT
    }, "params": trial.params}  # fmt: skip


def valued(record: Record, evaluated: Evaluated) -> tuple[dict[str, Any], dict[str, Any]]:
    """A valuation began (at a higher rung: a promotion), and ended."""
    what = {"digest": record.digest, "seed": evaluated.seed, "rung": evaluated.rung}
    climbed = any(e.seed == evaluated.seed and e.rung < evaluated.rung for e in record.evaluations)
    kind = "promote" if climbed and record.origin != "preset" else "begin"
    begun = {"event": evaluated.begun, "kind": kind, **what, **({"name": record.name} if record.name else {})}
    ended = {
        "event": evaluated.ended, "kind": "end", "candidate": record.number, **what, "value": evaluated.value,
        **({"error": record.error} if evaluated.value is None else {}),
        **({"remembered": True} if evaluated.remembered else {}),
    }  # fmt: skip
    return begun, ended


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every event of a log, in order.

    Raises:
        InputError: there is none, or a line that is no event.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines if line]
        return sorted(events, key=lambda event: int(event["event"]))
    except OSError:
        raise InputError("run", str(path.parent), f"has no {FILE}", "was it made by an earlier version?") from None
    except (ValueError, TypeError, KeyError) as error:
        rule = f"cannot be read as a log of events ({type(error).__name__})"
        raise InputError("run", str(path), rule, "carry the run on once: that writes the file anew") from None


class EventLog:
    """The open file. What cannot be written to it is left: the storage has it, and the next start writes it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._stream: TextIO | None = None

    def begin(self, events: Iterable[dict[str, Any]]) -> None:
        """Write the file anew from what is stored, and leave it open for more."""
        known = sorted(events, key=lambda event: int(event["event"]))
        with suppress(OSError):
            write_atomically(self._path, "".join(_lines(known)))
            self._stream = self._path.open("a", encoding="utf-8")

    def add(self, *events: dict[str, Any]) -> None:
        """Append events."""
        if self._stream is None:
            return
        try:
            self._stream.write("".join(_lines(events)))
            self._stream.flush()
        except OSError:
            self.close()

    def close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None


def _lines(events: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(event, separators=(",", ":")) + "\n" for event in events)
