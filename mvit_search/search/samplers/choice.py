"""`auto`: a sampler by the size of the run."""

from typing import NamedTuple

from mvit_search.search.samplers.grid import MOST_CANDIDATES


class Choice(NamedTuple):
    """A sampler, and why that one, in a line."""

    name: str
    why: str


def choose(trials: int, size: int, objectives: int) -> Choice:
    """For a run of so many trials, in a space of so many candidates, with so many objectives.

    docs/samplers.md has the measurements that it follows.
    """
    if size <= min(trials, MOST_CANDIDATES):
        return Choice("grid", f"{trials:,} trials go through the whole space of {size:,} candidates")
    if objectives > 2:
        return Choice("nsga3", f"{objectives} objectives, where crowding says little")
    return Choice("nsga2", "of those measured with two objectives none found surely more")
