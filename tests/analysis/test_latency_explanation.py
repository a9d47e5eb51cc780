"""Where a predicted latency goes: sums, what stands beside it, and its page."""

import math
import re
from pathlib import Path

import pytest

from mvit_search.analysis.latency_explanation import (
    CLASS_WORDS,
    REST,
    Evidence,
    LatencyExplanation,
    explain_network,
    explain_program,
)  # fmt: skip
from mvit_search.analysis.latency_figures import classes_figure, stages_figure
from mvit_search.analysis.latency_page import latency_page_html, write_latency_page
from mvit_search.analysis.profile_facts import FIXED_COST, network_profile
from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget, load_target
from mvit_search.latency.features import OPERATOR_CLASSES
from mvit_search.latency.mil import read_program
from tests.browser import needs_chromium, rendered, tags
from tests.latency.packages import save, tiny_model

TARGETS = ("iphone12", "iphone13", "iphone14")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def target_named(name: str = "iphone12") -> PredictedTarget:
    target = load_target(name)
    assert isinstance(target, PredictedTarget)
    return target


def explained(config: MobileViTConfig, target: str = "iphone12", name: str = "net") -> LatencyExplanation:
    predicted = target_named(target)
    return explain_network(network_profile(name, config, predicted), predicted)


def explained_package(path: Path, unknown: str = "") -> LatencyExplanation:
    program, target = read_program(save(tiny_model(unknown), path)), target_named()
    return explain_program(path.name, program, target.latency_of_program(program), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PRESETS)
def test_shares_add_up_to_the_prediction(name: str, target: str) -> None:
    explanation = explained(PRESETS[name], target)
    fixed, whole = explanation.fixed_ms, explanation.latency.ms
    assert fixed > 0
    for shares in (
        [stage.ms for stage in explanation.stages],
        explanation.ms_by_class.values(),
        [operator.ms for operator in explanation.operators],
        explanation.with_at_most(3).ms_by_class.values(),
        [stage.ms for stage in explanation.with_at_most(2).stages],
    ):
        assert math.fsum(shares) + fixed == pytest.approx(whole, abs=1e-9)
    assert math.fsum(ms for _, ms in explanation.ranked_classes) == pytest.approx(whole, abs=1e-9)


def test_shares_of_a_package_add_up_to_its_prediction(tmp_path: Path) -> None:
    explanation = explained_package(tmp_path / "net.mlpackage", unknown="made_up")
    assert explanation.grouped_by == "stride"
    assert [stage.name for stage in explanation.stages] == ["stride 2"]
    total = math.fsum(stage.ms for stage in explanation.stages) + explanation.fixed_ms
    assert total == pytest.approx(explanation.latency.ms, abs=1e-9)
    # What is of unknown type counts as moved bytes, with the copies.
    assert explanation.ms_by_class["layout"] > 0
    assert {operator.name for operator in explanation.operators} == {"map", "made_up_1"}


def test_stages_keep_the_networks_order_and_strides_their_own(tmp_path: Path) -> None:
    stages = [stage.name for stage in explained(PRESETS["mobilevit-xs"]).stages]
    assert stages == ["stem", *(f"stages.{index}" for index in range(5)), "head"]
    model = tiny_model()
    operations = model.mlProgram.functions["main"].block_specializations["CoreML5"].operations
    operations[2].type = "mul"
    grown = operations.add(type="upsample_bilinear")
    grown.inputs["x"].arguments.add().name = "relu_0"
    grown.outputs.add().CopyFrom(model.mlProgram.functions["main"].inputs[0])
    grown.outputs[0].name = "grown"
    program, target = read_program(save(model, tmp_path / "net.mlpackage")), target_named()
    explanation = explain_program("net", program, target.latency_of_program(program), target)
    assert [stage.name for stage in explanation.stages] == ["stride 1", "stride 2"]


def test_only_what_costs_something_has_a_column() -> None:
    explanation = explained(PRESETS["mobilevit-xxs"])
    assert all(ms > 0 for ms in explanation.ms_by_class.values())
    assert "uneven resizes" not in explanation.classes
    assert list(explanation.classes) == [name for name in OPERATOR_CLASSES if name in explanation.classes]
    assert [row.ms for row in explanation.operators] == sorted((row.ms for row in explanation.operators), reverse=True)


def test_every_class_has_words() -> None:
    fixed = [name for name, features in OPERATOR_CLASSES.items() if features == ("networks",)]
    assert set(CLASS_WORDS) == set(OPERATOR_CLASSES) - set(fixed) | {FIXED_COST}


def test_the_cheapest_classes_are_put_together_and_named() -> None:
    explanation = explained(PRESETS["mobilevit-xs"])
    few = explanation.with_at_most(4)
    assert few.classes[-1] == REST
    assert len(few.classes) == 4
    kept = min(explanation.ms_by_class[name] for name in few.classes[:-1])
    assert all(explanation.ms_by_class[name] <= kept for name in few.merged)
    assert {*few.classes[:-1], *few.merged} == set(explanation.classes)
    assert explanation.with_at_most(len(explanation.classes)) is explanation
    assert explanation.with_at_most(1).classes == (REST,)


def test_rows_of_the_table_end_with_fixed_cost_and_whole() -> None:
    explanation = explained(PRESETS["mobilevit-xs"])
    *stages, fixed, whole = explanation.stage_rows
    assert len(stages) == 7
    assert (fixed[0], whole[0], whole[-1]) == (FIXED_COST, "all", "100.0")
    assert {len(row) for row in explanation.stage_rows} == {len(explanation.classes) + 3}
    assert whole[-2] == f"{explanation.latency.ms:.2f}"


@pytest.mark.parametrize(("side", "decimals"), [(64, 3), (256, 2), (8192, 0)])
def test_decimals_follow_the_whole(side: int, decimals: int) -> None:
    explanation = explained(PRESETS["mobilevit-s"].with_image_size(side))
    assert explanation.stage_rows[-1][-2] == f"{explanation.latency.ms:,.{decimals}f}"


def test_evidence_is_that_of_the_rows_which_vouch_for_the_network() -> None:
    in_family = explained(PRESETS["mobilevit-xs"]).evidence
    group = target_named().file.family
    assert group is not None
    assert in_family == Evidence.of(target_named(), in_family=True)
    assert in_family.networks == f"{group.networks} MobileViTs"
    assert f"MAPE {group.errors.network.mape_percent:.1f} %" in in_family.words
    assert f"a line through MACs alone: MAPE {group.macs_only.network.mape_percent:.1f} %" in in_family.words
    # Without attention it is no MobileViT any more, and the source says so too.
    plain = explained(MobileViTConfig(stages=(ConvStage(out_channels=16),)))
    networks = f"{target_named().file.all.networks} networks"
    assert plain.evidence.networks == networks
    assert networks in plain.latency.source
    assert "of them fallbacks off the Neural Engine" in plain.evidence.words


def test_document_has_every_number() -> None:
    explanation = explained(PRESETS["mobilevit-xs"])
    document = explanation.document()
    assert document.keys() == {
        "grouped_by", "fixed_ms", "stages", "ms_by_class", "largest_operators", "evidence"
    }  # fmt: skip
    assert sum(document["ms_by_class"].values()) + document["fixed_ms"] == pytest.approx(explanation.latency.ms)
    assert document["stages"][0]["name"] == "stem"
    assert document["stages"][0]["ms_by_class"].keys() == set(explanation.classes)
    assert len(document["largest_operators"]) == 5


def test_figures_draw_every_millisecond() -> None:
    explanation = explained(PRESETS["mobilevit-xs"])
    stacked = [trace for trace in stages_figure(explanation).data if trace.type == "bar"]
    assert [trace.name for trace in stacked] == [*explanation.classes, FIXED_COST]
    assert math.fsum(ms for trace in stacked for ms in trace.x) == pytest.approx(explanation.latency.ms)
    ranked = classes_figure(explanation).data
    assert [trace.name for trace in ranked] == [name for name, _ in explanation.ranked_classes]
    assert math.fsum(ms for trace in ranked for ms in trace.x) == pytest.approx(explanation.latency.ms)
    colours = [trace.marker.color for trace in stacked]
    assert len(set(colours)) == len(colours)


def test_the_page_is_self_contained_and_has_its_words() -> None:
    config = PRESETS["mobilevit-xs"]
    html = latency_page_html("net, 256x256 px", [explained(config, name) for name in TARGETS], {})
    found = tags(html)
    assert not [t for t in found if {"src", "href", "data", "action"} & t[1].keys()]
    assert html.count("plotly.js v") == 1
    for words in (
        "80 % interval", "The latency is predicted: iphone14 calibration", "Protocol: as the MobileViT papers",
        "They have no interval of their own", "Left-out error on 11 MobileViTs", "Nothing was run on the device",
        "what a run takes whatever its operators", "256x256 px",
    ):  # fmt: skip
        assert words in html, words
    assert "Lower confidence" not in html
    identifiers = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers)) == 2 * len(TARGETS)


def test_a_page_of_a_package_names_what_is_unknown_and_escapes_it(tmp_path: Path) -> None:
    html = latency_page_html(HOSTILE, [explained_package(tmp_path / "net.mlpackage")], {HOSTILE: 2})
    assert "Lower confidence:" in html
    assert "grouped by stride" in html
    assert HOSTILE not in html
    assert not [t for t in tags(html) if t[0] == "img"]


def test_a_page_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must end in"):
        write_latency_page("net", [explained(PRESETS["mobilevit-xxs"])], {}, tmp_path / "page.txt")
    assert not list(tmp_path.iterdir())


@needs_chromium
def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    explanation = explained(PRESETS["mobilevit-xs"])
    write_latency_page("mobilevit-xs, 256x256 px", [explanation], {}, page)
    dom = rendered(page.as_uri(), tmp_path / "profile")
    assert len(re.findall(r'class="[^"]*js-plotly-plot', dom)) == 2
    texts = re.findall(r"<text[^>]*>(.*?)</text>", dom)
    for words in ("stages.4", "attention tokens", FIXED_COST, "Predicted ms on iphone12"):
        assert any(words in text for text in texts), words
    ms, percent = explanation.cells(explanation.fixed_ms)
    assert sum(f"{ms} ms, {percent} %" in text for text in texts) == 2
