"""A profile beside what papers print for the same network."""

from typing import Any, NamedTuple

from mvit_search.analysis.profile_facts import NetworkProfile, PrintedLatency
from mvit_search.architecture.published import Published, difference, macs_of_authors, published

PUBLISHED_COLUMNS = ("", "here", "published", "difference", "where, and what to know")


class PublishedFact(NamedTuple):
    """One printed figure and the own one.

    Attributes:
        quantity: what it is, with its unit: `params_m`, `macs_g`, `latency_ms`, or the metric in percent.
        own: the figure computed here; None for an accuracy, which takes a training.
        source: where the other one is printed.
        note: what has to be known to compare them.
    """

    quantity: str
    own: float | None
    published: float
    source: str
    note: str

    @property
    def difference_percent(self) -> float | None:
        return None if self.own is None else 100 * (self.own / self.published - 1)

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts under `PUBLISHED_COLUMNS`."""
        name, form = _WORDS.get(self.quantity, (self.quantity.removesuffix("_percent"), "{:g} %"))
        own = "–" if self.own is None else form.format(self.own)
        off = "–" if self.difference_percent is None else f"{round(self.difference_percent, 1) + 0.0:+.1f} %"
        shown = f"{self.published:g}{form[form.index('}') + 1 :]}"
        return (name, own, shown, off, f"{self.source}; {self.note}")

    def document(self) -> dict[str, Any]:
        """The JSON object of it."""
        return {**self._asdict(), "difference_percent": self.difference_percent}


_WORDS = {
    "params_m": ("parameters", "{:.3f} M"),
    "macs_g": ("MACs", "{:.3f} G"),
    "macs_g_as_authors_count": ("MACs, authors' count", "{:.3f} G"),
    "latency_ms": ("latency", "{:.2f} ms"),
}


def published_facts(profile: NetworkProfile) -> tuple[PublishedFact, ...]:
    """All printed figures of this network in this task; none if it is not a published one."""
    row = published(profile.config, profile.task, profile.num_classes) if profile.is_as_published else None
    facts = _facts_of(row, profile) if row else ()
    return (*facts, *(_latency_fact(printed, profile) for printed in profile.printed_latencies))


def _facts_of(row: Published, profile: NetworkProfile) -> tuple[PublishedFact, ...]:
    gap = difference(row, profile.costs.params, profile.costs.macs)
    note = _rounded(gap.params_agree)
    facts = [PublishedFact("params_m", profile.costs.params / 1e6, row.params_m, row.source, note)]
    if row.macs_g is not None:
        note = _rounded(bool(gap.macs_agree))
        facts.append(PublishedFact("macs_g", profile.costs.macs / 1e9, row.macs_g, row.source, note))
        counted = macs_of_authors(profile.ops)
        if counted != profile.costs.macs and not gap.macs_agree:
            note = "theirs takes attention as linear in the patches"
            facts.append(PublishedFact("macs_g_as_authors_count", counted / 1e9, row.macs_g, row.source, note))
    note = "takes a full training, not computed here"
    return (*facts, PublishedFact(f"{row.metric}_percent", None, row.score, row.source, note))


def _rounded(agrees: bool) -> str:
    """0.465 beside a printed 0.5 is 7 % off, and all that the print can tell."""
    return "equal when rounded as printed" if agrees else "differs when rounded as printed"


def _latency_fact(printed: PrintedLatency, profile: NetworkProfile) -> PublishedFact:
    note = "the fit saw this row" if printed.is_fitted else "the fit did not see this row"
    if printed.is_fallback:
        note += " and takes it for a fallback off the Neural Engine, with little weight"
    return PublishedFact("latency_ms", profile.latency.ms, printed.ms, printed.source, f"predicted here; {note}")
