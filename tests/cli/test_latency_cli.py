"""`mvit-search latency` as a user meets it."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mvit_search import latency
from mvit_search.architecture import PRESETS
from mvit_search.latency import CpuOnnxRuntime, CpuTorchRuntime, MacRuntime, load_target
from tests.cli.test_cli import cli, fails
from tests.latency.fake_apple import MAC, Behaviour, fake_coreml, write_package
from tests.latency.measurement_server import TOKEN, serving
from tests.latency.networks import SHORT
from tests.latency.packages import flexible_model, neural_network, save, tiny_model
from tests.latency.test_cpu_onnx import relu

Run = Callable[..., tuple[int, str, str]]
TARGETS = Path(latency.__file__).parent / "targets"
LATENCY = {"ms", "low_ms", "high_ms", "source", "target", "protocol"}


@pytest.fixture
def package(tmp_path: Path) -> str:
    return str(save(tiny_model(), tmp_path / "net.mlpackage"))


@pytest.fixture
def strange(tmp_path: Path) -> str:
    """A package with two operators of a type that no table knows."""
    return str(save(tiny_model("made_up", 2), tmp_path / "strange.mlpackage"))


@pytest.fixture
def onnx_file(tmp_path: Path) -> str:
    return str(relu(tmp_path / "net.onnx", [1, 3, 8, 8]))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured targets that take a moment; the Mac is a fake of coremltools' own signatures."""
    monkeypatch.setitem(latency._RUNTIMES, "cpu-torch", partial(CpuTorchRuntime, threads=1, timing=SHORT))
    monkeypatch.setitem(latency._RUNTIMES, "cpu-onnx", partial(CpuOnnxRuntime, threads=1, timing=SHORT))
    mac = partial(MacRuntime, timing=SHORT, host=MAC, coreml=lambda: fake_coreml(Behaviour()))
    monkeypatch.setitem(latency._RUNTIMES, "mac", mac)


def document_of(run: Run, *arguments: str) -> dict[str, Any]:
    code, out, err = run("latency", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def words_of(run: Run, *arguments: str) -> str:
    code, out, err = run("latency", *arguments)
    assert (code, err) == (0, "")
    return out


def test_a_latency_comes_with_interval_source_and_protocol(run: Run) -> None:
    found = load_target("iphone12").latency(PRESETS["mobilevit-xs"])
    table = words_of(run, "mobilevit-xs")
    for words in (
        "mobilevit-xs, 256x256 px, 1000 classes", f"{found.ms:.2f} ms", f"{found.low_ms:.2f} to {found.high_ms:.2f} ms",
        "predicted, 80 % interval", f"iphone12 is {found.source}.", f"Protocol of iphone12: {found.protocol}.",
    ):  # fmt: skip
        assert words in table, words
    document = document_of(run, "mobilevit-xs")
    assert document == {"network": "mobilevit-xs", **found._asdict()}
    assert document.keys() == LATENCY | {"network"}


def test_several_targets_are_several_rows(run: Run) -> None:
    arguments = ("mobilevit-xs", "--target", "iphone12", "--target", "iphone14", "--target", "iphone12")
    table = words_of(run, *arguments)
    assert [line.split()[0] for line in table.splitlines() if " ms " in line] == ["iphone12", "iphone14"]
    document = document_of(run, *arguments)
    assert document.keys() == {"network", "latencies"}
    assert [row["target"] for row in document["latencies"]] == ["iphone12", "iphone14"]
    assert document["latencies"][0].keys() == LATENCY


def test_size_and_classes_are_those_asked_for(run: Run, tmp_path: Path) -> None:
    table = words_of(run, "mobilevit-xs", "--image-size", "224x192", "--num-classes", "10")
    assert "mobilevit-xs, 224x192 px, 10 classes" in table
    assert "extrapolated to 224x192 px" in table
    path = tmp_path / "own.yaml"
    path.write_text("stages: [{kind: conv, out_channels: 8}]\n")
    assert document_of(run, str(path))["network"] == "own"


def test_a_candidate_of_a_run_is_found(run: Run, demo_run: Any) -> None:
    document = document_of(run, "demo/best", "--results-dir", str(demo_run.path.parent))
    assert document["network"].startswith("demo/")


def test_a_package_is_predicted_whatever_its_name(run: Run, package: str, tmp_path: Path) -> None:
    document = document_of(run, package)
    assert document["network"] == "net.mlpackage"
    assert " networks" in document["source"]
    assert document["low_ms"] < document["ms"] < document["high_ms"]
    assert "unknown_operators" not in document
    renamed = Path(package).rename(tmp_path / "renamed")
    assert document_of(run, f"{renamed}/")["ms"] == document["ms"]
    assert "renamed, 32x32 px, 2 operators" in words_of(run, str(renamed))


def test_unknown_operators_are_listed_and_lower_confidence(run: Run, package: str, strange: str) -> None:
    known, guessed = document_of(run, package), document_of(run, strange)
    assert guessed["unknown_operators"] == {"made_up": 2}
    assert guessed["high_ms"] / guessed["ms"] > known["high_ms"] / known["ms"]
    table = words_of(run, strange)
    assert "Lower confidence: 2 operators of unknown type (2 made_up)." in table
    assert "lower confidence" in table


@pytest.mark.usefixtures("quick")
def test_files_are_measured_where_a_target_runs_them(run: Run, onnx_file: str, tmp_path: Path) -> None:
    document = document_of(run, onnx_file, "--target", "cpu-onnx")
    assert document["network"] == "net.onnx"
    assert document["source"].startswith("measured: ")
    assert "measured, 10th to 90th percentile" in words_of(run, onnx_file, "--target", "cpu-onnx")
    converted = str(write_package(tmp_path / "converted.mlpackage"))
    both = document_of(run, converted, "--target", "mac", "--target", "iphone12")["latencies"]
    assert [row["source"].partition(":")[0] for row in both] == ["measured", "predicted"]
    assert "Apple M3" in both[0]["protocol"]


@pytest.mark.usefixtures("quick")
def test_a_config_is_predicted_and_measured_in_one_table(run: Run) -> None:
    arguments = ("mobilevit-xxs", "--image-size", "64", "--target", "iphone12", "--target", "cpu")
    found = document_of(run, *arguments)["latencies"]
    assert [row["target"] for row in found] == ["iphone12", "cpu-torch"]
    assert found[1]["source"].startswith("measured: ")


def test_a_file_is_measured_by_a_server_that_runs_such_files(
    run: Run, package: str, onnx_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = CpuOnnxRuntime(threads=1, timing=SHORT)
    monkeypatch.setenv("MVIT_SEARCH_TOKEN", TOKEN)
    with serving(runtime) as server:
        document = document_of(run, onnx_file, "--target", server.url)
        assert document["target"] == server.url
        assert document["source"].startswith("measured: ")
        code, _, err = run("latency", package, "--target", server.url)
    assert code == 2
    assert f"--target '{server.url}': measures configs and .onnx files, not .mlpackage files" in err


def test_a_targets_file_is_a_target(run: Run, tmp_path: Path) -> None:
    calibrated = tmp_path / "iphone12-desk.json"
    calibrated.write_bytes((TARGETS / "iphone12.json").read_bytes())
    own = document_of(run, "mobilevit-xs", "--target", str(calibrated))
    assert own == document_of(run, "mobilevit-xs")


def test_explanation_is_printed_with_what_vouches_for_it(run: Run) -> None:
    table = words_of(run, "mobilevit-xs", "--explain")
    for words in (
        "predicted ms on iphone12, by stage and class", "stages.4", "fixed cost", "all ",
        "the 5 largest operators on iphone12", "stages.2.block.transformer.0.attention.softmax",
        "They have no interval of their own", "Left-out error on 11 MobileViTs", "a line through MACs alone",
        "attention tokens",
    ):  # fmt: skip
        assert words in table, words
    explanation = document_of(run, "mobilevit-xs", "--explain")["explanation"]
    found = document_of(run, "mobilevit-xs", "--target", "iphone13", "--target", "iphone14", "--explain")["latencies"]
    for document, ms in (
        (explanation, document_of(run, "mobilevit-xs")["ms"]),
        (found[1]["explanation"], found[1]["ms"]),
    ):
        shares = [document["fixed_ms"], *(stage["ms"] for stage in document["stages"])]
        assert sum(shares) == pytest.approx(ms, abs=1e-9)


def test_a_package_is_explained_by_stride(run: Run, strange: str) -> None:
    table = " ".join(words_of(run, strange, "--explain").split())
    assert "by stride and class" in table
    assert "stride 2" in table
    assert "image pixels per pixel of the map" in table


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("reference", ["mobilevit-xs", "mobilevitv2-2.0", "strange"])
def test_lines_fit_a_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, strange: str, reference: str, columns: int
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    subject = strange if reference == "strange" else reference
    monkeypatch.chdir(Path(strange).parent)
    out = words_of(run, Path(subject).name, "--explain", "--target", "iphone12", "--target", "iphone14")
    lines = re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in out
    # What has no room is put together, and named.
    is_merged = columns == 80 and reference != "strange"
    assert any(" rest " in line for line in lines) == is_merged
    assert any(line.startswith("rest: ") for line in lines) == is_merged


def test_html_and_json_together_print_one_document(run: Run, package: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    document = document_of(run, "mobilevit-s", "--html", str(page))
    assert "explanation" not in document
    assert "Where predicted milliseconds go" in page.read_text(encoding="utf-8")
    table = words_of(run, package, "--html", str(page))
    assert table.splitlines()[-1] == f"wrote {page}"
    assert "net.mlpackage: predicted latency" in page.read_text(encoding="utf-8")


CORE_ML = "for .mlpackage give --target iphone12, iphone13, iphone14, mac, iphone"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("did you mean 'mobilevit-s'", ("mobilevit-q",)),
        ("no.mlpackage: does not exist", ("no.mlpackage",)),
        ("no.onnx: does not exist", ("no.onnx",)),
        ("folder: is no Core ML package (a folder with a Manifest.json)", ("folder",)),
        ("broken.mlpackage: has a broken Manifest.json", ("broken.mlpackage",)),
        ("garbage.mlpackage: is no Core ML model: its content cannot be parsed", ("garbage.mlpackage",)),
        ("old.mlpackage: is no ML program but a model of type neuralNetwork", ("old.mlpackage",)),
        ("flexible.mlpackage: has a dynamic shape (image)", ("flexible.mlpackage",)),
        ("compiled.mlmodelc: is a compiled model", ("compiled.mlmodelc",)),
        ("weights.pt: is neither a Core ML package (.mlpackage) nor", ("weights.pt",)),
        ("no.yaml", ("no.yaml",)),
        ("unknown target (known: iphone12", ("mobilevit-s", "--target", "iphone11")),
        ("no.json: cannot be read", ("mobilevit-s", "--target", "no.json")),
        ("broken.json: coefficients.", ("mobilevit-s", "--target", "broken.json")),
        ("text.json: invalid JSON", ("mobilevit-s", "--target", "text.json")),
        ("MVIT_SEARCH_TOKEN", ("mobilevit-s", "--target", "http://127.0.0.1:9")),
        ("iphone: needs macOS", ("mobilevit-s", "--target", "iphone")),
        (
            "predicts from configs and Core ML packages, not .onnx files; for .onnx give --target cpu-onnx",
            ("net.onnx",),
        ),
        (
            f"measures configs and .onnx files, not .mlpackage files; {CORE_ML}",
            ("net.mlpackage", "--target", "cpu-onnx"),
        ),
        (f"measures configs, not .mlpackage files; {CORE_ML}", ("net.mlpackage", "--target", "cpu")),
        ("--explain: explains predictions; cpu-torch measures", ("mobilevit-s", "--target", "cpu", "--explain")),
        (
            "--html: explains predictions; cpu-onnx measures",
            ("mobilevit-s", "--target", "cpu-onnx", "--html", "x.html"),
        ),
        ("--image-size: is for configs", ("net.mlpackage", "--image-size", "64")),
        ("--num-classes: is for configs", ("net.onnx", "--num-classes", "10")),
        ("--image-size '4': must be 16 to 8192 pixels", ("mobilevit-s", "--image-size", "4")),
        ("the limit is 4.00 GiB", ("mobilevit-s", "--image-size", "8192", "--target", "cpu")),
        ("must end in .html", ("mobilevit-s", "--html", "page.txt")),
        ("is in a folder that does not exist", ("mobilevit-s", "--html", "no/page.html")),
        ("Missing argument", ()),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else " ".join(value)[:60],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MVIT_SEARCH_TOKEN", raising=False)
    monkeypatch.delenv("MVIT_SEARCH_TOKEN_FILE", raising=False)
    make_bad_files(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = run("latency", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("mvit-search: ")
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def make_bad_files(folder: Path) -> None:
    for name in ("folder", "compiled.mlmodelc", "broken.mlpackage"):
        (folder / name).mkdir()
    (folder / "broken.mlpackage" / "Manifest.json").write_text("{}")
    save(neural_network(), folder / "old.mlpackage")
    save(flexible_model(), folder / "flexible.mlpackage")
    save(tiny_model(), folder / "net.mlpackage")
    garbage = save(tiny_model(), folder / "garbage.mlpackage")
    (garbage / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(b"\xff" * 64)
    (folder / "net.onnx").write_bytes(b"onnx")
    (folder / "weights.pt").write_bytes(b"weights")
    (folder / "text.json").write_text("no target")
    target = json.loads((TARGETS / "iphone12.json").read_text(encoding="utf-8"))
    target["coefficients"]["weight_mib"]["value"] = -1.0
    (folder / "broken.json").write_text(json.dumps(target))


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    fails("does not exist", "latency", "no.mlpackage", cwd=tmp_path)


def test_help_names_every_option() -> None:
    done = cli("latency", "--help")
    for option in ("--target", "--explain", "--html", "--image-size", "--num-classes", "--results-dir", "--json"):
        assert option in done.stdout
