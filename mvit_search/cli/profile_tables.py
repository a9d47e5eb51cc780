"""The tables of `mvit-search profile`, as wide as the terminal allows."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mvit_search._quantities import format_bytes, format_count
from mvit_search.cli.output import fits, print_table, print_width, say

if TYPE_CHECKING:
    from mvit_search.analysis.profile_comparison import ComparisonRow
    from mvit_search.analysis.profile_facts import NetworkProfile
    from mvit_search.profile import LayerRow

_WIDE = 110
_EDGES = 1
"""Columns that a table takes beside its cells and two between each two."""


def print_network(profile: "NetworkProfile", check: dict[str, Any] | None) -> None:
    """The facts of one network, and what papers print of it."""
    from mvit_search.analysis.profile_facts import format_interval, format_kib, format_ms, interval_name
    from mvit_search.analysis.profile_published import PUBLISHED_COLUMNS, published_facts

    costs, latency = profile.costs, profile.latency
    by_stride = ", ".join(f"{format_kib(kib)} at {stride}" for stride, kib in costs.memory_by_stride_kib.items())
    rows = [
        ("parameters", f"{costs.params:,}", f"{profile.task}, {profile.num_classes} classes{profile.stride_words}"),
        (
            "MACs",
            format_count(costs.macs),
            f"convolutions and matrix products, {profile.size_words} px; papers say FLOPs",
        ),
        ("weights", format_bytes(costs.weight_bytes), "fp16, batch norm folded"),
        ("peak activations", format_bytes(costs.peak_activation_bytes), "fp16, batch 1, liveness scan"),
        ("block outputs (KiB)", "", f"{by_stride} (output stride; fp16)"),
        ("latency", format_ms(latency.ms), f"{interval_name(latency)} {format_interval(latency)}; {latency.source}"),
    ]
    if check:
        rows.append(("cross-check", "equal" if check["ok"] else "DIFFERENT", _check_words(check)))
    print_table(profile.name, ("", "value", "how"), rows, left=("", "how"))
    if facts := published_facts(profile):
        cells = [fact.cells for fact in facts]
        print_table("beside the published values", PUBLISHED_COLUMNS, cells, left=("", PUBLISHED_COLUMNS[-1]))


def print_comparison(profiles: Sequence["NetworkProfile"], checks: Sequence[dict[str, Any]]) -> None:
    """One column a network; more than a terminal can hold go to further tables, each with the first network again."""
    from mvit_search.analysis.profile_comparison import comparison_rows, config_differences, latency_sources

    names = [profile.name for profile in profiles]
    rows = list(comparison_rows(profiles))
    _print_columns("side by side", names, rows)
    say(f"× is the ratio to {names[0]}. Memory is for one image; block outputs are fp16.")
    for source, said_of in latency_sources(profiles):
        say(f"Latency of {', '.join(said_of)} is {source}.")
    if different := config_differences(profiles):
        _print_columns("config fields that differ", names, different)
    for name, check in zip(names, checks, strict=False):
        say(f"cross-check of {name}: {'equal' if check['ok'] else 'DIFFERENT'}; {_check_words(check)}")


def print_layers(profile: "NetworkProfile") -> None:
    """One row a block under a row a stage, with shares of the whole."""
    from mvit_search.analysis.profile_facts import FIXED_COST, detail_words, format_ms

    columns = ["block", "output", "stride", "params", "%", "MACs", "%", "moved"]
    columns += ["ms", "%"] if profile.layer_ms else []
    rows = []
    times = profile.layer_ms or (0.0,) * len(profile.layers)
    pairs = list(zip(profile.layers, times, strict=True))
    for stage, group in groupby(pairs, key=lambda pair: _stage(pair[0].name)):
        members = list(group)
        if len(members) > 1:
            rows.append(_layer_cells(stage, members, profile))
        for pair in members:
            rows.append(_layer_cells(_indented(stage, pair[0].name, len(members)), [pair], profile))
    whole = _layer_cells("all", pairs, profile)
    if profile.fixed_ms is not None:
        rows.append((FIXED_COST, *[""] * (len(columns) - 3), *_ms_cells(profile.fixed_ms, profile)))
        whole = (*whole[:-2], *_ms_cells(profile.latency.ms, profile))
    rows.append(whole)
    kept = _print_fitting(f"{profile.name}, block by block", columns, rows, ("block",), spare=(7, 2, 6, 4))
    say(detail_words(profile))
    moved = " moved: bytes read and written, fp16." if 7 in kept else ""
    say(f"The row of a stage is the sum of the blocks below it.{moved}")
    if profile.layer_ms:
        say(
            f"ms: each block's share of the predicted {format_ms(profile.latency.ms)}. With the {FIXED_COST}, which a"
            " run has whatever its operators, the shares add up to it; they have no interval of their own, for the"
            " predictor's error was found on whole networks."
        )
    else:
        say("The latency was measured as a whole, so no block has milliseconds of its own.")


def print_ops(profile: "NetworkProfile") -> None:
    """One row an operator."""
    from mvit_search.profile.layers import block_name, op_rows

    whole = print_width() >= _WIDE
    rows = []
    for block, group in groupby(zip(profile.ops, op_rows(profile.ops), strict=True), key=lambda p: block_name(p[0])):
        members = list(group)
        if not whole:
            rows.append((block, *[""] * 6))
        for _, row in members:
            name = row.name if whole else f"  {row.name.removeprefix(_prefix(row.name, block))}"
            rows.append((
                name, f"{row.kind} {row.detail}".strip(), _shape(row.shape), f"{row.params:,}" if row.params else "",
                format_count(row.macs) if row.macs else "", _moved(row.read_bytes),
                _moved(row.written_bytes),
            ))  # fmt: skip
    columns = ("operator", "what", "output", "params", "MACs", "read", "written")
    title = f"{profile.name}, {len(profile.ops)} operators"
    _print_fitting(title, columns, rows, ("operator", "what"), spare=(6, 5, 3))
    say("s: stride, d: dilation. read: inputs and weights; fp16. A reshape or cast moves nothing.")


def _check_words(check: dict[str, Any]) -> str:
    return (
        f"module {check['params_module']:,} params; MACs {check['macs_fvcore']:,} by fvcore,"
        f" {check['macs_torch']:,} by torch, {check['macs']:,} here"
    )


def _layer_cells(
    name: str, members: Sequence[tuple["LayerRow", float]], profile: "NetworkProfile"
) -> tuple[str, ...]:  # fmt: skip
    rows = [row for row, _ in members]
    params, macs = sum(row.params for row in rows), sum(row.macs for row in rows)
    cells = (
        name, _shape(rows[-1].shape), str(rows[-1].stride), f"{params:,}", _percent(params, profile.costs.params),
        format_count(macs), _percent(macs, profile.costs.macs), format_bytes(sum(row.moved_bytes for row in rows)),
    )  # fmt: skip
    if not profile.layer_ms:
        return cells
    return (*cells, *_ms_cells(sum(ms for _, ms in members), profile))


def _ms_cells(ms: float, profile: "NetworkProfile") -> tuple[str, str]:
    return f"{ms:,.2f}", _percent(ms, profile.latency.ms)


def _indented(stage: str, name: str, members: int) -> str:
    """Below its stage a block says only what the stage does not; a pipe, or a wide terminal, gets the whole name."""
    if members == 1:
        return name
    if name == stage:
        return "  (the rest)"
    return f"  {name}" if print_width() >= _WIDE else f"  {name.removeprefix(f'{stage}.').removeprefix('block.')}"


def _stage(name: str) -> str:
    place = name.split(".")
    return ".".join(place[:2]) if place[0] == "stages" else place[0]


def _prefix(name: str, block: str) -> str:
    """`local` and `fusion` blocks are no part of their operators' names."""
    return f"{block}." if name.startswith(f"{block}.") else f"{block.rpartition('.')[0]}."


def _moved(count: int) -> str:
    return format_bytes(count) if count else ""


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"


def _print_columns(title: str, names: Sequence[str], rows: Sequence["ComparisonRow"]) -> None:
    """Tables of as many networks as fit, the first network in each."""
    first, others = names[0], list(range(1, len(names)))
    fact = max(len(row.fact) for row in rows) + 2 + max(len(first), *(len(row.cells[0]) for row in rows))
    for chunk in _chunks(others, fact, names, rows):
        cells = [(row.fact, row.cells[0], *(row.cells[index] for index in chunk)) for row in rows]
        print_table(title, ("", first, *(names[index] for index in chunk)), cells, left=("",))


def _chunks(
    others: Sequence[int], used: int, names: Sequence[str], rows: Sequence["ComparisonRow"]
) -> Iterator[list[int]]:
    """Columns in groups that fit beside the first two; at least one a group."""
    group: list[int] = []
    room = print_width() - used - _EDGES
    for index in others:
        wide = 3 + max(len(names[index]), *(len(row.cells[index]) for row in rows))
        if group and wide > room:
            yield group
            group, room = [], print_width() - used - _EDGES
        group.append(index)
        room -= wide
    yield group


def _print_fitting(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str], spare: Sequence[int]
) -> list[int]:  # fmt: skip
    """A table without those of its `spare` columns, first ones first, that do not fit; the columns it has."""
    kept = list(range(len(columns)))
    for left_out in (None, *spare):
        kept = [index for index in kept if index != left_out]
        names, cells = [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]
        if fits(names, cells):
            break
    print_table(title, names, cells, left=left)
    return kept
