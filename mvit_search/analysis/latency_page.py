"""The page of `latency --html`: where predicted milliseconds go, in one self-contained file."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from mvit_search.analysis.latency_explanation import CLASS_WORDS, SHARE_WORDS, LatencyExplanation
from mvit_search.analysis.page import (
    figure_html,
    footer_html,
    page_html,
    scrolling,
    section,
    table_html,
    write_page,
)  # fmt: skip
from mvit_search.analysis.profile_facts import FIXED_COST, format_interval, format_ms, interval_name
from mvit_search.analysis.profile_page import require_page_path

_LARGEST = 10
_STRIDE_WORDS = (
    "A package's operators belong to no stages that could be known. They are grouped by stride: image pixels per pixel"
    " of the map; a head counts with the last map's."
)


def write_latency_page(
    words: str, explanations: Sequence[LatencyExplanation], unknown: Mapping[str, int], path: Path
) -> None:
    """Write the page of one network's predictions, a section a target, to `path`.

    `words` say what the network is, `unknown` counts its operators of unknown type.

    Raises:
        InputError: `path` is no .html file, or cannot be written.
    """
    require_page_path(path)
    write_page(latency_page_html(words, explanations, unknown), path)


def latency_page_html(words: str, explanations: Sequence[LatencyExplanation], unknown: Mapping[str, int]) -> str:
    """The page as text."""
    name = explanations[0].network
    header = (
        f'<header><p class="kicker">Where predicted milliseconds go</p><h1>{escape(name)}</h1>'
        f"<p>{escape(words)}</p>{_unknown(unknown)}</header>"
    )
    targets = "".join(_target(explanation, f"t{index}") for index, explanation in enumerate(explanations))
    body = header + targets + _limits() + footer_html()
    return page_html(f"{name}: predicted latency", body, "profile_page.css")


def _unknown(unknown: Mapping[str, int]) -> str:
    if not unknown:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in unknown.items())
    return (
        f"<p><strong>Lower confidence:</strong> operators of unknown type are counted by the bytes that they move"
        f" ({escape(kinds)}), and stand under layout.</p>"
    )


def _target(explanation: LatencyExplanation, identifier: str) -> str:
    from mvit_search.analysis.latency_figures import classes_figure, stages_figure

    latency = explanation.latency
    stages = figure_html(f"{identifier}-stages", stages_figure(explanation))
    classes = figure_html(f"{identifier}-classes", classes_figure(explanation))
    grouping = _STRIDE_WORDS if explanation.grouped_by == "stride" else ""
    return (
        f'<section class="network"><h2>{escape(latency.target)}</h2>{_tiles(explanation)}'
        f"<p>The latency is {escape(latency.source)}. Protocol: {escape(latency.protocol)}.</p>"
        f"<p>{escape(explanation.evidence.words)}</p>"
        f"<h3>By {explanation.grouped_by} and class</h3><p>{SHARE_WORDS} {grouping}</p>"
        f"{scrolling(f'<figure>{stages}</figure>', 'Milliseconds by stage and class, drawn')}"
        '<p class="note">A click on a class in the legend hides it; a double click shows it alone.</p>'
        f"{_stage_table(explanation)}"
        f"<h3>By class</h3>{scrolling(f'<figure>{classes}</figure>', 'Milliseconds by class, drawn')}"
        f"{_class_table(explanation)}"
        f"<h3>The most expensive operators</h3>{_operator_table(explanation)}</section>"
    )


def _tiles(explanation: LatencyExplanation) -> str:
    latency = explanation.latency
    dearest, dearest_ms = explanation.ranked_classes[0]
    tiles = (
        (f"Latency, {latency.target}", format_ms(latency.ms),
         f"predicted; {interval_name(latency)} {format_interval(latency)}"),
        ("Largest class", format_ms(dearest_ms), f"{dearest}, {100 * dearest_ms / latency.ms:.1f} %"),
        ("Fixed cost", format_ms(explanation.fixed_ms), CLASS_WORDS[FIXED_COST]),
    )  # fmt: skip
    drawn = "".join(
        f"<div><dt>{escape(label)}</dt><dd><strong>{escape(value)}</strong><span>{escape(note)}</span></dd></div>"
        for label, value, note in tiles
    )
    return f'<dl class="tiles">{drawn}</dl>'


def _stage_table(explanation: LatencyExplanation) -> str:
    columns = (explanation.grouped_by, *explanation.classes, "ms", "%")
    table = table_html(columns, explanation.stage_rows, style="numbers")
    label = f"Milliseconds by {explanation.grouped_by} and class"
    return f"<details><summary>The same in numbers</summary>{scrolling(table, label)}</details>"


def _class_table(explanation: LatencyExplanation) -> str:
    rows = [(name, *explanation.cells(ms), CLASS_WORDS[name]) for name, ms in explanation.ranked_classes]
    return scrolling(table_html(("class", "ms", "%", "what it is"), rows), "Milliseconds by class")


def _operator_table(explanation: LatencyExplanation) -> str:
    rows = [(row.name, *explanation.cells(row.ms), row.what) for row in explanation.operators[:_LARGEST]]
    return scrolling(table_html(("operator", "ms", "%", "what, and its output"), rows), "Most expensive operators")


def _limits() -> str:
    items = (
        "Nothing was run on the device: a model fitted to published measurements predicts.",
        "The interval is of the whole network; it holds for networks like those that the model was fitted to.",
        "A network of which a part falls off the Neural Engine takes longer than predicted.",
    )
    return section("Limits of the numbers", f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>")
