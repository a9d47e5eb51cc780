"""How long a run will still take, from what its trainings took so far."""

from mvit_search.search.book import Book
from mvit_search.search.plan import Plan


def remaining_s(plan: Plan, book: Book, workers: int, finals_ahead: int | None) -> float | None:
    """Seconds until the run is done, if later trainings are as long as the ones so far; None before the first.

    Of candidates not begun yet, one in `eta` is counted at each higher rung. Nobody knows the final front's size:
    today's is the best guess. `finals_ahead`: trainings left, once the finals have begun.
    """
    if not book.trainings:
        return None
    settings, ladder = plan.settings, plan.ladder
    rung_s = [
        seconds / count if count else None for seconds, count in zip(book.seconds_at, book.trained_at, strict=True)
    ]
    # A rung that nobody reached yet is taken to cost what its epochs cost at the rung below.
    known: list[float] = []
    for rung, seconds in enumerate(rung_s):
        if seconds is None:
            below = known[-1] / max(1, ladder.epochs_of(rung - 1)) if known else 0.0
            seconds = below * ladder.epochs_of(rung)
        known.append(seconds)
    whole = book.full_training_s() or sum(known)
    if finals_ahead is not None:
        return finals_ahead * whole / workers
    new = max(0, settings.trials - book.proposed)
    climbs = sum(seconds / ladder.eta**rung for rung, seconds in enumerate(known))
    finals = (settings.final_seeds - 1) * (len(book.front.members) + 1)
    return (new * climbs + finals * whole) / workers
