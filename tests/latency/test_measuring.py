"""A plan's folder, measuring it, and the table: what they hold, what a kill leaves, and what is refused."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mvit_search.architecture import ConvStage, MobileViTConfig
from mvit_search.errors import ConflictError, InputError, WorkError
from mvit_search.latency import CpuTorchRuntime, Measurement
from mvit_search.latency.calibrating.manifest import (
    Manifest,
    Planned,
    checked_artifact,
    read_manifest,
    runtime_for,
    write_plan,
)
from mvit_search.latency.calibrating.measuring import Outcome, measure_manifest
from mvit_search.latency.calibrating.results_table import COLUMNS, read_results
from mvit_search.latency.calibrating.simulation import SimulatedDevice
from tests.latency.networks import SHORT, TINY
from tests.latency.test_planning import target

CONFIGS = (
    TINY,
    MobileViTConfig(image_size=(32, 32), stages=(ConvStage(out_channels=16),)),
    MobileViTConfig(image_size=(32, 32), stages=(ConvStage(out_channels=24),)),
)


@dataclass
class Flaky:
    """A simulated device that fails on files of some names, counts its measurements, and may be cut off."""

    inner: SimulatedDevice = field(default_factory=lambda: SimulatedDevice.near(target(), 1))
    failing: tuple[str, ...] = ()
    left: int = 100
    asked: list[str] = field(default_factory=list)

    name, suffix = "simulated", ".json"

    @property
    def identity(self) -> str:
        return self.inner.identity

    def require_device(self) -> None:
        pass

    def write(self, config: MobileViTConfig, num_classes: int, path: Path) -> None:
        self.inner.write(config, num_classes, path)

    def measure(self, path: Path) -> Measurement:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked.append(path.name)
        if path.name in self.failing:
            raise WorkError("the phone ran,\nout of memory")
        return self.inner.measure(path)


def plan(folder: Path, runtime: Any = None) -> Manifest:
    planned = [Planned(name=f"net{i}", config=config, predicted_ms=1.0 + i) for i, config in enumerate(CONFIGS)]
    return write_plan(
        planned, runtime or Flaky(), folder, num_classes=10, layout="paper", target="iphone12-v1", space="mini", seed=0,
        told=lambda path: None,
    )  # fmt: skip


def measure(manifest: Manifest, folder: Path, runtime: Any) -> list[Outcome]:
    return measure_manifest(manifest, folder, runtime, folder / "results.csv", lambda outcome: None)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


def test_a_plan_is_files_and_a_manifest_that_reads_back(tmp_path):
    written = plan(tmp_path / "plan")
    assert read_manifest(tmp_path / "plan" / "manifest.json") == written
    assert [file.file for file in written.files] == ["01-net0.json", "02-net1.json", "03-net2.json"]
    assert [file.digest for file in written.files] == [config.digest() for config in CONFIGS]
    assert written.wanted.model_dump() == {"runtime": "simulated", "layout": "paper"}
    assert all(checked_artifact(file, tmp_path / "plan").is_file() for file in written.files)
    with pytest.raises(ConflictError, match="holds a plan already"):
        plan(tmp_path / "plan")


def test_a_failed_file_is_a_row_and_is_tried_again(tmp_path):
    manifest = plan(tmp_path)
    outcomes = measure(manifest, tmp_path, Flaky(failing=("02-net1.json",)))
    assert [bool(outcome.error) for outcome in outcomes] == [False, True, False]
    rows = table(tmp_path)
    assert rows[1]["error"] == "the phone ran, out of memory"
    assert rows[1]["latency_ms"] == rows[1]["protocol"] == ""
    found = read_results(tmp_path / "results.csv")
    assert (len(found.rows), found.failures) == (2, 1)
    again = Flaky()
    outcomes = measure(manifest, tmp_path, again)
    assert again.asked == ["02-net1.json"]
    assert [outcome.known for outcome in outcomes] == [True, False, True]
    assert (len(table(tmp_path)), read_results(tmp_path / "results.csv").failures) == (3, 0)


def test_a_table_is_whole_after_each_file_and_goes_on_after_a_kill(tmp_path):
    manifest = plan(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measure(manifest, tmp_path, Flaky(left=2))
    assert [row["name"] for row in table(tmp_path)] == ["net0", "net1"]
    rest = Flaky()
    measure(manifest, tmp_path, rest)
    assert rest.asked == ["03-net2.json"]
    assert tuple(table(tmp_path)[0]) == COLUMNS
    found = read_results(tmp_path / "results.csv").rows
    device = rest.inner
    for row, config in zip(found, CONFIGS, strict=True):
        assert row.network.config == config
        assert row.latency_ms == pytest.approx(device.measured_ms(config, 10), rel=1e-5)
        assert row.protocol == device.protocol


def test_another_device_does_not_go_into_the_same_table(tmp_path):
    manifest = plan(tmp_path)
    measure(manifest, tmp_path, Flaky())
    with pytest.raises(ConflictError, match="measured otherwise"):
        measure(manifest, tmp_path, Flaky(SimulatedDevice.near(target(), 2)))


def test_a_real_runtime_measures_a_plan(tmp_path):
    runtime = CpuTorchRuntime(threads=1, timing=SHORT)
    manifest = plan(tmp_path, runtime)
    assert not any(outcome.error for outcome in measure(manifest, tmp_path, runtime))
    assert {row.protocol for row in read_results(tmp_path / "results.csv").rows} == {runtime.protocol}
    assert {row["threads"] for row in table(tmp_path)} == {"1"}


def test_a_changed_or_missing_file_is_refused_by_name_before_anything_is_measured(tmp_path):
    manifest = plan(tmp_path)
    (tmp_path / "03-net2.json").write_text("{}")
    device = Flaky()
    with pytest.raises(InputError, match=r"03-net2\.json: is not the file that the plan wrote"):
        measure(manifest, tmp_path, device)
    (tmp_path / "03-net2.json").unlink()
    with pytest.raises(InputError, match=r"03-net2\.json: is not in "):
        measure(manifest, tmp_path, device)
    (tmp_path / "elsewhere").write_bytes((tmp_path / "01-net0.json").read_bytes())
    (tmp_path / "01-net0.json").unlink()
    (tmp_path / "01-net0.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"01-net0\.json: leads out of its folder"):
        measure(manifest, tmp_path, device)
    assert device.asked == []


def test_a_runtime_that_runs_other_files_is_refused(tmp_path):
    manifest = plan(tmp_path)
    with pytest.raises(InputError, match=r"runs \.onnx files, and the plan holds 01-net0\.json"):
        measure(manifest, tmp_path, runtime_for("cpu-onnx", "paper"))


def test_layouts_are_of_core_ml():
    assert runtime_for("iphone:ane", "ane").conversion.layout == "ane"
    assert runtime_for("mac", "paper").conversion.layout == "paper"
    with pytest.raises(InputError, match="cpu-torch runs none"):
        runtime_for("cpu-torch", "ane")
    with pytest.raises(InputError, match="paper, ane"):
        runtime_for("mac", "anne")


def first(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["files"][0].update(values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (first(file="../01-net0.json"), "plain name inside the manifest's folder"),
        (first(file="/etc/passwd.json"), "plain name inside the manifest's folder"),
        (first(file="a\\b.json"), "plain name inside the manifest's folder"),
        (first(file="01-net0.onnx"), "with the suffix"),
        (first(file="02-net1.json"), "two files have the same file"),
        (first(digest="0" * 64), "digest '000000000000' must be its config's"),
        (first(sha256="sha256:12"), "files.0.sha256"),
        (first(num_classes=0), "files.0.num_classes"),
        (first(nmae="x"), "did you mean 'name'?"),
        (lambda document: document.update(format=2), "format 2"),
        (lambda document: document.update(files=[]), "files"),
        (lambda document: document.pop("wanted"), "wanted"),
    ],
)
def test_a_bad_manifest_is_refused_in_a_line(tmp_path, spoil, message):
    plan(tmp_path)
    path = tmp_path / "manifest.json"
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        read_manifest(tmp_path / "manifest.json")


def rewritten(folder: Path, change: Callable[[list[dict[str, str]]], None], columns: tuple[str, ...] = COLUMNS) -> Path:
    rows = table(folder)
    change(rows)
    path = folder / "changed.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def cell(column: str, value: str) -> Callable[[list[dict[str, str]]], None]:
    return lambda rows: rows[1].update({column: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((cell("latency_ms", value), f"row 3: latency_ms '{value}': must be a time above zero")
          for value in ("0", "-1.5", "nan", "inf", "", "fast")),
        (cell("low_ms", "0"), "row 3: low_ms '0': must be a time above zero"),
        (cell("high_ms", "0.0001"), "row 3: latency_ms"),
        (cell("digest", "1" * 64), "row 3: digest"),
        (cell("config", "{"), "row 3: config: is no JSON"),
        (cell("config", '{"stages": []}'), "row 3: config"),
        (cell("num_classes", "0"), "row 3: num_classes '0'"),
        (cell("num_classes", "1e3"), "row 3: num_classes '1e3'"),
        (cell("protocol", ""), "row 3: protocol ''"),
        (cell("protocol", "0123456789ab"), "row 3: protocol '0123456789ab': is not the digest"),
        (cell("device", ""), "row 3: device: is empty"),
        (cell("warmup", "x"), "row 3: warmup 'x'"),
        (cell("layout", "ane"), "was measured otherwise than row 2"),
        (lambda rows: rows.clear(), "has no measured row"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_by_its_number(tmp_path, change, message):
    manifest = plan(tmp_path)
    measure(manifest, tmp_path, Flaky())
    with pytest.raises(InputError) as caught:
        read_results(rewritten(tmp_path, change))
    assert message in str(caught.value)
    assert str(caught.value).startswith("changed.csv")
    assert "\n" not in str(caught.value)


def test_two_protocols_in_a_table_are_refused(tmp_path):
    plan(tmp_path)
    device = SimulatedDevice.near(target(), 1)
    measure(read_manifest(tmp_path / "manifest.json"), tmp_path, Flaky(device))

    def mix(rows: list[dict[str, str]]) -> None:
        newer = replace(device.protocol, system="iOS 99")
        rows[2].update(system="iOS 99", protocol=newer.digest)

    with pytest.raises(InputError, match=r"row 4: protocol .* was measured otherwise than row 2 .* split it"):
        read_results(rewritten(tmp_path, mix))


def test_missing_columns_and_files_that_are_no_tables_are_refused(tmp_path):
    measure(plan(tmp_path), tmp_path, Flaky())
    few = tuple(column for column in COLUMNS if column not in ("system", "config"))
    with pytest.raises(InputError, match="lacks the columns system, config"):
        read_results(rewritten(tmp_path, lambda rows: None, few))
    (tmp_path / "changed.csv").write_text((tmp_path / "results.csv").read_text() + "a,b\n" + "," * 60 + "\n")
    with pytest.raises(InputError, match=r"row 6: has more cells than the head"):
        read_results(tmp_path / "changed.csv")
    (tmp_path / "changed.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no CSV in UTF-8"):
        read_results(tmp_path / "changed.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "absent.csv")
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConflictError, match="another table"):
        measure(read_manifest(tmp_path / "manifest.json"), tmp_path, Flaky())
