"""Beginning with what another run found: its records where these compare, or its candidates alone."""

from typing import Any, NamedTuple

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.records import Record, RunFolder
from mvit_search.search.ordering import order
from mvit_search.search.plan import Plan
from mvit_search.search.task import Evaluation, Task

_COMPARED = ("proxy", "data", "recipe", "fidelity", "seed", "device", "threads")
"""Pins of the other run without which its values are not values of this one."""


class Earlier(NamedTuple):
    """What a run begins with.

    Attributes:
        configs: the candidates, those that were on the other run's front first; inside the space and the limits.
        values: by (digest, seed, rung), what the other run's trainings came to.
    """

    configs: tuple[MobileViTConfig, ...] = ()
    values: dict[tuple[str, int, int], Evaluation] = {}  # noqa: RUF012 (never changed)

    def get(self, task: Task) -> Evaluation | None:
        """The same training in the other run."""
        return self.values.get((task.config.digest(), task.seed, task.rung))


def load_earlier(folder: RunFolder, plan: Plan, *, with_values: bool) -> Earlier:
    """Take over another run's candidates that this one may have, and with `with_values` what they came to.

    Without values the best are taken, half as many as this run has trials: each is trained again.

    Raises:
        InputError: no run, one without a candidate inside this space and its limits; or, with values, one whose
            trainings do not compare, with what differs.
    """
    option = "--from" if with_values else "--configs-from"
    if with_values:
        _require_same(folder, plan, option)
    records = [record for record in folder.records() if record.config in plan.space and not plan.excess(record.config)]
    if not records:
        rule = f"has no candidate inside space {plan.space.name} and the limits"
        raise InputError(option, folder.name, rule, "take another run, or raise the limits")
    ranked = _ranked(records)
    if not with_values:
        return Earlier(tuple(record.config for record in ranked[: max(1, plan.settings.trials // 2)]))
    values = {
        (record.digest, evaluated.seed, evaluated.rung): Evaluation(
            evaluated.value, evaluated.seconds, image_steps=evaluated.image_steps, largest_batch=record.largest_batch,
            remembered=True,
        )
        for record in records
        for evaluated in record.evaluations
        if evaluated.value is not None
    }  # fmt: skip
    known = [record for record in ranked if any(evaluated.value is not None for evaluated in record.evaluations)]
    return Earlier(tuple(record.config for record in known), values)


def _require_same(folder: RunFolder, plan: Plan, option: str) -> None:
    pins: dict[str, Any] = folder.read_run().get("pins", {})
    own = plan.pins()
    for key in _COMPARED:
        if pins.get(key) != own[key]:
            rule = f"was trained with another {key} ({pins.get(key)}, not {own[key]})"
            advice = f"give --configs-from {folder.name} to take its candidates alone"
            raise InputError(option, folder.name, rule, advice)


def _ranked(records: list[Record]) -> list[Record]:
    """The best first, by non-dominated rank in top-1 (or score) and latency; those without a value last."""
    valued = [record for record in records if record.succeeded]
    best = order([(-record.value, record.latency_ms) for record in valued]) if valued else []
    return [valued[index] for index in best] + [record for record in records if not record.succeeded]
