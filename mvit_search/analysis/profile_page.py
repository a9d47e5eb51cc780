"""The page of `profile --html`: a picture of each architecture, and where its cost is, in one self-contained file."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mvit_search._quantities import format_bytes, format_count
from mvit_search.analysis.page import (
    figure_html,
    footer_html,
    page_html,
    scrolling,
    section,
    table_html,
    write_page,
)  # fmt: skip
from mvit_search.analysis.profile_comparison import comparison_rows, config_differences, latency_sources
from mvit_search.analysis.profile_facts import (
    FIXED_COST,
    KIND_WORDS,
    NetworkProfile,
    block_kind,
    detail_words,
    format_interval,
    format_ms,
    interval_name,
)  # fmt: skip
from mvit_search.analysis.profile_picture import picture_svg
from mvit_search.analysis.profile_published import PUBLISHED_COLUMNS, published_facts
from mvit_search.errors import InputError

_PICTURE_WORDS = (
    "Height of a bar: side of the feature map; width: channels (in a transformer layer, d); both on a square-root"
    " scale. One bar is one block or layer, at most five are drawn. Shapes are channels × height × width; stride is"
    " image pixels per pixel of the map."
)
_SHARE_WORDS = "Every operator of the network is in one of these blocks, so the shares add up to all of it."
_MS_WORDS = (
    " Those of the milliseconds do with the fixed cost, which a run has whatever its operators. A predicted share has"
    " no interval of its own: the predictor's error was found on whole networks."
)
_MEMORY_WORDS = (
    "fp16, one image. An output takes memory when its operator runs and gives it back after its last reader; a reshape"
    " takes none. Weights and a runtime's scratch space are not in it."
)


def write_profile_page(profiles: Sequence[NetworkProfile], path: Path) -> None:
    """Write the page of one network, or of several side by side, to `path`.

    Raises:
        InputError: `path` is no .html file, or cannot be written.
    """
    require_page_path(path)
    write_page(profile_page_html(profiles), path)


def require_page_path(path: Path) -> None:
    """Say early what would fail late: before a network is measured or verified.

    Raises:
        InputError: another suffix than .html or .htm, or a folder that is not there or may not be entered.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError("--html", str(path), "must end in .html", "name the page to write")
    try:
        is_folder, has_folder = path.is_dir(), path.parent.is_dir()
    except OSError as error:  # a folder on the way that may not be entered
        rule = f"cannot be written ({error.strerror or error})"
        raise InputError("--html", str(path), rule, "choose another place") from None
    if is_folder:
        raise InputError("--html", str(path), "is a folder", "name the page to write")
    if not has_folder:
        raise InputError("--html", str(path), "is in a folder that does not exist", f"make {str(path.parent)!r} first")


def profile_page_html(profiles: Sequence[NetworkProfile]) -> str:
    """The page as text."""
    names = ", ".join(profile.name for profile in profiles)
    kicker = "Profile of a network" if len(profiles) == 1 else "Networks side by side"
    lead = _lead(profiles)
    compared = _comparison(profiles) if len(profiles) > 1 else ""
    networks = "".join(_network(profile, f"n{index}") for index, profile in enumerate(profiles))
    header = f'<header><p class="kicker">{kicker}</p><h1>{escape(names)}</h1>{lead}</header>'
    return page_html(f"{names}: profile", header + compared + networks + _limits() + footer_html(), "profile_page.css")


def _lead(profiles: Sequence[NetworkProfile]) -> str:
    return "".join(
        f"<p>Latency of {escape(', '.join(names))} is {escape(source)}.</p>"
        for source, names in latency_sources(profiles)
    )


def _comparison(profiles: Sequence[NetworkProfile]) -> str:
    columns = ("", *[profile.name for profile in profiles])
    table = table_html(columns, [(row.fact, *row.cells) for row in comparison_rows(profiles)], style="numbers")
    words = f"<p>× is the ratio to {escape(profiles[0].name)}.</p>"
    different = config_differences(profiles)
    fields = table_html(columns, [(row.fact, *row.cells) for row in different], style="numbers")
    summary = f"{len(different)} config field{'s' if len(different) > 1 else ''} differ{'s' * (len(different) == 1)}"
    details = f"<details><summary>{summary}</summary>{scrolling(fields, 'Config fields')}</details>"
    if not different:
        details = "<p>Their configs are equal.</p>"
    return section("Side by side", scrolling(table, "Side by side") + words + details)


def _network(profile: NetworkProfile, identifier: str) -> str:
    from mvit_search.analysis.profile_figures import memory_figure

    memory = figure_html(f"{identifier}-memory", memory_figure(profile))
    words = _SHARE_WORDS + (_MS_WORDS if profile.layer_ms else "")
    return (
        f'<section class="network"><h2>{escape(profile.name)}</h2><p class="kicker">{escape(_what(profile))}</p>'
        f"{_tiles(profile)}{_published(profile)}"
        f"<h3>Architecture</h3>{_legend(profile)}"
        f"{scrolling(picture_svg(profile, identifier), f'Picture of {profile.name}')}"
        f'<p class="note">{_PICTURE_WORDS}</p>'
        f"<h3>Where it is</h3><p>{words}</p>{_legend(profile)}{_bars(profile, identifier)}"
        f"<h3>Activation memory</h3><figure>{memory}<figcaption>{_MEMORY_WORDS}</figcaption></figure>"
        f"{_blocks(profile)}{_config(profile)}</section>"
    )


def _what(profile: NetworkProfile) -> str:
    return f"{profile.task}, {profile.size_words} px, {profile.num_classes} classes{profile.stride_words}"


def _tiles(profile: NetworkProfile) -> str:
    costs, latency = profile.costs, profile.latency
    how = latency.source.partition(":")[0]
    tiles = (
        ("Parameters", f"{costs.params:,}", f"{format_bytes(costs.weight_bytes)} of weights (fp16)"),
        ("MACs", format_count(costs.macs), "multiply-adds; papers print them as FLOPs"),
        ("Peak activations", format_bytes(costs.peak_activation_bytes), "fp16, one image"),
        (f"Latency, {latency.target}", format_ms(latency.ms),
         f"{how}; {interval_name(latency)} {format_interval(latency)}"),
    )  # fmt: skip
    drawn = "".join(
        f"<div><dt>{escape(label)}</dt><dd><strong>{escape(value)}</strong><span>{escape(note)}</span></dd></div>"
        for label, value, note in tiles
    )
    return f'<dl class="tiles">{drawn}</dl>'


def _published(profile: NetworkProfile) -> str:
    facts = published_facts(profile)
    if not facts:
        return ""
    table = table_html(PUBLISHED_COLUMNS, [fact.cells for fact in facts], style="printed")
    return f"<h3>Beside the published values</h3>{scrolling(table, 'Published values')}"


def _legend(profile: NetworkProfile) -> str:
    kinds = dict.fromkeys(block_kind(row.name, profile.config) for row in profile.layers)
    items = "".join(f'<li><span class="{kind}"></span>{escape(KIND_WORDS[kind])}</li>' for kind in kinds)
    return f'<ul class="legend">{items}</ul>'


def _bars(profile: NetworkProfile, identifier: str) -> str:
    from mvit_search.analysis.profile_figures import bars_figure, quantities

    figures = "".join(
        f"<figure>{figure_html(f'{identifier}-{quantity.key}', bars_figure(profile, quantity))}</figure>"
        for quantity in quantities(profile)
    )
    return f'<div class="bars">{figures}</div>'


def _blocks(profile: NetworkProfile) -> str:
    """The figures' numbers, block by block."""
    times = profile.layer_ms
    columns = ["Block", "Output", "Stride", "Operators", "Params", "MACs", "Output size", "Moved"]
    columns += ["Predicted ms"] if times else []
    rows = [
        (
            row.name, " × ".join(map(str, row.shape)), str(row.stride), str(row.operators), f"{row.params:,}",
            format_count(row.macs), format_bytes(row.output_bytes), format_bytes(row.moved_bytes),
            *([f"{times[index]:.3f}"] if times else []),
        )
        for index, row in enumerate(profile.layers)
    ]  # fmt: skip
    if profile.fixed_ms is not None:
        rows.append((FIXED_COST, *[""] * (len(columns) - 2), f"{profile.fixed_ms:.3f}"))
    table = scrolling(table_html(columns, rows, style="numbers"), f"Blocks of {profile.name}")
    summary = f"<summary>All {len(profile.layers)} blocks in numbers</summary>"
    return f"<details>{summary}{table}<p>{detail_words(profile)}</p></details>"


def _config(profile: NetworkProfile) -> str:
    config = escape(json.dumps(profile.config.model_dump(mode="json"), indent=2))
    return f"<details><summary>Config as JSON</summary><pre>{config}</pre></details>"


def _limits() -> str:
    items = (
        "Parameters and MACs are counted from the operator table; profile --verify sets them beside the built"
        " network, fvcore and torch.",
        "Memory is computed, not measured. Bytes moved are inputs, weights and outputs of every operator, each time"
        " they are read or written.",
        "A predicted latency comes from a model fitted to published measurements; nothing was run on the device.",
    )
    return section("Limits of the numbers", f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>")
