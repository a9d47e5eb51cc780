"""`measure --plan`, `measure --manifest`, `calibrate`, and the target that comes of it, as a user types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mvit_search.latency
from mvit_search.cli import main
from mvit_search.latency import CpuOnnxRuntime, CpuTorchRuntime, load_target
from mvit_search.latency.calibrating.manifest import Planned, write_plan
from mvit_search.latency.calibrating.simulation import SimulatedDevice
from tests.latency.networks import SHORT, TINY
from tests.latency.test_planning import target

TARGETS = Path(mvit_search.latency.__file__).parent / "targets"
TINY_SPACE = """
description: tiny networks
image_size: 32
stem_channels: 16
head_expansion: 2
activation: silu
stages:
  - {kind: conv, out_channels: {choices: [16, 24, 32]}, num_blocks: 1, stride: 2, expand_ratio: 2}
  - {kind: mobilevit, out_channels: {choices: [24, 32]}, stride: 2, expand_ratio: 2,
     transformer_dim: {choices: [32, 64]}, num_layers: {low: 1, high: 2}, num_heads: 2, ffn_ratio: 2.0, patch_h: 2,
     patch_w: 2, conv_kernel_size: 3}
"""


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Runs the program in `tmp_path`: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY_SPACE)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["mvit-search", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return run


@pytest.fixture
def phone(monkeypatch):
    """Every runtime is a simulated iPhone 14."""
    device = SimulatedDevice.near(target("iphone14"), 5, device="iPhone 14")
    monkeypatch.setattr("mvit_search.latency.calibrating.manifest.load_runtime", lambda name: device)
    return device


@pytest.fixture
def quick_processor(monkeypatch):
    """`cpu-torch`, the real one, with a short protocol."""
    runtime = CpuTorchRuntime(threads=1, timing=SHORT)
    monkeypatch.setattr("mvit_search.latency.calibrating.manifest.load_runtime", lambda name: runtime)


def succeeds(outcome: tuple[object, str, str]) -> str:
    code, out, err = outcome
    assert (code, err) == (0, ""), err
    return out


def fails(outcome: tuple[object, str, str], message: str, code: int = 2) -> None:
    found, _, err = outcome
    assert found == code, err
    assert err.startswith("mvit-search: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.usefixtures("quick_processor")
def test_from_a_plan_to_a_target_on_this_machine(typed, tmp_path):
    printed = succeeds(
        typed("measure", "--plan", "4", "--out", "plan", "--runtime", "cpu-torch", "--space", "tiny.yaml")
    )
    assert "4 of 24 candidates" in printed
    assert re.search(r"off by \d+ % \(one standard deviation\), and by [\d.]+ %", printed)
    measured = succeeds(typed("measure", "--manifest", "plan/manifest.json"))
    assert "4 of 4 networks measured" in measured
    assert (tmp_path / "plan" / "results.csv").is_file()
    fails(typed("calibrate", "iphone12", "plan/results.csv"), "make a target of its own with --name NAME")
    printed = succeeds(typed("calibrate", "iphone12", "plan/results.csv", "--name", "here"))
    assert "wrote here-v1.json: use it as --target here-v1.json" in printed
    assert "Published rows were dropped" in printed
    document = json.loads(succeeds(typed("profile", "mobilevit-xxs", "--target", "here-v1.json", "--json")))
    assert document["latency"]["source"].startswith("predicted: here calibration 20")
    assert document["latency"]["target"] == "here"
    assert "median of" not in document["latency"]["source"]


@pytest.mark.usefixtures("phone")
def test_from_a_plan_to_the_next_version(typed, tmp_path):
    plan = (
        "measure",
        "--plan",
        "10",
        "--target",
        "iphone14",
        "--out",
        "plan",
        "--space",
        "mobilevit-patch",
        "--budget",
        "3M",
        "--seed",
        "3",
    )
    document = json.loads(succeeds(typed(*plan, "--json")))
    assert document["error_after_percent"] < document["error_before_percent"] / 3
    assert len({file["digest"] for file in document["files"]}) == 10
    rows = json.loads(succeeds(typed("measure", "--manifest", "plan", "-o", "phone.csv", "--json")))["rows"]
    assert {row["device"] for row in rows} == {"iPhone 14 (simulated 5)"}
    again = succeeds(typed("measure", "--manifest", "plan", "-o", "phone.csv"))
    assert again.count("(measured before)") == 10
    found = json.loads(succeeds(typed("calibrate", "iphone14", "phone.csv", "--html", "page.html", "--json")))
    assert found["file"] == "iphone14-v2.json"
    errors = found["errors"]
    assert errors["after"]["mape_percent"] < errors["before"]["mape_percent"]
    assert found["published_median_error_percent"].keys() == {"before", "after"}
    assert load_target("iphone14-v2.json").calibration == found_calibration(tmp_path / "iphone14-v2.json")
    page = (tmp_path / "page.html").read_text()
    assert 'id="calibration-figure"' in page
    assert "Content-Security-Policy" in page
    assert found["sentences"][0].replace("'", "&#x27;") in page
    written = (tmp_path / "iphone14-v2.json").read_text()
    fails(typed("calibrate", "iphone14", "phone.csv"), "is there already")
    assert (tmp_path / "iphone14-v2.json").read_text() == written
    printed = succeeds(typed("calibrate", "iphone14", "phone.csv", "--force"))
    for text in ("before, times one factor", "candidate-", "Kendall tau", "published rows"):
        assert text in printed


def found_calibration(path: Path) -> str:
    loaded = load_target(str(path))
    assert "-v2-" in loaded.calibration
    return loaded.calibration


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("measure",), "write --plan 20 --out DIR"),
        (("measure", "--plan", "3", "--manifest", "x"), "exactly one of them"),
        (("measure", "--plan", "3"), "--out: is missing"),
        (("measure", "--plan", "0", "--out", "x"), "--plan"),
        (("measure", "--plan", "3", "--out", "x", "--runtime", "ipad"), "unknown runtime"),
        (("measure", "--plan", "3", "--out", "x", "--runtime", "cpu-torch", "--layout", "ane"), "cpu-torch runs none"),
        (("measure", "--plan", "3", "--out", "x", "--layout", "x"), "paper, ane"),
        (("measure", "--plan", "3", "--out", "x", "--target", "cpu-torch"), "measures, so there is nothing to improve"),
        (("measure", "--plan", "3", "--out", "x", "--budget", "6X"), "--budget '6X'"),
        (("measure", "--plan", "3", "--out", "x", "--budget", "9"), "nothing in space"),
        (("measure", "--manifest", "absent.json"), "absent.json: cannot be read"),
        (("measure", "--manifest", "absent.json", "--seed", "1"), "--seed 1: is of a plan"),
        (("measure", "--manifest", "absent.json", "-o", "no/such/table.csv"), "is not there"),
        (("calibrate", "iphone12", "absent.csv"), "absent.csv: cannot be read"),
        (("calibrate", "cpu-torch", "absent.csv"), "measures, so there is nothing to calibrate"),
        (("calibrate", "iphone-12", "absent.csv"), "did you mean 'iphone12'?"),
        (("calibrate", "iphone12", "absent.csv", "--name", "iphone13"), "is a target already"),
        (("calibrate", "iphone12", "absent.csv", "--html", "page.txt"), ".html"),
    ],
)
def test_bad_input_is_told_in_a_line(typed, tmp_path, arguments, message):
    fails(typed(*arguments), message)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("unit",), "s", "mine.json: unit 's'"),
        (("coefficients", "networks", "value"), -0.1, "coefficients.networks.value -0.1"),
        (("coefficients", "weight_mib", "unit"), "s per MiB", "must have the unit 'ms per MiB'"),
    ],
)
@pytest.mark.parametrize("command", [("profile", "mobilevit-xxs", "--target"), ("calibrate",)])
def test_a_broken_target_file_is_told_in_a_line(typed, tmp_path, command, path, value, message):
    document = json.loads((TARGETS / "iphone12.json").read_text(encoding="utf-8"))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "mine.json").write_text(json.dumps(document))
    rest = ("absent.csv",) if command == ("calibrate",) else ()
    fails(typed(*command, "mine.json", *rest), message)


@pytest.mark.usefixtures("phone")
def test_bad_tables_and_places_are_told_in_a_line(typed, tmp_path):
    succeeds(typed("measure", "--plan", "4", "--out", "plan", "--space", "tiny.yaml"))
    fails(typed("measure", "--plan", "4", "--out", "plan", "--space", "tiny.yaml"), "holds a plan already")
    succeeds(typed("measure", "--manifest", "plan/manifest.json"))
    table = tmp_path / "plan" / "results.csv"
    fails(typed("calibrate", "iphone14", str(table), "-o", "mine.json"), "must be named iphone14.json, or")
    fails(typed("calibrate", "iphone14", str(table), "-o", "no/iphone14-mine.json"), "cannot be written")
    lines = table.read_text().splitlines()
    lines[2] = re.sub(r"(candidate-\w+),[\d.]+,", r"\1,nan,", lines[2])
    table.write_text("\n".join(lines) + "\n")
    fails(typed("calibrate", "iphone14", str(table)), "results.csv row 3: latency_ms 'nan': must be a time above zero")
    (tmp_path / "plan" / "01-x.json").write_text("{}")
    path = tmp_path / "plan" / "manifest.json"
    document = json.loads(path.read_text())
    document["files"][0]["file"] = "../" + document["files"][0]["file"]
    path.write_text(json.dumps(document))
    fails(typed("measure", "--manifest", str(path)), "must be a plain name inside the manifest's folder")
    assert sorted(file.name for file in tmp_path.glob("*.json")) == []


def test_measuring_a_plan_loads_no_torch(tmp_path):
    runtime = CpuOnnxRuntime(threads=1, timing=SHORT)
    planned = [Planned(name="tiny", config=TINY, predicted_ms=1.0)]
    write_plan(
        planned, runtime, tmp_path / "plan", num_classes=10, layout="paper", target="iphone12", space="tiny", seed=0,
        told=lambda path: None,
    )  # fmt: skip
    code = (
        "import sys, pathlib\n"
        "import mvit_search.cli.measure\n"
        "from mvit_search.latency import CpuOnnxRuntime, TimingSettings\n"
        "from mvit_search.latency.calibrating.manifest import read_manifest\n"
        "from mvit_search.latency.calibrating.measuring import measure_manifest\n"
        "runtime = CpuOnnxRuntime(threads=1, timing=TimingSettings(warmup=1, min_runs=3, max_seconds=0))\n"
        "folder = pathlib.Path('plan')\n"
        "manifest = read_manifest(folder / 'manifest.json')\n"
        "found = measure_manifest(manifest, folder, runtime, pathlib.Path('results.csv'), print)\n"
        "assert not found[0].error, found\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


def test_a_phone_that_is_not_there_is_told_in_a_line(typed, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("mvit_search.latency.calibrating.manifest.load_runtime", lambda name: CpuTorchRuntime())
        succeeds(typed("measure", "--plan", "4", "--out", "plan", "--space", "tiny.yaml"))
    fails(typed("measure", "--manifest", "plan", "--runtime", "iphone"), "runs .mlpackage files")
