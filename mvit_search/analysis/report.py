"""`report.html`: one self-contained file about a run, to open anywhere and to send to a colleague.

Everything is inlined, plotly.js once; a content security policy in the page forbids it to load anything.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mvit_search._quantities import format_count
from mvit_search.analysis.comparison import verdict_sentences
from mvit_search.analysis.figure_data import front_figure_data, progress_data
from mvit_search.analysis.front_document import FrontDocument, Point, candidate_points, display_target, read_document
from mvit_search.analysis.liveness import read_front_now
from mvit_search.analysis.objective_words import COSTS, cost_amount, costs
from mvit_search.analysis.page import figure_html, footer_html, page_html, scrolling, section, write_page
from mvit_search.analysis.proxy_words import proxy_words, value_text
from mvit_search.analysis.run_facts import (
    export_command,
    how_it_ended,
    limits_of_the_numbers,
    reproduce_command,
    resume_command,
    run_facts,
)
from mvit_search.analysis.stages import STAGE_COLUMNS, stage_rows
from mvit_search.analysis.tables import (
    Table,
    TableRow,
    baseline_rows,
    front_rows,
    sourced_latency_text,
    stopped_rows,
)
from mvit_search.errors import InputError
from mvit_search.records import RunFolder

_MOST_STOPPED = 100
"""Rows of candidates that were stopped; whoever wants all has candidates.csv."""


def write_report(folder: RunFolder, path: Path) -> Path:
    """Write the report of the run in `folder` to `path`, atomically; its folder is made if need be.

    Raises:
        InputError: the folder is no run, its files break their contract, or `path` cannot be written.
    """
    document = read_front_now(folder)
    records = folder.records() if (folder.path / "candidates.csv").is_file() else ()
    html = report_html(folder.read_run(), document, candidate_points(records, folder.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("output", str(path), f"cannot be written ({error.strerror})") from None
    try:
        write_page(html, path)
    except UnicodeEncodeError:
        raise InputError("run", str(folder.run_file), "holds text that is no Unicode", "was it edited?") from None
    return path


def report_html(run: Mapping[str, Any], document: Mapping[str, Any], candidates: Sequence[Point]) -> str:
    """The page, from `run.json`, the front document and every finished candidate.

    Raises:
        InputError: the document breaks its contract.
    """
    front = read_document(dict(document))
    title = f"{front.run}: MobileViT search for {display_target(front.target) or 'a phone'}"
    body = "\n".join((
        _header(front), _figures(front, candidates), _front_section(front), _stopped_section(front, candidates),
        _architectures(front), _what_was_run(run, front), _reproduce(run, front), _limits(front), footer_html(),
    ))  # fmt: skip
    return page_html(title, body)


def _header(front: FrontDocument) -> str:
    sentences = verdict_sentences(front)
    rest = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences[1:])
    budget = f", at most {format_count(front.budget)} parameters" if front.budget else ""
    return (
        f'<header><p class="kicker">MobileViT search · {escape(display_target(front.target))}{escape(budget)}</p>'
        f"<h1>{escape(front.run)}</h1>{_state_note(front)}"
        f'<section class="verdict" aria-label="Verdict"><p class="lead">{escape(sentences[0])}</p>{rest}'
        f"</section>{_key_points(front)}</header>"
    )


def _state_note(front: FrontDocument) -> str:
    if front.state == "running":
        return '<p class="note">The run was still going when this was written.</p>'
    if ended := how_it_ended(front):
        command = resume_command(_folder(front).parent, _folder(front).name)
        return f'<p class="note">{escape(ended)}</p><pre>{escape(command)}</pre>'
    return ""


def _folder(front: FrontDocument) -> Path:
    """The run's folder as its own commands name it."""
    return Path(front.directory or f"results/{front.run}")


def _key_points(front: FrontDocument) -> str:
    """The ends of the front in large type."""
    points = [point for point in front.front if point.plotted]
    if not points:
        return ""
    first = costs(front)[0]
    best = max(points, key=lambda point: point.value or 0.0)
    least = min(points, key=lambda point: cost_amount(point, first) or 0.0)
    ends = [(proxy_words(front).most.capitalize(), best)] + ([(COSTS[first].least, least)] if len(points) > 1 else [])
    tiles = "".join(
        f"<div><dt>{label}</dt><dd><strong>{escape(value_text(point))}</strong>"
        f"<span>{escape(sourced_latency_text(point, front))}, {escape(format_count(point.params))} parameters</span>"
        f"<span><code>{escape(point.ref or point.title)}</code></span></dd></div>"
        for label, point in ends
    )
    stopped = f"{front.stopped} stopped at a lower rung, " if front.stopped else ""
    tried = f"<span>{stopped}{front.failed} failed, {front.rejected} proposals over a limit</span>"
    tiles += (
        f"<div><dt>Candidates {proxy_words(front).done}</dt><dd><strong>{front.evaluated}</strong>{tried}</dd></div>"
    )
    return f'<dl class="tiles">{tiles}</dl>'


def _figures(front: FrontDocument, candidates: Sequence[Point]) -> str:
    from mvit_search.analysis.figures import front_figure, progress_figure

    drawn = figure_html("front-figure", front_figure(front_figure_data(front, candidates)))
    caption = (
        "Bars across: interval of the latency. Bars upright: standard deviation over seeds. Point at a mark for"
        " its facts; drag to zoom, double-click to return."
    )
    if front.stopped:
        caption += (
            " Hollow: candidates that were stopped at a lower rung, at the value of that shorter training; not"
            " comparable with the others."
        )
    parts = [f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"]
    has_box = all(front.hypervolume_reference.get(key, 0) > 0 for key in costs(front))
    if front.hypervolume is not None and has_box and len(candidates) > 1:
        grown = figure_html("progress-figure", progress_figure(progress_data(front, candidates)))
        parts.append(f"<figure>{grown}</figure>")
    return section("The front", "".join(parts))


def _front_section(front: FrontDocument) -> str:
    found, presets = front_rows(front), baseline_rows(front)
    if not found.entries and not presets.entries:
        return ""
    groups = [
        (f"Pareto front, {COSTS[costs(front)[0]].order}", found.entries),
        ("Presets, same proxy", presets.entries),
    ]
    body = "".join(
        f'<tbody><tr class="group"><th colspan="{len(found.columns)}" scope="rowgroup">{label}</th></tr>'
        f"{''.join(map(_table_row, rows))}</tbody>"
        for label, rows in groups
        if rows
    )
    return section("Front and presets", scrolling(f"<table>{_head(found)}{body}</table>", "Front and presets"))


def _stopped_section(front: FrontDocument, candidates: Sequence[Point]) -> str:
    table = stopped_rows(front, candidates, _MOST_STOPPED)
    if not table.entries:
        return ""
    count = sum(point.stopped_at is not None for point in candidates)
    which = f"The {len(table.entries)} that came furthest, of {count}" if count > len(table.entries) else f"{count}"
    body = f"<tbody>{''.join(map(_table_row, table.entries))}</tbody>"
    whole = scrolling(f"<table>{_head(table)}{body}</table>", "Stopped candidates")
    words = "Their top-1 is that of the rung they reached, of a shorter training than the front's."
    return section(
        "Stopped at a lower rung", f"<p>{words}</p><details><summary>{which} candidates</summary>{whole}</details>"
    )


def _table_row(row: TableRow) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells[1:])
    style = ' class="beats"' if row.beats else ""
    return f'<tr{style}><th scope="row">{escape(row.cells[0])}</th>{cells}</tr>'


def _head(table: Table) -> str:
    return f"<thead><tr>{_column_heads(table.columns)}</tr></thead>"


def _column_heads(columns: Iterable[str]) -> str:
    return "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)


def _architectures(front: FrontDocument) -> str:
    shown = [point for point in front.front if point.config is not None]
    if not shown:
        return ""
    best = max(shown, key=lambda point: point.value or 0.0)
    blocks = "".join(_architecture(front, point, is_open=point is best) for point in shown)
    return section("Architectures", f"<p>Stage by stage; the {proxy_words(front).most} is open.</p>{blocks}")


def _architecture(front: FrontDocument, point: Point, *, is_open: bool) -> str:
    assert point.config is not None
    rows = "".join(
        f'<tr><th scope="row">{escape(row.stage)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in stage_rows(point.config)
    )
    table = f"<table><thead><tr>{_column_heads(STAGE_COLUMNS)}</tr></thead><tbody>{rows}</tbody></table>"
    height, width = point.config.image_size
    facts = f"{value_text(point)}, {sourced_latency_text(point, front)}, {format_count(point.params)} parameters"
    config = escape(json.dumps(point.config.model_dump(mode="json"), indent=2))
    return (
        f"<details{' open' if is_open else ''}><summary><strong>{escape(point.title)}</strong>"
        f" <span>{escape(facts)}</span></summary>{scrolling(table, f'Stages of {point.title}')}"
        f"<p>Input {height} × {width} pixels, activation {escape(point.config.activation)}.</p>"
        f"<details><summary>Config as JSON</summary><pre>{config}</pre></details></details>"
    )


def _what_was_run(run: Mapping[str, Any], front: FrontDocument) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(fact.label)}</th><td>{escape(fact.text)}</td></tr>'
        for fact in run_facts(run, front)
    )
    return section("What was run", f'<table class="facts"><tbody>{rows}</tbody></table>')


def _reproduce(run: Mapping[str, Any], front: FrontDocument) -> str:
    folder = _folder(front)
    again = reproduce_command(run, f"{front.run}-again", folder.parent)
    pick = export_command(str(folder / "best"))
    export = f"<p>To take a network from it:</p><pre>{escape(pick)}</pre>"
    return section(
        "How to reproduce",
        f"<pre>{escape(again)}</pre>"
        "<p>The seed fixes what is proposed and trained on one machine; a time limit, another machine or several"
        f" workers may change the order, and with it the result.</p>{export if front.front else ''}",
    )


def _limits(front: FrontDocument) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in limits_of_the_numbers(front))
    return section("Limits of the numbers", f"<ul>{items}</ul>")
