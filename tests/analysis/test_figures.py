import pytest

from mvit_search.analysis import (
    candidate_points,
    front_figure_data,
    progress_data,
    read_document,
    stage_rows,
    stage_summary,
)
from mvit_search.analysis.figures import front_figure, progress_figure
from mvit_search.architecture import PRESETS
from tests.run_fixtures import WORST_LATENCY_MS, make_document, make_record, make_records


@pytest.fixture(scope="module")
def records():
    return make_records()


@pytest.fixture(scope="module")
def data(records):
    document = read_document(make_document("demo", records, over_budget=["mobilevit-s"]))
    return front_figure_data(document, candidate_points(records, "demo"))


def test_every_trained_candidate_is_drawn_once_and_no_failed_one(records, data):
    drawn = {mark.ref for group in (data.candidates, data.front, data.presets) for mark in group}
    assert drawn == {f"demo/{record.number}" for record in records if record.outcome == "trained"}
    faint = {mark.ref for mark in data.candidates}
    assert not faint & {mark.ref for mark in (*data.front, *data.presets)}


def test_marks_carry_intervals_spread_and_facts(records, data):
    by_ref = {f"demo/{record.number}": record for record in records}
    for mark in data.front:
        record = by_ref[mark.ref]
        assert mark.latency_ms - mark.left_ms == pytest.approx(record.latency.low_ms)
        assert mark.latency_ms + mark.right_ms == pytest.approx(record.latency.high_ms)
        assert mark.value == pytest.approx(100 * record.top1)
        assert mark.value_std == pytest.approx(100 * record.top1_std)
        assert record.latency.source in mark.facts
        assert stage_summary(record.config) in mark.facts[-1]
    latencies = [mark.latency_ms for mark in data.front]
    assert latencies == sorted(latencies)


def test_axes_say_device_unit_source_and_proxy(data):
    assert data.latency_axis == "Latency on iPhone 12, predicted (ms)"
    assert data.value_axis == "Top-1 on held-out images, proxy training (%)"
    assert "predicted" in data.subtitle
    assert "proxy" in data.subtitle


def test_the_hypervolume_ends_at_the_documents(records):
    document = make_document("demo", records)
    progress = progress_data(candidate_points(records, "demo"), WORST_LATENCY_MS)
    assert len(progress.percent) == len(records)
    assert list(progress.percent) == sorted(progress.percent)
    assert progress.percent[-1] == pytest.approx(100 * document["hypervolume"])


def test_the_figure_draws_the_data(data):
    figure = front_figure(data, selected=data.front[0].ref)
    names = [trace.name for trace in figure.data]
    assert names == ["Trained candidates", "Pareto front", "Published presets, same proxy", "Picked"]
    front = figure.data[1]
    assert list(front.x) == [mark.latency_ms for mark in data.front]
    assert list(front.customdata) == [mark.ref for mark in data.front]
    assert list(front.error_x.arrayminus) == [mark.left_ms for mark in data.front]
    assert figure.layout.xaxis.title.text == data.latency_axis


def test_nothing_trained_yet_is_a_figure_that_says_so():
    empty = read_document(make_document("demo", []))
    assert "No candidate" in front_figure(front_figure_data(empty, ())).layout.annotations[0].text
    assert progress_figure(progress_data((), 10.0)).layout.annotations


def test_names_from_files_are_escaped_in_hover_text():
    record = make_record(0, PRESETS["mobilevit-xs"], name="<b onclick=1>x", top1=0.9)
    document = read_document(make_document("demo", [record]))
    figure = front_figure(front_figure_data(document, ()))
    assert all("<b onclick" not in text for trace in figure.data for text in trace.hovertext)


def test_stage_rows_follow_the_network():
    rows = stage_rows(PRESETS["mobilevit-xs"])
    assert [row.stage for row in rows] == ["stem", "0", "1", "2", "3", "4", "head"]
    assert [row.output for row in rows][-3:] == ["16 × 16", "8 × 8", "8 × 8"]
    assert rows[3][7:11] == ("96", "4", "2", "2 × 2")
    assert rows[-1].channels == "384"
    assert stage_summary(PRESETS["mobilevit-xs"]) == "32×1 · 48×3 · 64 d96 L2 · 80 d120 L4 · 96 d144 L3"
