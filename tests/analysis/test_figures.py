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
from tests.run_fixtures import (
    THREE_OBJECTIVES,
    WORST_LATENCY_MS,
    make_document,
    make_halving_document,
    make_halving_records,
    make_record,
    make_records,
)


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
        assert mark.cost - mark.left == pytest.approx(record.latency.low_ms)
        assert mark.cost + mark.right == pytest.approx(record.latency.high_ms)
        assert mark.value == pytest.approx(100 * record.top1)
        assert mark.value_std == pytest.approx(100 * record.top1_std)
        assert record.latency.source in mark.facts
        assert stage_summary(record.config) in mark.facts[-1]
    latencies = [mark.cost for mark in data.front]
    assert latencies == sorted(latencies)


def test_axes_say_device_unit_source_and_proxy(data):
    assert data.cost_axis == "Latency on iPhone 12, predicted (ms)"
    assert data.value_axis == "Top-1 on held-out images, proxy training (%)"
    assert "predicted" in data.subtitle
    assert "proxy" in data.subtitle


def test_the_hypervolume_ends_at_the_documents(records):
    document = make_document("demo", records)
    progress = progress_data(read_document(document), candidate_points(records, "demo"))
    assert f"0 to {WORST_LATENCY_MS:.1f} ms and 0 to 100 % top-1" == progress.box
    assert len(progress.percent) == len(records)
    assert list(progress.percent) == sorted(progress.percent)
    assert progress.percent[-1] == pytest.approx(100 * document["hypervolume"])


def test_the_figure_draws_the_data(data):
    figure = front_figure(data, selected=data.front[0].ref)
    names = [trace.name for trace in figure.data]
    assert names == ["Trained candidates", "Pareto front", "Published presets, same proxy", "Picked"]
    front = figure.data[1]
    assert list(front.x) == [mark.cost for mark in data.front]
    assert list(front.customdata) == [mark.ref for mark in data.front]
    assert list(front.error_x.arrayminus) == [mark.left for mark in data.front]
    assert figure.layout.xaxis.title.text == data.cost_axis


def test_nothing_trained_yet_is_a_figure_that_says_so():
    empty = read_document(make_document("demo", []))
    assert "No candidate" in front_figure(front_figure_data(empty, ())).layout.annotations[0].text
    assert progress_figure(progress_data(empty, ())).layout.annotations


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


@pytest.fixture(scope="module", params=[("top1", "latency_ms"), THREE_OBJECTIVES], ids=["two", "three"])
def halving(request):
    """Records and figure data of a run with successive halving."""
    records = make_halving_records(objectives=request.param)
    document = read_document(make_halving_document("demo", records, request.param))
    return records, document, front_figure_data(document, candidate_points(records, "demo"))


def test_a_stopped_candidate_is_drawn_apart_at_the_rung_it_reached(halving):
    records, _, data = halving
    stopped = {f"demo/{record.number}": record for record in records if record.outcome == "stopped"}
    assert {mark.ref for mark in data.stopped} == stopped.keys()
    assert not stopped.keys() & {mark.ref for mark in (*data.candidates, *data.front, *data.presets)}
    for mark in data.stopped:
        highest = stopped[mark.ref].evaluations[-1]
        assert mark.value == pytest.approx(100 * highest.value)
        epochs = f"{highest.epochs} epoch{'s' if highest.epochs > 1 else ''}"
        assert mark.facts[0] == (
            f"Top-1 {100 * highest.value:.1f} % at rung {highest.rung + 1} of 3 ({epochs}), where it was stopped:"
            " a shorter training than that of the front"
        )
    trace = front_figure(data).data[0]
    assert (trace.name, trace.marker.symbol) == ("Stopped at a lower rung, value there", "circle-open")
    assert list(trace.customdata) == [mark.ref for mark in data.stopped]


def test_a_third_objective_colours_a_front_that_is_no_staircase(halving):
    records, document, data = halving
    front = next(trace for trace in front_figure(data).data if trace.name.startswith("Pareto front"))
    if document.objectives != THREE_OBJECTIVES:
        assert (data.colour_axis, front.mode) == ("", "lines+markers")
        return
    assert front.mode == "markers"
    assert front.name == "Pareto front, colour: Peak activations (MiB)"
    mebibytes = [records[int(ref.partition("/")[2])].peak_activation_bytes / 2**20 for ref in front.customdata]
    assert list(front.marker.color) == pytest.approx(mebibytes)
    assert "colour of the front: peak activation memory" in data.subtitle


def test_the_hypervolume_of_any_objectives_ends_at_the_documents(halving):
    records, document, _ = halving
    progress = progress_data(document, candidate_points(records, "demo"))
    assert list(progress.percent) == sorted(progress.percent)
    assert progress.percent[-1] == pytest.approx(100 * document.hypervolume)


def test_without_latency_the_axis_is_another_cost(records):
    objectives = ("top1", "params")
    document = read_document(make_halving_document("demo", records, objectives))
    data = front_figure_data(document, candidate_points(records, "demo"))
    assert data.cost_axis == "Parameters (M)"
    assert data.title == "Accuracy against number of parameters"
    by_ref = {f"demo/{record.number}": record for record in records}
    assert [mark.cost for mark in data.front] == pytest.approx([by_ref[m.ref].params / 1e6 for m in data.front])
    assert not any(mark.left or mark.right for mark in data.front)
