import random
import re

import pytest
import yaml

from mvit_search.analysis.space_figures import Quantity, binned, cost_figure, dimensions_figure, quantities
from mvit_search.analysis.space_page import share_text, size_text, space_page_html, values_text, write_space_page
from mvit_search.analysis.space_survey import sample, survey, telling_dimensions, wilson_interval
from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError
from mvit_search.latency import load_target
from mvit_search.profile.cost import params_of
from mvit_search.space import load_space, space_names
from tests.browser import needs_chromium, rendered, tags

TARGET = load_target("iphone12")


@pytest.fixture(scope="module")
def mobilevit():
    return survey(load_space("mobilevit"), TARGET, 120)


def test_the_survey_costs_what_it_draws(mobilevit):
    drawn = mobilevit.draws[5]
    assert drawn.config == mobilevit.space.config(drawn.assignment)
    assert drawn.params == params_of(drawn.config)
    low, middle, high = mobilevit.spread("params")
    sizes = sorted(drawn.params for drawn in mobilevit.draws)
    assert (low, high) == (sizes[0], sizes[-1])
    assert sizes[59] <= middle <= sizes[60]
    assert survey(load_space("mobilevit"), TARGET, 120).draws == mobilevit.draws
    assert survey(load_space("mobilevit"), TARGET, 120, seed=1).draws != mobilevit.draws


def test_the_share_is_what_enumeration_gives():
    """Within its own 95 % interval for at least 34 of 40 seeds: fewer would happen once in ten thousand times."""
    space = load_space("mobilevit-patch")
    hits = 0
    for seed in range(40):
        share = survey(space, TARGET, 25, seed).share_inside(3_000_000)
        hits += share.low <= 2 / 3 <= share.high
    assert hits >= 33


@pytest.mark.parametrize(
    ("inside", "draws", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (1, 29, 0.0061, 0.1718), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_against_published_values(inside, draws, low, high):
    """1 of 29: Newcombe (1998), table I, method 3."""
    assert wilson_interval(inside, draws) == pytest.approx((low, high), abs=1e-4)


def test_samples_differ_and_stay_inside_the_budget():
    space = load_space("mobilevit-mini")
    drawn = sample(space, TARGET, 30, seed=3, budget=250_000)
    assert len({one.config for one in drawn}) == 30
    assert all(one.params <= 250_000 and one.config in space for one in drawn)
    with pytest.raises(InputError, match="smallest reachable"):
        sample(space, TARGET, 1, budget=1000)


def test_a_measuring_target_is_refused():
    with pytest.raises(InputError, match="measures"):
        survey(load_space("mobilevit-mini"), load_target("cpu"), 20)


def test_presets_stand_at_their_published_size_where_the_space_has_it():
    found = survey(load_space("mobilevit-compound"), TARGET, 20)
    assert [(name, drawn.config) for name, drawn in found.presets] == [("mobilevit-s", PRESETS["mobilevit-s"])]


def test_the_telling_dimensions_are_those_that_cost(mobilevit):
    told = telling_dimensions(mobilevit, 6)
    assert len(told) == 6
    assert "stages.4.out_channels" in told or "stages.4.transformer_dim" in told
    assert not any(key.endswith("num_heads") for key in told)
    assert telling_dimensions(mobilevit, 99) == list(mobilevit.space.dimensions)


def test_bins_hold_every_value():
    rng = random.Random(0)
    values = [rng.gauss(5, 2) for _ in range(1000)]
    bins = binned(values, 20)
    assert (sum(bins.counts), len(bins.counts), len(bins.edges)) == (1000, 20, 21)
    assert sum(bins.shares) == pytest.approx(100)
    assert bins.edges[0] == min(values)
    assert sum(binned([3.0, 3.0]).counts) == 2


def test_the_figures_mark_presets_and_budget(mobilevit):
    params = quantities(mobilevit)[0]
    bars, line, stars = cost_figure(mobilevit, params, 6_000_000).data
    assert sum(bars.y) == pytest.approx(100)
    assert set(line.x) == {6.0}
    assert list(stars.text) == ["MobileViT-XXS", "MobileViT-XS", "MobileViT-S"]
    assert list(stars.x) == pytest.approx([1.272024, 2.317848, 5.578632])
    assert all(isinstance(quantity, Quantity) for quantity in quantities(mobilevit))
    latency = cost_figure(mobilevit, quantities(mobilevit)[2])
    assert "predicted for iPhone 12" in latency.layout.xaxis.title.text
    lines = [trace for trace in dimensions_figure(mobilevit).data if trace.name]
    assert sum(trace.x.count(None) for trace in lines) == 120


@pytest.mark.parametrize("name", space_names())
def test_every_space_has_its_page(name):
    html = space_page_html(survey(load_space(name), TARGET, 30), 3_000_000)
    for text in ("What the candidates cost", "At most 3.00M parameters", "from 30 draws", "predicted: iphone12", name):
        assert text in html
    assert html.count('class="plotly-graph-div"') == 4


def test_the_page_loads_nothing_and_escapes_what_files_say(tmp_path):
    path = tmp_path / "x.yaml"
    source = load_space("mobilevit-mini").spec.model_dump(mode="json", exclude_none=True)
    path.write_text(yaml.safe_dump(source | {"description": "</script><img src=x onerror=alert(1)>"}))
    html = space_page_html(survey(load_space(str(path)), TARGET, 20))
    found = tags(html)
    assert not [tag for tag in found if {"src", "href", "data", "action"} & tag[1].keys()]
    assert not [tag for tag, _ in found if tag in ("img", "link", "iframe")]
    assert "default-src 'none'" in html
    assert all("scope" in attributes for tag, attributes in found if tag == "th")
    assert "At most" not in html


def test_words_for_sizes_and_shares(mobilevit):
    assert [size_text(number) for number in (192, 1296, 10**7, 109066698712984320000000)] == [
        "192", "1,296", "1e07", "1.1e23",
    ]  # fmt: skip
    assert re.fullmatch(r"\d+\.\d % \[\d+\.\d, \d+\.\d\]", share_text(mobilevit.share_inside(6_000_000)))


def test_words_for_values():
    assert values_text(tuple(range(48, 241, 8))) == "48 to 240 by 8"
    assert values_text((2, 4, 8)) == "2, 4, 8"
    assert values_text((1, 2, 3, 4, 5, 7)) == "1, 2, 3, 4, 5, 7"
    assert values_text(("xxs", "s")) == "xxs, s"
    assert values_text(tuple(n * n for n in range(30))).endswith("529, ...")


def test_a_path_that_cannot_be_written(tmp_path, mobilevit):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_space_page(mobilevit, tmp_path / "file" / "x.html")


@needs_chromium
def test_a_browser_draws_the_page(tmp_path):
    found = survey(load_space("mobilevit-v2"), TARGET, 60)
    path = write_space_page(found, tmp_path / "space.html", 6_000_000)
    dom = rendered(path.as_uri(), tmp_path / "profile")
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dom)) == 4
    assert "MobileViTv2-1.0" in "".join(re.findall(r"<text[^>]*>.*?</text>", dom))
    assert "Share" not in "".join(re.findall(r'data-title="([^"]*)"', dom))
