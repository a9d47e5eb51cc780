"""A space as one self-contained HTML page: what its candidates cost, from draws of it."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from mvit_search._files import write_atomically
from mvit_search._quantities import format_count
from mvit_search.analysis.front_document import display_name, display_target
from mvit_search.analysis.page import figure_html, footer_html, page_html, scrolling, section, table_html
from mvit_search.analysis.space_survey import Drawn, Share, Survey, telling_dimensions
from mvit_search.errors import InputError
from mvit_search.space import Value

_MOST_SHOWN = 24


def write_space_page(found: Survey, path: Path, budget: int | None = None) -> Path:
    """Write the page to `path`, atomically; its folder is made if need be.

    Raises:
        InputError: `path` cannot be written.
    """
    html = space_page_html(found, budget)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html)
    except OSError as error:
        raise InputError("--html", str(path), f"cannot be written ({error.strerror})") from None
    return path


def space_page_html(found: Survey, budget: int | None = None) -> str:
    """The page: spreads, histograms with the presets and the budget, draws across the dimensions, all dimensions."""
    body = "\n".join((
        _header(found, budget), _costs(found, budget), _across(found), _presets(found), _dimensions(found),
        _limits(found), footer_html(),
    ))  # fmt: skip
    return page_html(f"{found.space.name}: a MobileViT search space", body)


def share_text(share: Share) -> str:
    """`51.5 % [46.6, 56.4]`: the share and its 95 % interval."""
    return f"{100 * share.share:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def size_text(number: int) -> str:
    """`1,296`, or `1.1e23` where digits would say nothing."""
    return f"{number:,}" if number < 10**7 else f"{number:.2g}".replace("e+", "e")


def values_text(values: Sequence[Value]) -> str:
    """`16, 24, 32` or, for a long even ladder, `48 to 240 by 8`."""
    numbers = [value for value in values if isinstance(value, int)]
    steps = {after - before for before, after in pairwise(numbers)}
    if len(numbers) == len(values) > 5 and len(steps) == 1:
        return f"{numbers[0]} to {numbers[-1]} by {steps.pop()}"
    return ", ".join(str(value) for value in values[:_MOST_SHOWN]) + (", ..." if len(values) > _MOST_SHOWN else "")


def _header(found: Survey, budget: int | None) -> str:
    space = found.space
    sizes = [f"{h} × {w} px" for h, w in space.image_sizes]
    shown = sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    tiles = [("Candidates", size_text(space.size()), f"{len(space.dimensions)} dimensions, {shown}")]
    if budget is not None:
        share = found.share_inside(budget)
        rests = f"95 % interval {100 * share.low:.1f} to {100 * share.high:.1f} %, from {share.draws:,} draws"
        tiles.append((f"At most {format_count(budget)} parameters", f"{100 * share.share:.1f} %", rests))
    latency = found.spread("latency_ms")
    spread = f"{latency.low:.1f} to {latency.high:.1f} ms"
    device = display_target(found.target.name)
    tiles.append((f"Latency, predicted for {device}", spread, f"median {latency.median:.1f} ms"))
    drawn = "".join(
        f"<div><dt>{escape(label)}</dt><dd><strong>{escape(value)}</strong><span>{escape(note)}</span></dd></div>"
        for label, value, note in tiles
    )
    return (
        f'<header><p class="kicker">MobileViT search space</p><h1>{escape(space.name)}</h1>'
        f"<p>{escape(space.spec.description)}</p>"
        f'<dl class="tiles">{drawn}</dl></header>'
    )


def _costs(found: Survey, budget: int | None) -> str:
    from mvit_search.analysis.space_figures import cost_figure, quantities

    parts = []
    for quantity in quantities(found):
        line = budget if quantity.name == "params" else None
        parts.append(f"<figure>{figure_html(f'{quantity.name}-figure', cost_figure(found, quantity, line))}</figure>")
    stars = " Stars: published networks inside the space." if found.presets else ""
    dashed = f" Dashed line: the budget of {escape(format_count(budget))} parameters." if budget is not None else ""
    caption = (
        f"<p>{len(found.draws):,} draws, every dimension uniform and independent of the others.{stars}{dashed}</p>"
    )
    return section("What the candidates cost", caption + "".join(parts) + _spread_table(found))


def _spread_table(found: Survey) -> str:
    rows = []
    for name, label in (("params", "Parameters"), ("macs", "MACs"), ("latency_ms", "Latency (predicted, ms)")):
        spread = found.spread(name)
        cells = [f"{n:.2f}" if name == "latency_ms" else format_count(n) for n in spread]
        rows.append((label, *cells))
    return _table(("Of the draws", "Least", "Median", "Most"), rows, "Spread of the draws")


def _across(found: Survey) -> str:
    from mvit_search.analysis.space_figures import MOST_DIMENSIONS, MOST_LINES, dimensions_figure

    shown, every = len(telling_dimensions(found, MOST_DIMENSIONS)), len(found.space.dimensions)
    which = (
        f"The {shown} of {every} dimensions whose values go most with parameters or latency (correlation of ranks)"
        if shown < every
        else "All dimensions"
    )
    caption = (
        f"{which}, then what it costs. One line is one of up to {MOST_LINES} draws; above and below each axis stand its"
        " last and its first value."
    )
    figure = figure_html("dimensions-figure", dimensions_figure(found))
    return section("What decides it", f"<figure>{figure}<figcaption>{escape(caption)}</figcaption></figure>")


def _presets(found: Survey) -> str:
    if not found.presets:
        return section("Published networks inside", "<p>None of the presets lies inside this space.</p>")
    columns = ("Network", "Image", "Parameters", "MACs", "Latency (predicted)")
    rows = [_preset_row(name, drawn) for name, drawn in found.presets]
    return section("Published networks inside", _table(columns, rows, "Published networks inside"))


def _preset_row(name: str, drawn: Drawn) -> tuple[str, ...]:
    latency, (height, width) = drawn.latency, drawn.config.image_size
    shown = f"{latency.ms:.1f} ms [{latency.low_ms:.1f}, {latency.high_ms:.1f}]"
    return display_name(name), f"{height} × {width} px", format_count(drawn.params), format_count(drawn.macs), shown


def _dimensions(found: Survey) -> str:
    rows = [(name, str(len(values)), values_text(values)) for name, values in found.space.dimensions.items()]
    return section("All dimensions", _table(("Dimension", "Values", "Which"), rows, "All dimensions"))


def _limits(found: Survey) -> str:
    items = [
        "Draws stand for the space as a sampler first sees it: each dimension is uniform, so where a condition leaves"
        " out a dimension, its branch is drawn as often as the others and not as often as it has candidates.",
        "The least and the most are those of the draws; the space may hold smaller and larger candidates.",
        f"Latencies are predictions, nothing was run on a device: {escape(found.source_text)}.",
        "MACs count one multiply-add as one; papers print the same figure as FLOPs.",
    ]
    if len(found.space.image_sizes) > 1:
        items.append("The resolution varies from draw to draw; the table of published networks says theirs.")
    return section("Limits of the numbers", "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    return scrolling(table_html(columns, rows), label)
