"""The page of `profile --html`, and the facts, comparison and published values behind it."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from mvit_search.analysis.profile_comparison import comparison_rows, config_differences, ratios_to_first
from mvit_search.analysis.profile_facts import FIXED_COST, format_interval, network_profile
from mvit_search.analysis.profile_figures import MOST_BARS, bars, bars_figure, block_label, quantities
from mvit_search.analysis.profile_page import profile_page_html, write_profile_page
from mvit_search.analysis.profile_picture import picture_columns, picture_svg
from mvit_search.analysis.profile_published import published_facts
from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.latency import CpuTorchRuntime, MeasuredTarget, TimingSettings, load_target
from tests.browser import needs_chromium, rendered, tags

HOSTILE = "</script><img src=x onerror=alert(1)>"
TARGET = load_target("iphone12")
XXS, XS = PRESETS["mobilevit-xxs"], PRESETS["mobilevit-xs"]


def profile_of(name, **options):
    return network_profile(name, PRESETS[name], TARGET, **options)


def many_stages(count=16, layers=5):
    stage = MobileViTStage(out_channels=16, stride=1, transformer_dim=16, num_layers=layers)
    return MobileViTConfig(image_size=(64, 96), stages=(stage,) * count)


@pytest.mark.parametrize("name", ["mobilevit-s", "mobilevitv2-1.0"])
@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_shares_of_the_blocks_and_the_fixed_cost_add_up_to_the_prediction(name, task):
    profile = network_profile(name, PRESETS[name].with_image_size(320), TARGET, task=task)
    assert profile.fixed_ms == TARGET.fixed_ms
    assert sum(profile.layer_ms) + profile.fixed_ms == pytest.approx(profile.latency.ms, rel=1e-12)
    assert min(profile.layer_ms) >= 0
    drawn = bars(profile)
    assert sum(bar.params for bar in drawn) == profile.costs.params
    assert sum(bar.macs for bar in drawn) == profile.costs.macs


def test_bars_of_milliseconds_have_one_for_the_fixed_cost():
    profile = profile_of("mobilevit-xs")
    drawn = {quantity.key: bars_figure(profile, quantity) for quantity in quantities(profile)}
    times = [value for trace in drawn["ms"].data for value in trace.x]
    assert sum(times) == pytest.approx(profile.latency.ms)
    (fixed,) = [trace for trace in drawn["ms"].data if FIXED_COST in trace.y]
    assert fixed.text == (f"{100 * profile.fixed_ms / profile.latency.ms:.1f} %",)
    assert not [trace for trace in drawn["params"].data if FIXED_COST in trace.y]


def test_many_blocks_are_drawn_stage_by_stage():
    profile = network_profile("many", many_stages(), TARGET)
    assert len(profile.layers) > MOST_BARS
    assert [bar.label for bar in bars(profile)] == ["stem", *(f"stage {i}" for i in range(16)), "head"]
    assert sum(bar.params for bar in bars(profile)) == profile.costs.params


@pytest.mark.parametrize("name", PRESETS)
def test_labels_of_blocks_are_unique(name):
    labels = [block_label(row.name) for row in profile_of(name).layers]
    assert len(set(labels)) == len(labels)


def test_a_head_the_predictor_never_saw_is_said():
    config = XS.with_image_size(320)
    source = network_profile("xs", config, TARGET, task="detection").latency.source
    assert source.endswith("extrapolated to 320x320 px; no fitted row has this head, error unknown")
    resized = network_profile("v2", PRESETS["mobilevitv2-1.0"].with_image_size(200), TARGET).latency.source
    assert resized.endswith("no fitted row has a resize around separable attention, error unknown")
    dilated = network_profile("xs", XS, TARGET, output_stride=8).latency.source
    assert "no fitted row has dilation, error unknown" in dilated


def test_published_values_stand_beside_the_own_ones():
    facts = {fact.quantity: fact for fact in published_facts(profile_of("mobilevit-s"))}
    assert facts["params_m"].own == pytest.approx(5.578632)
    assert facts["params_m"].difference_percent == pytest.approx(100 * (5.578632 / 5.6 - 1))
    assert facts["top-1_percent"].own is None
    assert facts["latency_ms"].note.endswith("the fit saw this row")
    detection = network_profile("xs", XS.with_image_size(320), TARGET, task="detection")
    facts = {fact.quantity: fact for fact in published_facts(detection)}
    assert facts["macs_g"].published == 1.6
    assert facts["latency_ms"].published == 12.6
    assert facts["latency_ms"].note.endswith("the fit did not see this row")


def test_a_row_that_the_fit_takes_for_a_fallback_is_said():
    profile = network_profile("v2", PRESETS["mobilevitv2-0.5"], load_target("iphone13"))
    assert [fact.note for fact in published_facts(profile) if fact.quantity == "latency_ms"] == [
        "predicted here; the fit saw this row and takes it for a fallback off the Neural Engine, with little weight"
    ]


@pytest.mark.parametrize(("patches", "printed"), [((2, 2, 2), 32.3), ((8, 4, 2), 25.1)])
def test_printed_latencies_are_found_by_patch_size(patches, printed):
    sides = iter(patches)
    stages = [
        stage.model_copy(update=dict.fromkeys(("patch_h", "patch_w"), next(sides)))
        if isinstance(stage, MobileViTStage)
        else stage
        for stage in XS.stages
    ]
    config = XS.model_copy(update={"stages": tuple(stages), "image_size": (512, 512)})
    found = network_profile("xs", config, TARGET, task="segmentation").printed_latencies
    assert [row.ms for row in found] == [printed]


def test_what_is_no_published_network_has_no_published_values():
    assert published_facts(network_profile("many", many_stages(), TARGET)) == ()
    assert not [f for f in published_facts(profile_of("mobilevit-s", num_classes=10)) if f.quantity != "latency_ms"]
    assert published_facts(profile_of("mobilevit-xxs", output_stride=8)) == ()


def test_comparison_gives_ratios_and_only_fields_that_differ():
    first, second = profile_of("mobilevit-xs"), profile_of("mobilevit-s")
    rows = {row.fact: row.cells for row in comparison_rows([first, second])}
    assert rows["parameters"] == ("2,317,848", "5,578,632 (×2.41)")
    assert rows["image"] == ("256x256 px", "256x256 px")
    assert "predicted latency" in rows
    assert ratios_to_first(second, first)["params"] == pytest.approx(5_578_632 / 2_317_848)
    fields = {row.fact: row.cells for row in config_differences([first, second])}
    assert fields["stages.4.transformer_dim"] == ("144", "240")
    assert "stages.4.num_layers" not in fields
    assert config_differences([first, first]) == ()


def test_networks_of_different_depth_compare_with_dashes():
    rows = config_differences([profile_of("mobilevit-xs"), network_profile("many", many_stages(), TARGET)])
    assert {row.fact: row.cells for row in rows}["stages.9.out_channels"] == ("–", "16")


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_the_picture_names_every_stage_with_its_shape(task):
    profile = network_profile("xs", XS.with_image_size(256), TARGET, task=task)
    svg = picture_svg(profile, "n0")
    for words in ("Image", "Stem", "Stage 0", "Stage 4", "Head", "64 × 32 × 32", "4 layers, d 120", "patch 2 × 2"):
        assert f">{words}<" in svg
    assert 'role="img"' in svg
    assert '<title id="n0-title">' in svg


def test_the_picture_wraps_and_stays_inside_its_frame():
    svg = picture_svg(network_profile("many", many_stages(), TARGET), "n0")
    width, height = map(int, re.search(r'width="(\d+)" height="(\d+)"', svg).groups())
    assert width <= 1064
    for x, y, wide, high in re.findall(r'<rect class="\w+" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', svg):
        assert 0 <= float(x) <= float(x) + float(wide) <= width
        assert 0 <= float(y) <= float(y) + float(high) <= height
    rows = set(re.findall(r'class="name" x="\S+" y="(\S+)"', svg))
    assert len(rows) == 3


def test_blocks_never_meet_their_neighbours_in_the_picture():
    """The widest there is: five slabs of the network's most channels, in every column."""
    stages = (ConvStage(out_channels=960, num_blocks=8),) * 6
    columns = picture_columns(network_profile("wide", MobileViTConfig(stages=stages, head_expansion=1.0), TARGET))
    assert max(len(column.slabs) for column in columns) == 5
    svg = picture_svg(network_profile("wide", MobileViTConfig(stages=stages, head_expansion=1.0), TARGET), "n0")
    rects = re.findall(r'<rect class="conv" x="(\S+)" y="(\S+)" width="(\S+)"', svg)
    edges = sorted((float(y), float(x), float(x) + float(wide)) for x, y, wide in rects)
    assert all(right[1] > left[2] for left, right in pairwise(edges) if left[0] == right[0])


def test_the_page_is_self_contained_and_has_its_words():
    html = profile_page_html([profile_of("mobilevit-xs"), profile_of("mobilevitv2-1.0")])
    found = tags(html)
    assert not [t for t in found if {"src", "href", "data", "action"} & t[1].keys()]
    assert not [t for t in found if t[0] in ("link", "iframe", "object", "embed", "base")]
    assert "default-src 'none'" in html
    assert html.count("plotly.js v") == 1
    for words in (
        "Side by side",
        "×2.11",
        "predicted",
        "leave-one-out MAPE",
        "no interval of its own",
        f"predicted; 80 % interval {format_interval(TARGET.latency(XS))}",
        "with the fixed cost, which a run has",
        f'<th scope="row">{FIXED_COST}</th>',
        "config fields",
    ):
        assert words in html, words
    assert all("scope" in attributes for tag, attributes in found if tag == "th")
    identifiers = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_names_from_files_are_escaped():
    html = profile_page_html([network_profile(HOSTILE, XXS, TARGET), network_profile(HOSTILE, XS, TARGET)])
    assert HOSTILE not in html
    assert not [t for t in tags(html) if t[0] == "img"]


def test_a_measured_network_has_no_shares(tmp_path):
    timing = TimingSettings(warmup=0, min_runs=3, max_seconds=0)
    quick = MeasuredTarget(CpuTorchRuntime(threads=1, timing=timing))
    profile = network_profile("xxs", XXS.with_image_size(64), quick)
    assert profile.layer_ms is None
    assert profile.fixed_ms is None
    assert "predicted_fixed_ms" not in profile.document()
    assert "predicted_ms" not in profile.document()["layers"][0]
    html = profile_page_html([profile])
    assert "Predicted milliseconds by" not in html
    assert "fixed cost" not in html
    assert "measured: " in html


def test_a_measuring_target_refuses_before_memory_is_taken():
    with pytest.raises(InputError, match="runs the network, which needs"):
        network_profile("s", PRESETS["mobilevit-s"].with_image_size(8192), load_target("cpu-torch"))
    with pytest.raises(InputError, match="measures classification networks"):
        network_profile("s", PRESETS["mobilevit-s"], load_target("cpu-torch"), task="detection")


def test_impossible_tasks_are_input_errors():
    with pytest.raises(UnknownNameError, match="did you mean 'detection'"):
        profile_of("mobilevit-s", task="detecton")
    with pytest.raises(InputError, match="made for output stride 16"):
        profile_of("mobilevit-s", task="segmentation", output_stride=8)
    with pytest.raises(InputError, match="strides 16 and 32"):
        profile_of("mobilevit-s", task="detection", output_stride=8)


def test_what_cannot_be_written_is_an_input_error(tmp_path):
    profile = profile_of("mobilevit-xxs")
    for name, rule in (("page.txt", "must end in .html"), ("no/page.html", "folder that does not exist")):
        with pytest.raises(InputError, match=rule):
            write_profile_page([profile], tmp_path / name)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_profile_page([profile], tmp_path / "folder.html")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_writing_the_page_loads_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from mvit_search.analysis.profile_facts import network_profile\n"
        "from mvit_search.analysis.profile_page import write_profile_page\n"
        "assert 'plotly' not in sys.modules\n"
        "from mvit_search.architecture import PRESETS; from mvit_search.latency import load_target\n"
        "profile = network_profile('s', PRESETS['mobilevit-s'], load_target('iphone12'))\n"
        f"write_profile_page([profile], Path({str(tmp_path / 'page.html')!r}))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@needs_chromium
def test_a_browser_draws_the_page(tmp_path):
    page = tmp_path / "page.html"
    many = network_profile("many", many_stages(), TARGET)
    write_profile_page([profile_of("mobilevit-xs"), many], page)
    dom = rendered(page.as_uri(), tmp_path / "profile")
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dom)) == 10
    assert "Predicted milliseconds by block" in dom
    assert "Predicted milliseconds by stage" in dom
    texts = re.findall(r"<text[^>]*>(.*?)</text>", dom)
    assert any("peak 8.00 MiB" in text for text in texts)
    assert "Share" not in "".join(re.findall(r'data-title="([^"]*)"', dom))
