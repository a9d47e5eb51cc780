"""The page of `proxy-check --html`: how well each proxy ranks and at what cost, in one self-contained file."""

from html import escape
from pathlib import Path

from mvit_search.analysis.page import figure_html, footer_html, page_html, scrolling, section, table_html, write_page
from mvit_search.analysis.ranking_tables import (
    PAGE_COLUMNS,
    SPREAD_COLUMNS,
    noise_sentences,
    page_rows,
    spread_rows,
)  # fmt: skip
from mvit_search.ranking.recommendation import seconds_words, share_words
from mvit_search.ranking.summary import Findings


def write_ranking_page(found: Findings, path: Path, source: str = "") -> None:
    """Write the page; `source` says where the trainings are from.

    Raises:
        InputError: `path` cannot be written.
    """
    write_page(ranking_page_html(found, source), path)


def ranking_page_html(found: Findings, source: str = "") -> str:
    """The page: the recommendation, tau against cost, every proxy, the scatter, the curves, noise, limits."""
    body = "\n".join((
        _header(found, source), _taus(found), _proxies(found), _scatter(found), _curves(found), _noise(found),
        _limits(found), footer_html(),
    ))  # fmt: skip
    return page_html("How well cheap proxies rank", body, "ranking_page.css")


def _header(found: Findings, source: str) -> str:
    said = "".join(
        f'<p class="lead">{escape(text)}</p>' if index == 0 else f"<p>{escape(text)}</p>"
        for index, text in enumerate(found.recommendation.sentences)
    )
    drawn = "".join(
        f"<div><dt>{escape(label)}</dt><dd><strong>{escape(value)}</strong><span>{escape(note)}</span></dd></div>"
        for label, value, note in _tiles(found)
    )
    return (
        f'<header><p class="kicker">{escape(source or "Proxy check")}</p><h1>How well cheap proxies rank</h1>'
        f'<div class="verdict">{said}</div><dl class="tiles">{drawn}</dl></header>'
    )


def _tiles(found: Findings) -> list[tuple[str, str, str]]:
    chosen, tiles = found.recommendation.chosen, []
    if chosen and chosen.agreement:
        label = "Recommended" if found.recommendation.cleared else "Best, below the threshold"
        tau = chosen.agreement.tau
        tiles.append((label, f"tau {tau.value:.2f}", f"{tau.low:.2f} to {tau.high:.2f}; {chosen.proxy.name}"))
        seconds = found.measured.cost[0]
        if seconds and chosen.proxy.cpu_seconds:
            cost = f"{seconds_words(chosen.proxy.cpu_seconds)} CPU s"
            share = f"{share_words(chosen.proxy.cpu_seconds / seconds)} of the long schedule"
            tiles.append(("Costs a candidate", cost, share))
    data = found.measured
    seeds = len(data.top1)
    note = f"{data.reference.fidelity}, {seeds} seed{'s' if seeds > 1 else ''}"
    tiles.append(("Trained to the end", f"{len(data.means)} candidates", note))
    if found.spread.ratio is not None:
        tiles.append(("Signal to noise", f"{found.spread.ratio:.2f}", "spread between candidates over between seeds"))
    return tiles


def _taus(found: Findings) -> str:
    from mvit_search.analysis.ranking_figures import tau_figure

    caption = (
        "Bars and bands are 95 % bootstrap intervals over candidates; hollow marks rank by held-out loss in place of"
        " top-1. Every mark is a proxy; some of those that cost about the same are moved aside, by 9 % at most."
        " Up is better, left is cheaper. A proxy is worth its cost where its interval lies above the bands of what"
        " costs nothing."
    )
    figure = figure_html("tau-figure", tau_figure(found))
    return section("Tau against cost", f"<figure>{figure}<figcaption>{caption}</figcaption></figure>")


def _proxies(found: Findings) -> str:
    note = (
        "<p>Cost is of one candidate, the median. “Over params” and “over MACs” are differences of tau on the same"
        " candidates; “other seeds” is tau against trainings that share no seed with the score (candidates)."
        " ◄ marks the proxy named at the top.</p>"
    )
    table = scrolling(table_html(PAGE_COLUMNS, page_rows(found), style="proxies"), "Every proxy")
    items = "".join(f"<dt>{escape(one.proxy.name)}</dt><dd>{escape(one.proxy.source)}</dd>" for one in found.judged)
    sources = f'<details><summary>What each is</summary><dl class="sources">{items}</dl></details>'
    return section("Every proxy", note + table + sources)


def _scatter(found: Findings) -> str:
    chosen = found.recommendation.chosen
    if chosen is None:
        return ""
    from mvit_search.analysis.ranking_figures import scatter_figure

    title = "The recommended proxy" if found.recommendation.cleared else "The best proxy"
    bars = " Bars are standard deviations over the reference's seeds." if len(found.measured.top1) > 1 else ""
    caption = f"Every mark is a candidate. Order is what counts, not a straight line.{bars}"
    figure = figure_html("scatter-figure", scatter_figure(found, chosen))
    return section(title, f"<figure>{figure}<figcaption>{caption}</figcaption></figure>")


def _curves(found: Findings) -> str:
    if len(found.measured.rungs) < 2:
        return ""
    from mvit_search.analysis.ranking_figures import curves_figure

    caption = (
        "The long schedule of every candidate, mean over its seeds. Lines that cross are candidates that a rung ranks"
        " otherwise than the end."
    )
    figure = figure_html("curves-figure", curves_figure(found))
    return section("Learning curves", f"<figure>{figure}<figcaption>{caption}</figcaption></figure>")


def _noise(found: Findings) -> str:
    said = "".join(f"<p>{escape(text)}</p>" for text in noise_sentences(found))
    table = scrolling(table_html(SPREAD_COLUMNS, spread_rows(found), style="proxies"), "Spreads in points of top-1")
    return section("Signal and noise", f"{said}<p>Standard deviations in points of top-1.</p>{table}")


def _limits(found: Findings) -> str:
    items = [
        "The intervals are over candidates: they say how tau would vary with other candidates of the same kind, on"
        " these data. They are no promise for another space or data set.",
        "A tau is taken with one training a candidate, as a search would; with several seeds it is the mean of the"
        " seeds' taus, not the tau of their mean.",
        "The reference is a long schedule of this project, not a training to the paper's accuracy.",
    ]
    if any(one.proxy.fitted for one in found.judged):
        items.append(
            "Combinations are judged on candidates that their weight was not fitted to; the interval holds the fits as"
            " they are. Using one means training some candidates to the end first."
        )
    sources = dict.fromkeys(one.proxy.source for one in found.judged if one.proxy.family == "latency")
    items += [f"As a baseline, {escape(source)}." for source in sources]
    return section("Limits of the numbers", "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")
