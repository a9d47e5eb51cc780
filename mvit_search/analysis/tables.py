"""The printed front: plain rows of text, the same for the terminal, the report and the dashboard."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from mvit_search._quantities import format_bytes, format_count
from mvit_search.analysis.comparison import Comparison, comparisons
from mvit_search.analysis.front_document import FrontDocument, Point, read_document
from mvit_search.analysis.proxy_words import difference_text, proxy_words, value_text

NONE = "–"
Kind = Literal["front", "baseline", "stopped"]


class TableRow(NamedTuple):
    """One network as text.

    Attributes:
        ref: `RUN/NUMBER`; a preset's name where it was not trained.
        kind: a point of the front, a preset set beside it, or a candidate that was stopped at a lower rung.
        cells: text under the table's `columns`.
        beats: presets that it beats by more than the seed noise and costs no more than.
    """

    ref: str | None
    kind: Kind
    cells: tuple[str, ...]
    beats: tuple[str, ...] = ()


class Table(NamedTuple):
    """Column titles and the networks under them; `rows` is the bare text.

    MACs: one multiply-add is one; papers print this as "FLOPs".
    """

    columns: tuple[str, ...]
    entries: tuple[TableRow, ...]

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The cells of every entry."""
        return tuple(entry.cells for entry in self.entries)

    @property
    def left(self) -> tuple[str, ...]:
        """Columns that hold words; the others hold numbers."""
        return self.columns[0], self.columns[-1]


def front_table(document: dict[str, Any]) -> Table:
    """The front, fastest first, each point marked with the presets it beats.

    Raises:
        InputError: the document breaks its contract.
    """
    return front_rows(read_document(document))


def baseline_table(document: dict[str, Any]) -> Table:
    """The presets, in the document's order; one over the budget has no value.

    Raises:
        InputError: the document breaks its contract.
    """
    return baseline_rows(read_document(document))


def front_rows(document: FrontDocument) -> Table:
    """`front_table` of a document that is already validated."""
    pairs = comparisons(document)
    rows = []
    for point in document.front:
        own = [pair for pair in pairs if pair.point is point]
        beats = tuple(pair.baseline.title for pair in own if pair.standing == "better")
        standings = ("is a preset",) if point.name else tuple(_standing(pair, document) for pair in own)
        standing = "; ".join(filter(None, (*standings, _neighbours(point)))) or NONE
        rows.append(TableRow(point.ref, "front", (*_cells(point, document), standing), beats))
    return Table(_columns(document), tuple(rows))


def baseline_rows(document: FrontDocument) -> Table:
    """`baseline_table` of a document that is already validated."""
    rows = (TableRow(p.ref, "baseline", (*_cells(p, document), _why_no_accuracy(p))) for p in document.baselines)
    return Table(_columns(document), tuple(rows))


def stopped_rows(document: FrontDocument, candidates: Sequence[Point], most: int) -> Table:
    """Candidates that were stopped at a lower rung, the highest rung and value first, `most` of them.

    Their values come from shorter trainings, and stand under a title that says so.
    """
    stopped = [point for point in candidates if point.stopped_at is not None]
    stopped.sort(key=_reached, reverse=True)
    rows = []
    for point in stopped[:most]:
        cells = (*_costs(point, document), stopped_value_text(point), rung_text(point, document))
        rows.append(TableRow(point.ref, "stopped", cells))
    return Table((*_cost_columns(document), "Top-1 where it stopped", "Stopped at rung"), tuple(rows))


def stopped_text(point: Point, document: FrontDocument) -> str:
    """`Top-1 61.2 % at rung 2 of 3 (3 epochs), where it was stopped`."""
    return f"Top-1 {stopped_value_text(point)} at rung {rung_text(point, document)}, where it was stopped"


def stopped_value_text(point: Point) -> str:
    """`61.2 %`: the top-1 of the highest rung that a candidate reached before it was stopped."""
    at = point.stopped_at
    return NONE if at is None else f"{100 * (at.value or 0.0):.1f} %"


def rung_text(point: Point, document: FrontDocument) -> str:
    """`2 of 3 (3 epochs)`: the fidelity that a value stands for."""
    at = point.stopped_at
    rung = at.rung if at else document.rungs - 1 if point.value is not None else None
    if rung is None:
        return NONE
    valued = [valuation.epochs for valuation in point.evaluations if valuation.rung == rung and valuation.epochs]
    epochs = f" ({valued[0]} epoch{'s' if valued[0] > 1 else ''})" if valued else ""
    return f"{rung + 1} of {document.rungs}{epochs}"


def latency_title(document: FrontDocument) -> str:
    """`Latency (predicted)` or `Latency (measured)`; bare only where the document does not say."""
    return f"Latency ({document.latency_word})" if document.latency_word else "Latency"


def bytes_text(number: int | None) -> str:
    """1_605_632 -> `1.53 MiB`."""
    return NONE if number is None else format_bytes(number)


def latency_source(document: FrontDocument) -> str:
    """One phrase on where the latencies come from that is true of every row.

    The sources' own where they agree, else what they share: `measured: AMD EPYC (2 cores), ..., 2 threads, medians`
    for rows that were timed unequally often.
    """
    kinds: dict[str, list[str]] = {}
    for source in document.latency_sources:
        kinds.setdefault(source.partition(":")[0], []).append(source)
    phrases = [_shared_source(sources) for sources in kinds.values()]
    timed = [p for p in (*document.front, *document.baselines) if p.latency_ms is not None]
    if not phrases or any(not point.latency_source for point in timed):
        phrases.append("unknown source")
    return "; ".join(phrases)


def sourced_latency_text(point: Point, document: FrontDocument) -> str:
    """`predicted 7.2 ms [6.3, 8.1]`: for places without a title that says how it is known."""
    if point.latency_ms is None:
        return NONE
    return document.known(point, latency_text(point))


def latency_cell(point: Point, document: FrontDocument) -> str:
    """`7.2 ms [6.3, 8.1]` under `latency_title`; with how it is known where the rows differ in that."""
    text = latency_text(point)
    return f"{text}, {point.latency_how or 'unknown source'}" if document.mixed and text != NONE else text


def latency_text(point: Point) -> str:
    """`7.2 ms [6.3, 8.1]`; the interval is left out where it is not known."""
    if point.latency_ms is None:
        return NONE
    text = f"{_ms(point.latency_ms)} ms"
    if point.latency_low_ms is None or point.latency_high_ms is None:
        return text
    return f"{text} [{_ms(point.latency_low_ms)}, {_ms(point.latency_high_ms)}]"


def _shared_source(sources: Sequence[str]) -> str:
    """The leading parts that all of one kind share, and a word for what differs."""
    if len(sources) == 1:
        return sources[0]
    parts = [source.split(", ") for source in sources]
    shared = 0
    while all(len(own) > shared for own in parts) and len({own[shared] for own in parts}) == 1:
        shared += 1
    medians = all(len(own) == shared + 1 and own[shared].startswith("median of ") for own in parts)
    # What follows a semicolon is a runtime's own remark: an interval too wide, a clock that drifted.
    remarks = "; some with remarks on how steadily they were timed" if any("; " in own[-1] for own in parts) else ""
    named = parts[0][:shared] or [sources[0].partition(":")[0]]
    return ", ".join([*named, f"medians{remarks}" if medians else "the rest differs by row"])


def _columns(document: FrontDocument) -> tuple[str, ...]:
    neighbours = any(point.indistinguishable_from for point in document.front)
    last = "Against presets and neighbours" if neighbours else "Against presets"
    return (*_cost_columns(document), proxy_words(document).column, last)


def _cost_columns(document: FrontDocument) -> tuple[str, ...]:
    weights = ("Weights",) if "weight_bytes" in document.objectives else ()
    return ("Reference", "Parameters", "MACs", *weights, "Peak activations", latency_title(document))


def _cells(point: Point, document: FrontDocument) -> tuple[str, ...]:
    return (*_costs(point, document), value_text(point))


def _costs(point: Point, document: FrontDocument) -> tuple[str, ...]:
    reference = f"{point.title} ({point.ref})" if point.name and point.ref != point.name else point.title
    params, macs, peak = format_count(point.params), format_count(point.macs), bytes_text(point.peak_activation_bytes)
    weights = (bytes_text(point.weight_bytes),) if "weight_bytes" in document.objectives else ()
    return reference, params, macs, *weights, peak, latency_cell(point, document)


def _neighbours(point: Point) -> str:
    names = " and ".join(point.indistinguishable_from or ())
    return f"indistinguishable from {names}" if names else ""


def _reached(point: Point) -> tuple[int, float]:
    at = point.stopped_at
    return (at.rung, at.value or 0.0) if at else (-1, 0.0)


def _standing(pair: Comparison, document: FrontDocument) -> str:
    name, points = pair.baseline.title, difference_text(document, pair.difference)
    if pair.standing == "better":
        return f"beats {name} by {points}"
    if pair.standing == "unknown":
        return f"{points} above {name}, spread unknown"
    if pair.standing == "level":
        return f"indistinguishable from {name}" + (f", {pair.saved_ms:.1f} ms faster" if pair.saved_ms >= 0.05 else "")
    return ""


def _why_no_accuracy(point: Point) -> str:
    return "preset" if point.outcome in ("trained", "scored") else f"preset, {point.outcome}"


def _ms(value: float) -> str:
    """One decimal from 1 ms up, two below, as far as the figures mean anything."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"
