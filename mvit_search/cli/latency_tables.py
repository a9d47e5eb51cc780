"""The tables of `mvit-search latency`, as wide as the terminal allows."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mvit_search.cli.output import fits, print_table, say

if TYPE_CHECKING:
    from mvit_search.analysis.latency_explanation import LatencyExplanation
    from mvit_search.latency import Latency

_HEADINGS = {
    "convolutions": "conv",
    "linear layers and products": "products",
    "attention tokens": "tokens",
    "attention scores": "scores",
    "norms and arithmetic": "norms",
    "uneven resizes": "resizes",
}
"""Classes whose name is too long above a column of milliseconds."""
_LARGEST = 5
_NAME_WIDTH = 32
"""Characters of an operator's name in a line, where the terminal is narrow."""


def print_latencies(words: str, latencies: Sequence["Latency"]) -> None:
    """One row a target, and below it how each is known."""
    from mvit_search.analysis.profile_facts import format_interval, format_ms, interval_name

    rows = [
        (found.target, format_ms(found.ms), format_interval(found), f"{_how(found)}, {interval_name(found)}")
        for found in latencies
    ]
    columns = ("target", "latency", "interval", "how, and what the interval is")
    print_table(words, columns, rows, left=("target", columns[-1]))
    for found in latencies:
        say(f"{found.target} is {found.source}.")
        say(f"Protocol of {found.target}: {found.protocol}.")


def say_unknown(unknown: Mapping[str, int]) -> None:
    """Operators that no table knows, and what that does to a prediction."""
    if unknown:
        kinds = ", ".join(f"{count} {kind}" for kind, count in unknown.items())
        say(
            f"Lower confidence: {sum(unknown.values())} operators of unknown type ({kinds}). They are counted by the"
            " bytes that they move, and the interval reaches from where they cost nothing to where they cost three"
            " times that."
        )


def print_explanation(explanation: "LatencyExplanation") -> None:
    """Where the milliseconds go: stages by classes, classes, the largest operators, and how far that can be trusted."""
    from mvit_search.analysis.latency_explanation import SHARE_WORDS

    target = explanation.latency.target
    say("")
    _print_stages(explanation, f"predicted ms on {target}, by {explanation.grouped_by} and class")
    _print_classes(explanation, f"predicted ms on {target}, by class")
    _print_operators(explanation, f"the {min(_LARGEST, len(explanation.operators))} largest operators on {target}")
    say(f"{SHARE_WORDS} {_grouping_words(explanation)}".strip())
    say(explanation.evidence.words)


def _print_stages(explanation: "LatencyExplanation", title: str) -> None:
    """As many classes as fit; the cheapest together where not all do."""
    from mvit_search.analysis.latency_explanation import REST

    for count in range(len(explanation.classes), 0, -1):
        shown = explanation.with_at_most(count)
        columns = (explanation.grouped_by, *(_HEADINGS.get(name, name) for name in shown.classes), "ms", "%")
        rows = shown.stage_rows
        if fits(columns, rows):
            break
    print_table(title, columns, rows, left=columns[:1])
    if shown.merged:
        say(f"{REST}: {', '.join(shown.merged)}.\n")


def _print_classes(explanation: "LatencyExplanation", title: str) -> None:
    from mvit_search.analysis.latency_explanation import CLASS_WORDS

    rows = [(name, *explanation.cells(ms), CLASS_WORDS[name]) for name, ms in explanation.ranked_classes]
    print_table(title, ("class", "ms", "%", "what it is"), rows, left=("class", "what it is"))


def _print_operators(explanation: "LatencyExplanation", title: str) -> None:
    columns = ("operator", "what, and its output", "ms", "%")
    rows = [(row.name, row.what, *explanation.cells(row.ms)) for row in explanation.operators[:_LARGEST]]
    if not fits(columns, rows):
        rows = [(_folded(row[0]), *row[1:]) for row in rows]
    print_table(title, columns, rows, left=columns[:2])


def _grouping_words(explanation: "LatencyExplanation") -> str:
    if explanation.grouped_by == "stage":
        return ""
    return "A stride is image pixels per pixel of the map; a head counts with the last map's."


def _folded(name: str) -> str:
    """Over several lines, broken at dots and underscores where there are any."""
    return "\n  ".join(re.findall(rf".{{1,{_NAME_WIDTH}}}(?:[._]|$)|.{{1,{_NAME_WIDTH}}}", name))


def _how(found: "Latency") -> str:
    return found.source.partition(":")[0]
