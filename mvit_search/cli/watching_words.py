"""A run's progress in words: one line for a valuation, how long is left, the hypervolume as a line of blocks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvit_search._quantities import format_count

if TYPE_CHECKING:
    from mvit_search.records import Record
    from mvit_search.search import Progress

_BLOCKS = "▁▂▃▄▅▆▇█"


def line(progress: "Progress", record: "Record") -> str:
    """All that is known after a valuation in one line, for a log."""
    passed = {"over budget": progress.rejected, "repeated": progress.duplicates}
    facts = [f"{count} {words}" for words, count in passed.items() if count]
    if progress.best is not None:
        facts.append(f"best {point(progress.best)}")
    if progress.best is not None and progress.hypervolume is not None:
        facts.append(f"hypervolume {progress.hypervolume:.4f}")
    if progress.remaining_s is not None and progress.phase != "done":
        facts.append(f"{about(progress.remaining_s)} left")
    done, planned = progress.finals
    where = f"final {done}/{planned}" if progress.phase == "finals" else f"{progress.begun}/{progress.trials}"
    return f"[{where}] {valuation(progress, record)}" + (f" ({', '.join(facts)})" if facts else "")


def valuation(progress: "Progress", record: "Record") -> str:
    """`#3: 637k params, top-1 79.5 % at predicted 2.00 ms`, or what else came of the candidate's latest valuation."""
    what = f"{record.name or f'#{record.number}'}: {format_count(record.params)} params, "
    latest = record.evaluations[-1] if record.evaluations else None
    known = ", from an earlier run" if latest and latest.remembered else ""
    rungs = len(progress.rungs)
    seeds = len(record.value_by_seed)
    final = f"seed {latest.seed}: " if latest and progress.phase == "finals" else ""
    rung = f"rung {latest.rung + 1} of {rungs}: " if latest and rungs > 1 and not final else ""
    if record.outcome == "failed":
        return f"{what}{final or rung}failed ({record.failure or 'error'}): {record.error}"
    within = "" if record.within else ", outside the limits"
    assert record.latency is not None
    latency = f"{record.latency.how} {record.latency.ms:.2f} ms"
    if latest and latest.value is not None and rung:
        epochs = f"{latest.epochs} epoch{'s' if latest.epochs > 1 else ''}"
        return f"{what}{rung}{_value(record, latest.value)} after {epochs} ({latency}){within}{known}"
    if latest and latest.value is not None and final and seeds > 1:
        mean = f"mean of {seeds} {_value(record, record.value)}"
        return f"{what}{final}{_value(record, latest.value)}, {mean} ({latency}){within}{known}"
    return f"{what}{final}{point(record)}{within}{known}"


def point(record: "Record") -> str:
    """`top-1 91.8 % at predicted 7.32 ms`, or `score 117.61 at ...`."""
    assert record.latency is not None
    return f"{_value(record, record.value)} at {record.latency.how} {record.latency_ms:.2f} ms"


def _value(record: "Record", value: float) -> str:
    from mvit_search.analysis.proxy_words import score_text

    return f"score {score_text(value)}" if record.score_by_seed else f"top-1 {100 * value:.1f} %"


def about(seconds: float) -> str:
    """A length of time as precise as an estimate may be: `about 40 s`, `about 3 min`, `about 1.5 h`."""
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 15:
        return "a few seconds"
    if seconds < 55:
        return f"about {10 * round(seconds / 10)} s"
    if minutes < 9.5:
        return f"about {max(1, round(minutes))} min"
    if minutes < 57.5:
        return f"about {5 * round(minutes / 5)} min"
    if hours < 9.75:
        return f"about {round(2 * hours) / 2:g} h"
    return f"about {round(hours)} h" if hours < 47.5 else f"about {round(hours / 24)} days"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as blocks, the lowest the least of them and the highest the most; at most `width` of them."""
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / max(1, width - 1))] for place in range(width)]
    least, most = min(values, default=0.0), max(values, default=0.0)
    span = most - least
    return "".join(_BLOCKS[round((len(_BLOCKS) - 1) * (value - least) / span) if span else 0] for value in values)
