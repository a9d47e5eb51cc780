"""The front page: choose a run, see its front, pick a candidate, take its config and export command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from mvit_search._quantities import format_count
from mvit_search.analysis import (
    STAGE_COLUMNS,
    FrontDocument,
    Point,
    Table,
    candidate_points,
    front_figure_data,
    is_alive,
    read_document,
    read_front_now,
    stage_rows,
    verdict_sentences,
)
from mvit_search.analysis.figures import PLOT_CONFIG, front_figure
from mvit_search.analysis.objective_words import COSTS, costs
from mvit_search.analysis.proxy_words import proxy_words, value_text
from mvit_search.analysis.run_facts import STATES, export_command, how_it_ended, resume_command, run_facts
from mvit_search.analysis.tables import (
    baseline_rows,
    bytes_text,
    front_rows,
    latency_cell,
    latency_title,
    rung_text,
    stopped_rows,
    stopped_value_text,
)
from mvit_search.errors import MvitSearchError
from mvit_search.records import RunFolder, run_names

PATH = "/"
TITLE = "Front"

_REFRESH_MS = 3000
_MOST_STOPPED = 50
_NO_FIGURE = {"display": "none"}


def layout(results_dir: Path) -> Component:
    """An empty frame; the callbacks fill it."""
    names = _newest_first(results_dir)
    if not names:
        return _no_runs(results_dir)
    return html.Div([
        html.Div([
            html.Label("Run", htmlFor="run"),
            dcc.Dropdown(id="run", options=list(names), clearable=False, searchable=len(names) > 8),
            html.Span(id="state", className="state", role="status"),
        ], className="chooser"),
        html.Div(id="verdict", className="verdict"),
        dcc.Graph(id="front-figure", style=_NO_FIGURE, config=PLOT_CONFIG),
        html.Div(id="front-table"),
        html.Section(id="candidate", className="candidate", **_labelled("Picked candidate")),
        html.Div(id="facts"),
        dcc.Store(id="picked"),
        dcc.Store(id="shown"),
        dcc.Interval(id="refresh", interval=_REFRESH_MS),
    ])  # fmt: skip


def register(app: Dash, results_dir: Path) -> None:
    """Attach this page's callbacks."""

    @app.callback(Output("run", "value"), Input("location", "search"))
    def choose(search: str | None) -> str | None:
        names = _newest_first(results_dir)
        wanted = _query(search, "run")
        return wanted if wanted in names else names[0] if names else None

    @app.callback(
        Output("picked", "data"),
        Input("run", "value"),
        Input("front-figure", "clickData"),
        Input({"pick": ALL}, "n_clicks"),
        State("location", "search"),
        State("picked", "data"),
    )
    def pick(
        run: str | None, click: dict[str, Any] | None, clicks: list[int | None], search: str | None, before: str | None
    ) -> Any:
        if isinstance(ctx.triggered_id, dict):
            # A table that is drawn anew triggers too, with no click in it.
            return ctx.triggered_id["pick"] if ctx.triggered[0]["value"] else no_update
        if ctx.triggered_id == "front-figure":
            return (click or {}).get("points", [{}])[0].get("customdata", no_update)
        return before if before and run and before.startswith(f"{run}/") else _linked(search, run)

    @app.callback(
        Output("state", "children"),
        Output("verdict", "children"),
        Output("front-figure", "figure"),
        Output("front-figure", "style"),
        Output("front-table", "children"),
        Output("candidate", "children"),
        Output("facts", "children"),
        Output("refresh", "disabled"),
        Output("shown", "data"),
        Input("run", "value"),
        Input("picked", "data"),
        Input("refresh", "n_intervals"),
        State("shown", "data"),
    )
    def show(run: str | None, picked: str | None, ticks: int | None, shown: list[Any] | None) -> tuple[Any, ...]:
        # The name comes from the browser, so it must be one of the listed ones, never a path.
        if run is None or run not in run_names(results_dir):
            return _message("Choose a run.")
        folder = RunFolder(results_dir / run)
        stamp = [run, picked, _changed_at(folder), is_alive(folder)]
        if stamp == shown:
            return (no_update,) * 9
        try:
            return (*_page(folder, results_dir, picked), stamp)
        except MvitSearchError as error:
            return _message(str(error))


def _page(folder: RunFolder, results_dir: Path, picked: str | None) -> tuple[Any, ...]:
    if not (folder.path / "front.json").is_file():
        return _nothing_yet(folder, results_dir)
    front = read_document(read_front_now(folder))
    candidates = candidate_points(folder.records(), folder.name)
    point = next((p for p in (*candidates, *front.baselines) if picked and p.ref == picked), None)
    figure = front_figure(front_figure_data(front, candidates), selected=picked)
    # The same revision keeps the reader's zoom while a running search adds points.
    figure.update_layout(uirevision=folder.name)
    sentences = [html.P(sentence) for sentence in verdict_sentences(front)]
    facts = [html.Li([html.Strong(f"{fact.label}: "), fact.text]) for fact in run_facts(folder.read_run(), front)]
    return (
        _state(front),
        _carry_on(how_it_ended(front), folder, results_dir) + sentences,
        figure,
        {"height": f"{figure.layout.height}px"},
        [_table(front, picked), *_stopped(front, candidates, picked)],
        _candidate(point, front, folder, results_dir),
        html.Details([html.Summary("What was run"), html.Ul(facts)]),
        front.state != "running",
    )


def _nothing_yet(folder: RunFolder, results_dir: Path) -> tuple[Any, ...]:
    """The outputs for a run that has no front yet, which only a live one will ever have."""
    if is_alive(folder):
        text = f"{folder.name} has no finished candidate yet; this page looks again every few seconds."
        return _message(text)[:-1]
    text = f"{folder.name} was cut short before it had a finished candidate; carry on with:"
    return [], _carry_on(text, folder, results_dir), {}, _NO_FIGURE, [], [], [], True


def _carry_on(text: str, folder: RunFolder, results_dir: Path) -> list[Component]:
    """`text` and the command that carries on the run; nothing for a run that needs none."""
    if not text:
        return []
    return [html.P(text, className="notice"), html.Pre(resume_command(results_dir, folder.name))]


def _query(search: str | None, key: str) -> str:
    """`?run=demo&candidate=7`: the page can be linked to."""
    return parse_qs((search or "").lstrip("?")).get(key, [""])[0]


def _linked(search: str | None, run: str | None) -> str | None:
    number = _query(search, "candidate")
    return f"{run}/{number}" if number and run and run == _query(search, "run") else None


def _state(front: FrontDocument) -> list[Component]:
    words = "running, looks again every 3 s" if front.state == "running" else STATES.get(front.state, front.state)
    reasons = ", ".join(f"{count} {reason}" for reason, count in front.failures.items())
    failed = f"{front.failed} failed{f' ({reasons})' if reasons else ''}"
    stopped = f", {front.stopped} stopped at a lower rung" if front.stopped else ""
    counts = (
        f"{front.evaluated} {proxy_words(front).done}{stopped}, {failed}, {front.rejected} rejected before training"
    )
    return [html.Span(words, className=f"badge {front.state}"), html.Span(counts)]


def _table(front: FrontDocument, picked: str | None) -> Component:
    found, presets = front_rows(front), baseline_rows(front)
    return html.Div([
        html.H2("Front and presets"),
        html.P("Pick a row, or a mark in the figure, for its architecture and export command.", className="hint"),
        html.Div(
            html.Table([
                html.Thead(html.Tr([html.Th(column, scope="col") for column in found.columns])),
                _group(f"Pareto front, {COSTS[costs(front)[0]].order}", found, picked, has_button=frozenset()),
                # Two buttons of one identity are an error in Dash, so one on the front has its button there.
                _group("Presets beside it", presets, picked, has_button=frozenset(row.ref for row in found.entries)),
            ]),
            className="scroll", role="region", tabIndex=0, **_labelled("Front and presets"),
        ),
    ])  # fmt: skip


def _stopped(front: FrontDocument, candidates: Sequence[Point], picked: str | None) -> list[Component]:
    """The candidates that were stopped, folded up unless one of them is picked."""
    table = stopped_rows(front, candidates, _MOST_STOPPED)
    if not table.entries:
        return []
    head = html.Thead(html.Tr([html.Th(column, scope="col") for column in table.columns]))
    title = "Of shorter trainings than the front, furthest first"
    rows = html.Table([head, _group(title, table, picked, has_button=frozenset())])
    is_open = any(row.ref == picked for row in table.entries)
    count = sum(point.stopped_at is not None for point in candidates)
    label = f"Stopped at a lower rung: {count}" + (f", {len(table.entries)} shown" if count > _MOST_STOPPED else "")
    whole = html.Div(rows, className="scroll", role="region", tabIndex=0, **_labelled("Stopped candidates"))
    return [html.Details([html.Summary(label), whole], open=is_open)]


def _group(title: str, table: Table, picked: str | None, *, has_button: frozenset[str | None]) -> Component:
    head = html.Tr(html.Th(title, colSpan=len(table.columns), scope="rowgroup"), className="group")
    rows: list[Component] = []
    for row in table.entries:
        name: Any = row.cells[0]
        if row.ref and row.ref not in has_button:
            name = html.Button(name, id={"pick": row.ref}, type="button", className="pick")
        marks = [mark for mark, on in (("beats", row.beats), ("picked", row.ref == picked)) if on]
        cells = [html.Td(cell) for cell in row.cells[1:]]
        rows.append(html.Tr([html.Th(name, scope="row"), *cells], className=" ".join(marks)))
    return html.Tbody([head, *rows])


def _candidate(point: Point | None, front: FrontDocument, folder: RunFolder, results_dir: Path) -> list[Component]:
    if point is None or point.config is None:
        return []
    config = json.dumps(point.config.model_dump(mode="json"), indent=2)
    cells = [
        (proxy_words(front).column, value_text(point)),
        (latency_title(front), latency_cell(point, front)),
        ("Parameters", format_count(point.params)),
        ("MACs", format_count(point.macs)),
        ("Peak activations", bytes_text(point.peak_activation_bytes)),
    ]
    if point.stopped_at is not None:
        cells[0] = ("Top-1 where it stopped", stopped_value_text(point))
    if front.rungs > 1:
        cells.append(("Rung", rung_text(point, front)))
    if "weight_bytes" in front.objectives:
        cells.append(("Weights", bytes_text(point.weight_bytes)))
    tiles = [html.Div([html.Dt(label), html.Dd(text)]) for label, text in cells]
    command = export_command(_reference(point, folder, results_dir))
    rows = [html.Tr([html.Th(row[0], scope="row"), *map(html.Td, row[1:])]) for row in stage_rows(point.config)]
    head = html.Thead(html.Tr([html.Th(column, scope="col") for column in STAGE_COLUMNS]))
    stages = html.Table([head, html.Tbody(rows)])
    return [
        html.H2(point.title),
        html.Dl(tiles, className="tiles"),
        html.P(point.latency_source, className="hint"),
        html.H3("Take it"),
        _copyable("command", command),
        html.H3("Stages"),
        html.Div(stages, className="scroll", role="region", tabIndex=0, **_labelled("Stages")),
        html.Details([html.Summary("Config as JSON"), _copyable("config", config)]),
    ]


def _reference(point: Point, folder: RunFolder, results_dir: Path) -> str:
    """How a command names the pick; outside the default results folder the run is named by its path."""
    number = (point.ref or "").rpartition("/")[2]
    run = folder.name if results_dir == Path("results") else str(results_dir / folder.name)
    return f"{run}/{number}" if number.isdigit() else point.name or ""


def _copyable(identifier: str, text: str) -> Component:
    copy = dcc.Clipboard(target_id=identifier, title="Copy", className="copy")
    return html.Div([html.Pre(text, id=identifier), copy], className="copyable")


def _message(text: str) -> tuple[Any, ...]:
    """The nine outputs of `show` with a notice alone; the timer goes on, for the files may come."""
    return [], [html.P(text, className="notice")], {}, _NO_FIGURE, [], [], [], False, None


def _labelled(text: str) -> dict[str, Any]:
    """The attribute whose name is no Python word."""
    return {"aria-label": text}


def _no_runs(results_dir: Path) -> Component:
    return html.Div([
        html.H1("No run yet"),
        html.P(["There is no run under ", html.Code(str(results_dir)), ". Start one, then load this page again:"]),
        html.Pre("mvit-search run --budget 6M --target iphone12"),
    ])  # fmt: skip


def _newest_first(results_dir: Path) -> tuple[str, ...]:
    names = run_names(results_dir)
    return tuple(sorted(names, key=lambda name: -_changed_at(RunFolder(results_dir / name))))


def _changed_at(folder: RunFolder) -> float:
    """When its results last changed, in seconds since the epoch; 0 before there are any."""
    try:
        return (folder.path / "front.json").stat().st_mtime
    except OSError:
        return 0.0
