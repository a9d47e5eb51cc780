"""How well proxies rank, in words and rows: one wording for the terminal and the page."""

from collections.abc import Sequence

from mvit_search.ranking.proxies import TRAINED
from mvit_search.ranking.recommendation import BASELINES, Judged, estimate_words, seconds_words
from mvit_search.ranking.statistics import Spread
from mvit_search.ranking.summary import Findings

PROXY_COLUMNS = ("proxy", "CPU s", "image steps", "tau", "rho", "seeds", "candidates")
PAGE_COLUMNS = (
    "proxy", "CPU s", "image steps", "tau", "over params", "over MACs", "other seeds", "rho", "seeds", "candidates",
    "family",
)  # fmt: skip
SPREAD_COLUMNS = ("training", "between candidates", "between seeds", "without the seeds' noise", "ratio")
_NONE = "–"


def proxy_rows(found: Findings) -> list[tuple[str, ...]]:
    """A row a proxy under `PROXY_COLUMNS`, the recommended one marked with an arrow."""
    chosen = found.recommendation.chosen
    return [_row(one, chosen is one) for one in found.judged]


def page_rows(found: Findings) -> list[tuple[str, ...]]:
    """The same, and what else was found, under `PAGE_COLUMNS`."""
    rows = []
    for one, (name, seconds, steps, tau, rho, *counts) in zip(found.judged, proxy_rows(found), strict=True):
        over = (estimate_words(one.over[size]) if size in one.over else _NONE for size in BASELINES)
        other = one.other_seeds
        against = f"{other.tau:.2f} ({other.candidates})" if other else _NONE
        rows.append((name, seconds, steps, tau, *over, against, rho, *counts, one.proxy.family))
    return rows


def spread_rows(found: Findings) -> list[tuple[str, ...]]:
    """A row under `SPREAD_COLUMNS` for the reference, then for every training's top-1; points of percent."""
    trained = [(one.proxy.name, one.spread) for one in found.judged if one.spread and one.proxy.family in TRAINED]
    rows = [(f"{found.measured.reference.fidelity} (reference)", found.spread), *trained]
    return [(name, *_spread_cells(spread)) for name, spread in rows]


def noise_sentences(found: Findings) -> tuple[str, ...]:
    """What the reference's own noise allows, and what was left out."""
    data = found.measured
    seeds = f"seed{'s' if len(data.top1) > 1 else ''} {', '.join(map(str, sorted(data.top1)))}"
    words = [
        f"Reference: top-1 after {data.reference.fidelity} ({data.reference.epochs} epochs),"
        f" {len(data.means)} candidates, {seeds};"
        f" {seconds_words(data.cost[0])} CPU s and {data.cost[1]:,.0f} image steps a training."
    ]
    spread = found.spread
    if spread.within is None:
        words.append(
            "It has one seed a candidate, so its own noise is unknown. That noise lowers the tau of whatever does not"
            " share its trainings."
        )
    else:
        words.append(
            f"Spread between candidates {_points(spread.between)}, between seeds {_points(spread.within)} points of"
            f" top-1: signal to noise {_ratio(spread)}."
        )
    if found.repeatability:
        repeat, most = found.repeatability.repeat, found.repeatability
        again = f"Training to the end once more ranks with tau {estimate_words(repeat)}; a" if repeat else "A"
        words.append(
            f"{again} score without any noise would reach tau {most.ceiling:.2f} against so noisy a reference"
            f" ({most.candidates} candidates with several seeds)."
        )
    if data.failed:
        words.append(f"{data.failed} trainings failed and have no score.")
    return tuple(words)


def _row(one: Judged, chosen: bool) -> tuple[str, ...]:
    found, proxy = one.agreement, one.proxy
    tau, rho = (estimate_words(found.tau), estimate_words(found.rho)) if found else (_NONE, _NONE)
    numbers = (str(found.seeds), str(found.candidates)) if found else (_NONE, _NONE)
    name = f"{proxy.name} ◄" if chosen else proxy.name
    seconds = seconds_words(proxy.cpu_seconds) if proxy.cpu_seconds else "0"
    return name, seconds, f"{proxy.image_steps:,.0f}", tau, rho, *numbers


def _spread_cells(spread: Spread) -> Sequence[str]:
    seeds = _NONE if spread.within is None else _points(spread.within)
    corrected = _NONE if spread.corrected is None else _points(spread.corrected)
    return _points(spread.between), seeds, corrected, _ratio(spread)


def _points(share: float) -> str:
    return f"{100 * share:.2f}"


def _ratio(spread: Spread) -> str:
    return _NONE if spread.ratio is None else f"{spread.ratio:.2f}"
