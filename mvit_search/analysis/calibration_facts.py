"""What a recalibration says, as rows and sentences: for the terminal, for the page, and as a document."""

from typing import Any, NamedTuple

from mvit_search.latency.calibrating.recalibration import OWN_SPREAD, Comparison, ErrorSummary, Recalibration

ERROR_COLUMNS = ("on the own rows", "mean error %", "median error %", "Kendall tau", "of what")
ROW_COLUMNS = ("network", "measured ms", "before ms", "before error %", "after ms", "after error %")


class Prediction(NamedTuple):
    """A way to predict the own rows: its name, its error, and what that error is of."""

    name: str
    error: ErrorSummary
    meaning: str


def predictions(found: Recalibration) -> tuple[Prediction, ...]:
    """The target before, the same times one factor, and the refit."""
    before = found.before.calibration
    return (
        Prediction("before", found.error(lambda row: row.before_ms), f"{before}, which saw none of these rows"),
        Prediction(
            "before, times one factor", found.error(lambda row: row.scaled_ms),
            "the factor is the median of the other networks'",
        ),
        Prediction("after", found.error(lambda row: row.after_ms), "left out: by a refit without the row's network"),
    )  # fmt: skip


def error_rows(found: Recalibration) -> list[tuple[str, ...]]:
    """Cells of `ERROR_COLUMNS`."""
    return [
        (name, f"{error.mape_percent:.1f}", f"{error.median_percent:.1f}", _tau(error), meaning)
        for name, error, meaning in predictions(found)
    ]


def comparison_rows(found: Recalibration) -> list[tuple[str, ...]]:
    """Cells of `ROW_COLUMNS`, the fastest network first."""
    return [
        (
            row.name, f"{row.measured_ms:.2f}", f"{row.before_ms:.2f}", _error(row, row.before_ms),
            f"{row.after_ms:.2f}", _error(row, row.after_ms),
        )
        for row in sorted(found.rows, key=lambda row: row.measured_ms)
    ]  # fmt: skip


def sentences(found: Recalibration) -> list[str]:
    """What the rows came to, and what a reader must know of it."""
    said = [_verdict(found), *_uncertain(found), _published(found), _interval(found)]
    silent = [name for name, amounts in _amounts(found).items() if not any(amounts)]
    if silent:
        said.append(f"No own row says anything of {', '.join(silent)}: these coefficients rest on {_rest(found)}.")
    return said


def document(found: Recalibration) -> dict[str, Any]:
    """The same for JSON."""
    published = found.published_percent
    return {
        "before": found.before.calibration,
        "after": found.after.calibration,
        "protocol": found.protocol.words,
        "errors": {name: error._asdict() for name, error, _ in predictions(found)},
        "published_median_error_percent": dict(zip(("before", "after"), published, strict=True)) if published else None,
        "rows": [row._asdict() for row in found.rows],
        "sentences": sentences(found),
    }


def _verdict(found: Recalibration) -> str:
    before, scaled, after = (prediction.error.mape_percent for prediction in predictions(found))
    networks = len({row.network for row in found.after.own_rows})
    said = (
        f"On {networks} networks measured on {found.protocol.device} the mean error was {before:.1f} % and is "
        f"{after:.1f} % where the refit did not see the network."
    )
    if after > before:
        return f"{said} It is worse than before: the rows are too few, or scatter too much."
    if after > scaled:
        return f"{said} One common factor does better ({scaled:.1f} %): measure more networks."
    return said


def _uncertain(found: Recalibration) -> list[str]:
    names = [result.network.name for result in found.results if result.uncertainty > OWN_SPREAD]
    if not names:
        return []
    return [
        f"The medians of {len(names)} of {len(found.results)} rows are not known to {100 * OWN_SPREAD:.0f} %, and "
        f"weigh less: {', '.join(names)}."
    ]


def _published(found: Recalibration) -> str:
    if not found.keeps_published:
        return f"Published rows were dropped: they are of {found.before.words.device}, another device."
    if found.published_percent is None:
        return "There are no published rows."
    before, after = found.published_percent
    return (
        f"On the published rows, each with the factor of its paper, the median error of left-out networks was "
        f"{before:.1f} % and is {after:.1f} %."
    )


def _interval(found: Recalibration) -> str:
    interval = found.after.interval_of(in_family=True)
    return (
        f"The {100 * interval.level:.0f} % interval of a MobileViT is now a ratio of {interval.ratio:.2f} up and down, "
        f"from {interval.networks} networks."
    )


def _amounts(found: Recalibration) -> dict[str, list[float]]:
    columns = zip(*(row.amounts for row in found.after.own_rows), strict=True)
    return {name: list(column) for name, column in zip(found.after.coefficients, columns, strict=True)}


def _rest(found: Recalibration) -> str:
    return "published rows and priors" if found.published_percent else "priors alone"


def _error(row: Comparison, predicted_ms: float) -> str:
    return f"{100 * (predicted_ms / row.measured_ms - 1):+.1f}"


def _tau(error: ErrorSummary) -> str:
    return "-" if error.kendall_tau is None else f"{error.kendall_tau:.2f}"
