"""`mvit-search profile` as a user meets it."""

import json
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvit_search.analysis.profile_facts import format_interval
from mvit_search.architecture import PRESETS
from mvit_search.latency import load_target
from tests.cli.test_cli import cli, fails


def document_of(run, *arguments):
    code, out, err = run("profile", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_layers_add_up_and_say_what_they_are(run):
    document = document_of(run, "mobilevit-s")
    layers = document["layers"]
    assert sum(row["params"] for row in layers) == document["params"]
    assert sum(row["macs"] for row in layers) == document["macs"]
    times = [document["predicted_fixed_ms"], *(row["predicted_ms"] for row in layers)]
    assert sum(times) == pytest.approx(document["latency"]["ms"])
    assert "ops" not in document
    assert "compare" not in document
    _, table, _ = run("profile", "mobilevit-s", "--layers")
    assert "stages.4.block.transformer.2" in table
    assert "no interval of their own" in table
    fixed, whole = (line.split() for line in table.splitlines() if line.startswith((" fixed cost ", " all ")))
    assert fixed[2:] == [f"{times[0]:.2f}", f"{100 * times[0] / sum(times):.1f}"]
    assert whole[-2:] == [f"{sum(times):.2f}", "100.0"]


def test_ops_are_one_row_an_operator(run):
    document = document_of(run, "mobilevit-xs", "--ops")
    assert len(document["ops"]) == 318
    keys = {"name", "kind", "detail", "stage", "shape", "params", "macs", "read_bytes", "written_bytes"}
    assert document["ops"][0].keys() == keys
    _, table, _ = run("profile", "mobilevit-xs", "--ops")
    assert "conv 3x3 depthwise s2" in table
    assert "stages.2.block.transformer.0.attention.qkv" in table
    assert len(table.splitlines()) > 318


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("arguments", [("--layers",), ("--ops",), ("mobilevit-s", "mobilevitv2-1.0")], ids=" ".join)
def test_lines_fit_a_terminal(run, monkeypatch, columns, arguments):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = run("profile", "mobilevit-xs", *arguments)
    assert code == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("mobilevit-s", "mobilevit-xs", "mobilevitv2-1.0"),
        ("mobilevit-s", "--compare", "mobilevit-xs", "--compare", "mobilevitv2-1.0"),
        ("--compare", "mobilevit-s", "mobilevit-xs", "mobilevitv2-1.0"),
    ],
    ids=" ".join,
)
def test_several_references_stand_side_by_side(run, arguments):
    document = document_of(run, *arguments)
    assert document["name"] == "mobilevit-s"
    assert [other["name"] for other in document["compare"]] == ["mobilevit-xs", "mobilevitv2-1.0"]
    assert document["compare"][0]["ratio_to_first"]["params"] == pytest.approx(2_317_848 / 5_578_632)
    code, table, _ = run("profile", *arguments)
    assert code == 0
    for words in ("side by side", "2,317,848 (×0.42)", "config fields that differ", "256x256 px", "predicted"):
        assert words in table


def test_tasks_come_with_their_size_classes_and_published_values(run):
    document = document_of(run, "mobilevit-s", "--task", "detection")
    assert document["config"]["image_size"] == [320, 320]
    assert document["num_classes"] == 81
    assert document["params"] == 5_738_826
    (params,) = [row for row in document["published"] if row["quantity"] == "params_m"]
    assert params["published"] == 5.7
    assert abs(params["difference_percent"]) < 1
    segmentation = document_of(run, "mobilevit-xs", "--task", "segmentation")
    assert segmentation["output_stride"] == 16
    assert segmentation["params"] == 2_944_069
    assert "no fitted row has this head" in segmentation["latency"]["source"]
    own_size = document_of(run, "mobilevit-xs", "--task", "segmentation", "--image-size", "256x192")
    assert own_size["config"]["image_size"] == [256, 192]


def test_output_stride_dilates(run):
    document = document_of(run, "mobilevit-xxs", "--output-stride", "8")
    assert max(map(int, document["memory_by_stride_kib"])) == 8
    assert document["params"] == 1_272_024
    assert (document["output_stride"], document["reached_stride"]) == (8, 8)


def test_an_output_stride_beyond_the_network_says_so(run, tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text("stages: [{kind: conv, out_channels: 8, stride: 2}, {kind: conv, out_channels: 8, stride: 2}]\n")
    document = document_of(run, str(path), "--output-stride", "16")
    assert (document["output_stride"], document["reached_stride"]) == (16, 8)
    _, table, _ = run("profile", str(path), "--output-stride", "16")
    assert "output stride 16 dilates nothing, the network ends at stride 8" in table


def test_a_latency_says_what_its_interval_is(run):
    interval = format_interval(load_target("iphone12").latency(PRESETS["mobilevit-xs"]))
    _, one, _ = run("profile", "mobilevit-xs")
    assert f"80 % interval {interval}; predicted: " in one
    _, two, _ = run("profile", "mobilevit-xs", "mobilevit-s")
    assert re.search(rf"80 % interval +{interval}", two)


def test_absurd_sizes_stay_readable(run):
    code, table, _ = run("profile", "mobilevit-xs", "--image-size", "8192")
    assert code == 0
    assert re.search(r"latency +\d,\d{3}\.\d s +80 % interval \d,\d{3}\.\d to \d,\d{3}\.\d s;", table)
    assert "1,048,576 at 2" in table


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_verify_is_equal_in_three_ways(run, task):
    size = {"classification": "256", "detection": "320", "segmentation": "256"}[task]
    document = document_of(run, "mobilevit-xxs", "--task", task, "--image-size", size, "--verify")
    check = document["verification"]
    assert check["ok"] is True
    assert document["params"] == check["params_module"]
    assert document["macs"] == check["macs_fvcore"] == check["macs_torch"]


def test_html_and_json_together_print_one_document(run, tmp_path):
    page = tmp_path / "page.html"
    document = document_of(run, "mobilevit-s", "--html", str(page))
    assert document["name"] == "mobilevit-s"
    assert "Architecture of mobilevit-s" in page.read_text(encoding="utf-8")
    code, out, _ = run("profile", "mobilevit-s", "--html", str(page))
    assert (code, out.splitlines()[-1]) == (0, f"wrote {page}")


HUGE = {"stages": [{"kind": "conv", "out_channels": 8192, "num_blocks": 64, "expand_ratio": 16}]}


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("did you mean 'mobilevit-s'", ("mobilevit-s", "mobilevit-q")),
        ("did you mean 'iphone12'", ("mobilevit-s", "--target", "iphone2")),
        ("did you mean 'detection'", ("mobilevit-s", "--task", "detecton")),
        ("must be at least the network's total stride, 32 px", ("mobilevit-s", "--image-size", "20")),
        ("--image-size '4': must be 16 to 8192 pixels", ("mobilevit-s", "--image-size", "4")),
        ("--image-size '9999999999999999'", ("mobilevit-s", "--image-size", "9999999999999999")),
        ("--image-size '224by224'", ("mobilevit-s", "--image-size", "224by224")),
        ("the limit is 4.00 GiB", ("mobilevit-s", "--image-size", "8192", "--verify")),
        ("the limit is 4.00 GiB", ("mobilevit-s", "--image-size", "8192", "--target", "cpu")),
        ("the limit is 4.00 GiB", ("huge.yaml", "--verify")),
        ("--num-classes", ("mobilevit-s", "--num-classes", "99999999")),
        (
            "'--num-classes': Input should be greater than or equal to 1 (given '0')",
            ("mobilevit-s", "--num-classes", "0"),
        ),
        ("output_stride 7: must be one of 8, 16, 32", ("mobilevit-s", "--output-stride", "7")),
        ("made for output stride 16", ("mobilevit-s", "--task", "segmentation", "--output-stride", "8")),
        ("needs a stage at stride 16", ("short.yaml", "--task", "detection")),
        ("needs a last stage at stride 16 or more", ("short.yaml", "--task", "segmentation")),
        ("measures classification networks", ("mobilevit-s", "--target", "cpu", "--task", "detection")),
        ("--html 'page.txt': must end in .html", ("mobilevit-s", "--html", "page.txt")),
        ("--html 'no/page.html': is in a folder that does not exist", ("mobilevit-s", "--html", "no/page.html")),
        ("cannot be written", ("mobilevit-s", "--html", "/proc/page.html")),
        ("--ops: lists the operators of one network", ("mobilevit-s", "mobilevit-xs", "--ops")),
        ("--compare: needs at least two references", ("mobilevit-s", "--compare")),
        ("stages.0.out_chanels: unknown key; did you mean 'out_channels'?", ("wrong.yaml",)),
        ("Missing argument", ()),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else " ".join(value)[:60],
)
def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path, monkeypatch, message, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "huge.yaml").write_text(yaml.safe_dump(HUGE))
    (tmp_path / "short.yaml").write_text("stages: [{kind: conv, out_channels: 8}]\n")
    (tmp_path / "wrong.yaml").write_text("stages: [{out_chanels: 8}]\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = run("profile", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("mvit-search: ")
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_page_in_a_folder_that_may_not_be_entered(run, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.is_dir", refuse)
    code, out, err = run("profile", "mobilevit-s", "--html", "locked/x.html")
    assert (code, out) == (2, "")
    assert err == "mvit-search: --html 'locked/x.html': cannot be written (Permission denied); choose another place\n"


def test_bad_input_in_a_process_of_its_own(tmp_path):
    fails("unknown task", "profile", "mobilevit-s", "--task", "poetry", cwd=tmp_path)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
FIELDS = st.sampled_from(
    ["stages", "image_size", "stem_channels", "kind", "out_channels", "stride", "transformer_dim", "num_heads",
     "patch_h", "expand_ratio", "activation", "attention", "num_layers"]
)  # fmt: skip
DOCUMENTS = st.recursive(
    SCALARS | st.sampled_from(["conv", "mobilevit", "separable", 8, 16, 2]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=6),
    max_leaves=20,
)


@given(document=DOCUMENTS, raw=st.none() | st.text(max_size=60))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_config_file_ends_in_a_traceback(run, tmp_path, document, raw):
    path = tmp_path / "fuzzed.yaml"
    text = raw if raw is not None else yaml.safe_dump(document, allow_unicode=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    code, _, err = run("profile", str(path))
    assert code in (0, 2), err
    assert err.count("\n") == (1 if code else 0)


@given(st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_edited_preset_ends_in_a_traceback(run, tmp_path, data):
    """One field of a preset's config is replaced or removed: it still profiles, or says which field is wrong."""
    config = PRESETS[data.draw(st.sampled_from(["mobilevit-xxs", "mobilevitv2-0.5"]))].model_dump(mode="json")
    place = data.draw(st.sampled_from([config, *config["stages"]]))
    field = data.draw(st.sampled_from(sorted(place)))
    if data.draw(st.booleans()):
        place[field] = data.draw(DOCUMENTS)
    else:
        del place[field]
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(config))
    code, _, err = run("profile", str(path))
    assert code in (0, 2), err


def test_help_is_quick_and_names_every_option():
    done = cli("profile", "--help")
    for option in ("--task", "--layers", "--ops", "--compare", "--verify", "--html", "--output-stride"):
        assert option in done.stdout
