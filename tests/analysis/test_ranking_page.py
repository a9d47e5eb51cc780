"""The page of a proxy check: its figures say what was found, it loads nothing, a browser draws it."""

import itertools
import re
from dataclasses import replace

import pytest

from mvit_search.analysis.ranking_figures import (
    curves,
    curves_figure,
    scatter_dots,
    scatter_figure,
    tau_figure,
    tau_marks,
)
from mvit_search.analysis.ranking_page import ranking_page_html, write_ranking_page
from mvit_search.analysis.ranking_tables import PAGE_COLUMNS, noise_sentences, page_rows, proxy_rows, spread_rows
from mvit_search.errors import InputError
from mvit_search.ranking.summary import analyse
from tests.browser import needs_chromium, rendered, tags
from tests.ranking.synthetic import configs, table

LONG = "32px-5000img-12ep"


def named(rows):
    names = dict(zip((c.digest() for c in configs(3)), ("mobilevit-xxs", "mobilevit-xs", "mobilevit-s"), strict=True))
    return [replace(row, name=names.get(row.digest, "")) for row in rows]


@pytest.fixture(scope="module")
def found():
    return analyse(named(table(20, seeds=(0, 1), noise=0.01)), draws=200)


@pytest.fixture(scope="module")
def single():
    """One seed, noise alone, no finished short schedule: nothing clears."""
    rows = [row for row in table(12, rung_noise=5.0, short_noise=5.0, score_noise=99.0) if row.fidelity == LONG]
    return analyse(rows, draws=200)


def test_marks_are_the_judged_proxies_with_a_cost(found):
    marks = tau_marks(found)
    judged = {one.proxy.name: one for one in found.judged}
    assert {mark.name for mark in marks} == {n for n in judged if judged[n].proxy.family not in ("size", "latency")}
    assert all(mark.tau == judged[mark.name].agreement.tau for mark in marks)
    assert all(mark.open == mark.name.endswith("(loss)") for mark in marks)
    true = [judged[mark.name].proxy.cpu_seconds for mark in marks]
    assert all(abs(mark.cost / cost - 1) < 0.0901 for mark, cost in zip(marks, true, strict=True))
    equal = [mark.cost for mark, cost in zip(marks, true, strict=True) if cost == true[-1]][:7]
    assert len(set(equal)) == len(equal)  # side by side


def test_the_figure_has_families_baselines_threshold_and_ring(found):
    names = [trace.name for trace in tau_figure(found).data if trace.name]
    for name in ("params (costs nothing)", "MACs (costs nothing)", "threshold", "rung", "combination", "recommended"):
        assert name in names
    figure = tau_figure(found)
    assert figure.layout.xaxis.type == "log"
    line = next(trace for trace in figure.data if trace.name == "threshold")
    assert set(line.y) == {0.5}
    ring = next(trace for trace in figure.data if trace.name == "recommended")
    assert ring.y[0] == found.recommendation.chosen.agreement.tau.value


def test_the_scatter_shows_scores_against_the_reference(found):
    chosen = found.recommendation.chosen
    dots = scatter_dots(found, chosen)
    assert len(dots) == 20
    digest = next(iter(found.measured.means))
    values = [scores[digest] for scores in chosen.proxy.scores.values()]
    assert dots[0].score == pytest.approx(sum(values) / len(values))
    assert dots[0].top1_percent == pytest.approx(100 * found.measured.means[digest])
    assert dots[0].std_percent > 0
    drawn = {trace.name: trace for trace in scatter_figure(found, chosen).data}
    assert [re.sub("</?b>", "", text) for text in drawn["Published presets"].text] == [
        "MobileViT-XXS", "MobileViT-XS", "MobileViT-S",
    ]  # fmt: skip


def test_curves_end_where_the_reference_ends(found):
    drawn = curves(found)
    ends = [curve.top1_percent[-1] for curve in drawn]
    assert ends == sorted(ends, reverse=True)
    assert ends == pytest.approx(sorted((100 * value for value in found.measured.means.values()), reverse=True))
    assert [curve.third for curve in drawn] == sorted(curve.third for curve in drawn)
    assert drawn[0].epochs == (1, 2, 4, 8, 12)
    heights = [note.y for note in curves_figure(found).layout.annotations]
    assert len(heights) == 3
    assert min(a - b for a, b in itertools.pairwise(heights)) > 0


def test_rows_are_what_was_found(found):
    rows = proxy_rows(found)
    assert [row[0].removesuffix(" ◄") for row in rows] == [one.proxy.name for one in found.judged]
    assert [row[0] for row in rows if row[0].endswith("◄")] == [f"{found.recommendation.chosen.proxy.name} ◄"]
    assert all(len(row) == len(PAGE_COLUMNS) for row in page_rows(found))
    assert spread_rows(found)[0][0] == f"{LONG} (reference)"
    assert float(spread_rows(found)[0][4]) == pytest.approx(found.spread.ratio, abs=0.01)


def test_what_one_seed_cannot_tell_is_said(found, single):
    assert any("one seed a candidate, so its own noise is unknown" in words for words in noise_sentences(single))
    assert any("signal to noise" in words for words in noise_sentences(found))
    assert any("Training to the end once more ranks with tau" in words for words in noise_sentences(found))


def test_a_page_where_nothing_clears(single):
    html = ranking_page_html(single)
    assert "None clears tau 0.50" in html
    assert "best, does not clear" in [trace.name for trace in tau_figure(single).data]
    assert "Best, below the threshold" in html


def test_costs_are_image_steps_where_there_are_no_seconds():
    rows = [replace(row, cpu_seconds=0.0) for row in table(12)]
    figure = tau_figure(analyse(rows, draws=100))
    assert figure.layout.xaxis.title.text == "image steps a candidate"


def test_the_page_loads_nothing_and_escapes_what_files_say(single):
    rows = [replace(row, fidelity=f"<img src=x>{row.fidelity}") for row in table(12)]
    html = ranking_page_html(analyse(rows, draws=100), "<script>alert(1)</script>")
    found = tags(html)
    assert not [tag for tag in found if {"src", "href", "data", "action"} & tag[1].keys()]
    assert not [tag for tag, _ in found if tag in ("img", "link", "iframe")]
    assert "default-src 'none'" in html
    assert all("scope" in attributes for tag, attributes in found if tag == "th")


def test_a_path_that_cannot_be_written(tmp_path, single):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_ranking_page(single, tmp_path / "file" / "x.html")


def test_what_a_figure_shows_is_said_beside_it_where_a_phone_does_not_cut_it_off(found):
    chosen = found.recommendation.chosen
    for figure in (tau_figure(found), scatter_figure(found, chosen), curves_figure(found)):
        assert figure.layout.title.text is None
        assert figure.layout.title.subtitle.text is None
    html = ranking_page_html(found)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    for words in ("95 % bootstrap intervals", "Order is what counts", "mean over its seeds"):
        assert sum(words in caption for caption in captions) == 1


def test_names_of_presets_stand_on_the_side_with_more_room(found):
    chosen = found.recommendation.chosen
    presets = next(trace for trace in scatter_figure(found, chosen).data if trace.name == "Published presets")
    every = [x for trace in scatter_figure(found, chosen).data for x in trace.x]
    middle = (min(every) + max(every)) / 2
    assert len(presets.x) > 1
    for x, side in zip(presets.x, presets.textposition, strict=True):
        assert side == ("bottom left" if x > middle else "bottom right")


@needs_chromium
def test_a_browser_draws_the_page(tmp_path, found):
    path = tmp_path / "ranking.html"
    write_ranking_page(found, path, "Synthetic rows")
    dom = rendered(path.as_uri(), tmp_path / "profile")
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dom)) == 3
    drawn = "".join(re.findall(r"<text[^>]*>.*?</text>", dom))
    for words in ("Kendall", "MobileViT-XXS", "recommended", "CPU seconds a candidate"):
        assert words in drawn
