"""`auto`: a sampler by the size of the run."""

from typing import NamedTuple

from mvit_search.search.samplers.grid import MOST_CANDIDATES


class Choice(NamedTuple):
    """A sampler, and why that one, in a line."""

    name: str
    why: str


MOST_ASSISTED = 1_000
"""Trials up to which a model may be fitted for each proposal; beyond, that takes longer than the rest of the engine."""


def choose(trials: int, size: int, objectives: int) -> Choice:
    """For a run of so many trials, in a space of so many candidates, with so many objectives.

    docs/samplers.md has the measurements that it follows.
    """
    if size <= min(trials, MOST_CANDIDATES):
        return Choice("grid", f"{trials:,} trials go through the whole space of {size:,} candidates")
    if objectives > 2:
        return Choice("nsga3", f"{objectives} objectives, where crowding says little")
    if trials <= MOST_ASSISTED:
        return Choice("assisted", "a model chooses among NSGA-II's children: of those measured it found most")
    return Choice("nsga2", f"quick with more than {MOST_ASSISTED:,} trials")
