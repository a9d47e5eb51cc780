"""What stands in for accuracy in a run: `training`, `zero-cost:NAME` or `table:FILE`; and `--prescreen NAME:K`."""

from typing import NamedTuple

from mvit_search.errors import InputError
from mvit_search.proxy.zero_cost import check_name

MOST_PRESCREENED = 1000


class ProxyChoice(NamedTuple):
    """How candidates are valued.

    Attributes:
        kind: `training` (top-1 of a short training), `zero-cost` (a score, nothing is trained) or `table` (top-1 of
            trainings that were recorded earlier).
        argument: the score's name, or `FILE` or `FILE#FIDELITY`; empty for trainings.
    """

    kind: str = "training"
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    @property
    def trains(self) -> bool:
        return self.kind == "training"

    @property
    def scores(self) -> bool:
        """Whether a value is a score, of no unit and no bounds, and no top-1."""
        return self.kind == "zero-cost"


class Prescreen(NamedTuple):
    """Of `keep_of` proposals in turn the one with the highest score `name` is trained."""

    name: str
    keep_of: int


def parse_proxy(text: str) -> ProxyChoice:
    """`training`, `zero-cost:synflow`, `table:FILE#FIDELITY`.

    Raises:
        InputError: none of these; UnknownNameError: an unknown score.
    """
    kind, _, argument = text.partition(":")
    if text == "training":
        return ProxyChoice()
    if kind not in ("zero-cost", "table") or not argument:
        raise InputError("--proxy", text, "must be training, zero-cost:NAME or table:FILE")
    if kind == "zero-cost":
        check_name(argument)
    return ProxyChoice(kind, argument)


def parse_prescreen(text: str) -> Prescreen:
    """`synflow:8`.

    Raises:
        InputError: no name with a number from 2 to 1000; UnknownNameError: an unknown score.
    """
    name, colon, count = text.partition(":")
    if not colon or not (count.isascii() and count.isdecimal()):
        raise InputError("--prescreen", text, "must be NAME:K, a zero-cost score and a number", "for example synflow:8")
    check_name(name)
    if not 2 <= int(count[:9]) <= MOST_PRESCREENED:
        raise InputError("--prescreen", text, f"must keep the best of 2 to {MOST_PRESCREENED} proposals")
    return Prescreen(name, int(count))
