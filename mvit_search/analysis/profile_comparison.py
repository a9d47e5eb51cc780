"""Several networks side by side: one row a fact, one column a network, each against the first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mvit_search._quantities import format_bytes, format_count
from mvit_search.analysis.profile_facts import NetworkProfile, format_interval, format_kib, format_ms, interval_name

_NONE = "–"


class ComparisonRow(NamedTuple):
    """A fact of every network, in the order of the networks."""

    fact: str
    cells: tuple[str, ...]


def comparison_rows(profiles: Sequence[NetworkProfile]) -> tuple[ComparisonRow, ...]:
    """Costs with their ratio to the first network's."""
    costs = [profile.costs for profile in profiles]
    latencies = [profile.latency for profile in profiles]
    rows = [
        ComparisonRow("image", tuple(f"{profile.size_words} px" for profile in profiles)),
        _ratios("parameters", [c.params for c in costs], [f"{c.params:,}" for c in costs]),
        _ratios("MACs", [c.macs for c in costs], [format_count(c.macs) for c in costs]),
        _ratios("weights (fp16)", [c.weight_bytes for c in costs], [format_bytes(c.weight_bytes) for c in costs]),
        _ratios(
            "peak activations (fp16)", [c.peak_activation_bytes for c in costs],
            [format_bytes(c.peak_activation_bytes) for c in costs],
        ),
        _ratios(f"{_how(profiles)} latency", [x.ms for x in latencies], [format_ms(x.ms) for x in latencies]),
        ComparisonRow(interval_name(latencies[0]), tuple(format_interval(x) for x in latencies)),
    ]  # fmt: skip
    strides = sorted({stride for c in costs for stride in c.memory_by_stride_kib})
    for stride in strides:
        outputs = [c.memory_by_stride_kib.get(stride) for c in costs]
        cells = tuple(_NONE if kib is None else format_kib(kib) for kib in outputs)
        rows.append(ComparisonRow(f"largest output at stride {stride} (KiB)", cells))
    return tuple(rows)


def ratios_to_first(profile: NetworkProfile, first: NetworkProfile) -> dict[str, float]:
    """What `compare` says of each network in JSON."""
    return {
        "params": profile.costs.params / first.costs.params,
        "macs": profile.costs.macs / first.costs.macs,
        "weight_bytes": profile.costs.weight_bytes / first.costs.weight_bytes,
        "peak_activation_bytes": profile.costs.peak_activation_bytes / first.costs.peak_activation_bytes,
        "latency_ms": profile.latency.ms / first.latency.ms,
    }


def config_differences(profiles: Sequence[NetworkProfile]) -> tuple[ComparisonRow, ...]:
    """Fields of the configs in which not all networks agree; a dash where a network has no such field."""
    flat = [_flat(profile.config.model_dump(mode="json")) for profile in profiles]
    fields = dict.fromkeys(field for fields in flat for field in fields)
    rows = [ComparisonRow(field, tuple(fields.get(field, _NONE) for fields in flat)) for field in fields]
    return tuple(row for row in rows if len(set(row.cells)) > 1)


def latency_sources(profiles: Sequence[NetworkProfile]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each way in which a latency is known, with the names of the networks it is said of."""
    names: dict[str, list[str]] = {}
    for profile in profiles:
        names.setdefault(profile.latency.source, []).append(profile.name)
    return tuple((source, tuple(said_of)) for source, said_of in names.items())


def _ratios(fact: str, values: Sequence[float], texts: Sequence[str]) -> ComparisonRow:
    cells = [f"{text} (×{value / values[0]:.2f})" for value, text in zip(values[1:], texts[1:], strict=True)]
    return ComparisonRow(fact, (texts[0], *cells))


def _how(profiles: Sequence[NetworkProfile]) -> str:
    """`predicted` or `measured`: one target gives all of them."""
    return profiles[0].latency.source.partition(":")[0]


def _flat(value: Any, field: str = "") -> dict[str, str]:
    """`{"stages": [{"stride": 1}]}` -> `{"stages.0.stride": "1"}`."""
    if isinstance(value, dict):
        nested = [(f"{field}.{key}" if field else key, child) for key, child in value.items()]
    elif isinstance(value, list) and field == "stages":
        nested = [(f"{field}.{index}", child) for index, child in enumerate(value)]
    else:
        return {field: "x".join(map(str, value)) if isinstance(value, list) else _plain(value)}
    return {name: text for key, child in nested for name, text in _flat(child, key).items()}


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
