"""What the values of a run are, in words: a zero-cost score is never called top-1, nor printed as a percentage."""

from typing import NamedTuple

from mvit_search.analysis.front_document import FrontDocument, Point

_NONE = "–"


class ProxyWords(NamedTuple):
    """How to speak of the values of a run.

    Attributes:
        column: title of the column that holds them.
        axis: title of a figure's axis; `scale` is what a value is multiplied by there.
        subject: what a figure sets against latency; `origin` says where its values come from.
        more: `A is <more> than B` where A's value is the higher.
        likeness: `A is indistinguishable <likeness> from B`.
        most: of the highest value.
        done: what was done to each candidate.
        note: one sentence under a printed table.
        limit: what a reader must not conclude.
    """

    column: str
    axis: str
    scale: float
    subject: str
    origin: str
    more: str
    likeness: str
    most: str
    done: str
    note: str
    limit: str


_TRAINING = ProxyWords(
    column="Top-1 (proxy)", axis="Top-1 on held-out images, proxy training (%)", scale=100.0, subject="Accuracy",
    origin="accuracy from a short proxy training, not from a full one", more="more accurate",
    likeness="in accuracy", most="most accurate", done="trained",
    note="Top-1: proxy training on held-out images, not ImageNet accuracy.",
    limit="Top-1 comes from a short proxy training on held-out images of the data above. It is there to rank"
    " candidates, not to say how accurate one would be after a full training.",
)  # fmt: skip


def proxy_words(document: FrontDocument) -> ProxyWords:
    """The words for the document's `proxy`."""
    kind, _, argument = document.proxy.partition(":")
    if kind == "zero-cost":
        return ProxyWords(
            column=f"Score ({argument})", axis=f"Zero-cost score {argument}, nothing trained (no unit)", scale=1.0,
            subject=f"Score {argument}", origin="score of untrained networks, not an accuracy",
            more=f"scored higher by {argument}", likeness=f"in {argument}", most="highest scored", done="scored",
            note=f"Score: {argument} of the untrained network, larger is better; it is no accuracy.",
            limit=f"Nothing was trained. The score {argument} is there to rank candidates; it is no accuracy, has no"
            " unit, and does not compare with other scores. How well it ranks depends on the space and the data.",
        )  # fmt: skip
    if kind == "table":
        return _TRAINING._replace(
            column="Top-1 (table)", axis="Top-1 on held-out images, from a recorded table (%)",
            origin=f"accuracy read from a recorded table ({argument})",
            note=f"Top-1: read from recorded trainings ({argument}), not ImageNet accuracy.",
            limit=f"Nothing was trained in this run: top-1 was read from the table {argument}, which holds trainings"
            " recorded earlier. It ranks candidates as far as those trainings do.",
        )  # fmt: skip
    return _TRAINING


def value_text(point: Point) -> str:
    """`93.4 % ± 0.6 (3 seeds)`: mean and sample standard deviation of a top-1; `117.6 ± 0.3 (3 seeds)` of a score."""
    if point.value is None:
        return _NONE
    text = f"{100 * point.value:.1f} %" if point.score is None else score_text(point.value)
    if point.value_std is not None:
        text += (
            f" ± {100 * point.value_std:.1f}" if point.score is None else f" ± {point.value_std:#.2g}".removesuffix(".")
        )
    seeds = len(point.value_by_seed)
    return f"{text} ({seeds} seed{'s' if seeds > 1 else ''})" if seeds else text


def score_text(score: float) -> str:
    """Five figures, thousands set apart: `1,936,717`, `117.61`, `-65.756`."""
    return f"{score:,.0f}" if 1e4 <= abs(score) < 1e15 else f"{score:#.5g}".removesuffix(".")


def difference_text(document: FrontDocument, difference: float) -> str:
    """`1.2 points` of top-1; a bare number of a score."""
    return f"{100 * difference:.1f} points" if proxy_words(document).scale == 100 else f"{difference:.3g}"
