"""How long a run will still take, from what its trainings took so far."""

from math import log
from typing import NamedTuple

from mvit_search.search.book import Book
from mvit_search.search.plan import Plan

_EULER = 0.5772
_SLOWEST_PACE = 20.0
"""So much time for each second of training at most: early on, little training makes for a wild quotient."""


class Here(NamedTuple):
    """What the estimate takes from the present.

    Attributes:
        candidates: that the run will begin in all, if its time allows.
        new: of those under way, candidates that the book does not know yet.
        under_way: for each task under way, its rung and the seconds since it was begun.
        workers: tasks at once.
        elapsed_s: since this start.
        trained_s: seconds of the trainings that ended since this start, of all workers together.
    """

    candidates: int
    new: int
    under_way: tuple[tuple[int, float], ...]
    workers: int
    elapsed_s: float
    trained_s: float


def remaining_s(plan: Plan, book: Book, here: Here, finals_ahead: int | None) -> float | None:
    """Seconds until the run is done, if later trainings are as long as the ones so far; None before the first.

    At each rung one in `eta` goes on, presets always. Nobody knows the final front's size: today's is taken, grown as
    that of random points grows with their number. What is not training (latencies, proposals, idle workers) is taken to
    need the same share of the time as until now. `finals_ahead`: finals not begun, once they have begun.
    """
    if not book.trainings:
        return None
    from mvit_search.search.driver import CLOSING_SHARE, SEARCH_SHARE  # the driver imports what imports this

    rung_s = _rung_seconds(plan, book)
    whole_s = book.full_training_s() or sum(rung_s)
    pace = _pace(here)
    left_s = max(0.0, plan.settings.time_s - here.elapsed_s)
    if finals_ahead is not None:
        running = [max(0.0, whole_s - seconds) for _, seconds in here.under_way]
        return min(left_s, pace * _together(running, finals_ahead, whole_s, here.workers))
    search_s = pace * _search_seconds(plan, book, here, rung_s)
    share = CLOSING_SHARE if plan.ladder.top else SEARCH_SHARE
    search_s = min(search_s, max(0.0, share * plan.settings.time_s - here.elapsed_s))
    finals_s = pace * _together([], _finals(plan, book, here), whole_s, here.workers)
    return min(left_s, search_s + finals_s)


def _rung_seconds(plan: Plan, book: Book) -> list[float]:
    """Mean seconds of a training at each rung; where none was yet, from the nearest rung by epochs and pixels."""
    works = [_work(plan, rung) for rung in range(len(plan.ladder.rungs))]
    seen = {rung: book.seconds_at[rung] / count for rung, count in enumerate(book.trained_at) if count}
    seconds = []
    for rung, work in enumerate(works):
        nearest = min(seen, key=lambda known: abs(known - rung))
        seconds.append(seen.get(rung, seen[nearest] * work / works[nearest]))
    return seconds


def _work(plan: Plan, rung: int) -> float:
    """What a training at this rung costs, up to a factor."""
    ladder = plan.ladder
    usual = plan.recipe.image_size if plan.recipe is not None else 1
    side = ladder.rungs[rung].image_size or usual
    return max(1, ladder.epochs_of(rung)) * ladder.rungs[rung].fraction * (side / usual) ** 2


def _pace(here: Here) -> float:
    """Seconds of a worker for each second of training."""
    worked_s = here.trained_s + sum(seconds for _, seconds in here.under_way)
    if not here.trained_s:
        return 1.0
    return min(_SLOWEST_PACE, max(1.0, here.workers * here.elapsed_s / worked_s))


def _search_seconds(plan: Plan, book: Book, here: Here, rung_s: list[float]) -> float:
    """Of the search, were there nothing but training."""
    climbing = sum(preset.outcome != "failed" for preset in book.named())
    total_s = chain_s = 0.0
    coming = max(0, here.candidates - book.proposed - here.new)
    for rung, seconds in enumerate(rung_s):
        running = [max(0.0, seconds - since) for at, since in here.under_way if at == rung]
        if rung == 0:
            ahead = coming
            reached = book.valued_at[0] + len(running) + ahead
        else:
            there = book.valued_at[rung] + len(running)
            share = -(-max(1, reached - climbing) // plan.ladder.eta)  # rounded up as the search closes
            ahead = max(0, share + climbing - there)
            reached = there + ahead
        total_s += sum(running) + ahead * seconds
        chain_s += seconds if ahead else max(running, default=0.0)
    # However many workers: a rung's places are given away once those below are known.
    return max(total_s / here.workers, chain_s)


def _finals(plan: Plan, book: Book, here: Here) -> int:
    """Trainings of the finals, were the search's end like its present."""
    settings, front = plan.settings, book.front.members
    now = max(1, sum(book.outcomes[kind] for kind in ("trained", "scored")))
    begun = max(1, book.proposed)
    then = max(now, now * here.candidates / begun)
    # The expected number of maximal points among n random ones, of two objectives, is the n-th harmonic number.
    size = min(then, max(1, len(front)) * _harmonic(then) / _harmonic(now))
    if settings.finals is not None:
        size = min(size, settings.finals)
    on_front = {record.number for record in front}
    presets = sum(preset.outcome != "failed" and preset.number not in on_front for preset in book.named())
    return round((settings.final_seeds - 1) * (size + presets))


def _harmonic(count: float) -> float:
    return 1.0 if count <= 1 else log(count) + _EULER + 1 / (2 * count)


def _together(running: list[float], ahead: int, seconds: float, workers: int) -> float:
    """Until those under way, and so many equal trainings after them, are done."""
    return max((sum(running) + ahead * seconds) / workers, *running, seconds if ahead else 0.0)
