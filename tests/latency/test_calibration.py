"""The stored target is what its own rows give, and broken files are refused by field."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mvit_search.latency
from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget
from mvit_search.latency.calibration import bare_rows, calibrate, describe, priors_of
from mvit_search.latency.features import FEATURE_NAMES
from mvit_search.latency.target_file import TargetFile, read_target_file

TARGETS = sorted((Path(mvit_search.latency.__file__).parent / "targets").glob("*.json"))
IPHONE12 = next(path for path in TARGETS if path.stem == "iphone12")
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fit_latency.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_latency", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_refit_gives_what_the_file_says(path: Path) -> None:
    stored = read_target_file(path)
    again = script().refit(stored)
    assert again.values == pytest.approx(stored.values, rel=1e-4)
    for errors in ("errors", "baseline_errors", "interval"):
        expected = getattr(stored, errors).model_dump()
        assert getattr(again, errors).model_dump() == pytest.approx(expected, rel=1e-3)
    for row, before in zip(again.rows, stored.rows, strict=True):
        for field in ("fitted_ms", "row_left_out_ms", "network_left_out_ms", "model_left_out_ms"):
            assert getattr(row, field) == pytest.approx(getattr(before, field), rel=1e-4)
    assert again.excluded == stored.excluded


def test_iphone12_rows_and_their_sources() -> None:
    file = read_target_file(IPHONE12)
    first = sorted(row.latency_ms for row in file.rows if row.preset.startswith("mobilevit-"))
    assert first == [4.8, 5.93, 7.2, 7.28, 7.3, 8.2, 9.85, 9.9, 14.69]
    second = {row.latency_ms: row.image_size[0] for row in file.rows if row.preset.startswith("mobilevitv2-")}
    assert second == {1.6: 256, 3.4: 256, 3.8: 256, 5.1: 256, 7.5: 256, 17.0: 384}
    assert all(row.source and row.url for row in file.rows)
    assert all(row.source and row.url and row.reason for row in file.excluded)
    assert {row.weight for row in file.rows if row.digitised} == {0.25}
    assert {row.latency_ms for row in file.rows if row.digitised} == {7.2, 7.3}
    assert 17.86 in [row.latency_ms for row in file.excluded]  # the CPU row


def test_iphone12_beats_macs_alone_on_unseen_networks() -> None:
    file = read_target_file(IPHONE12)
    ours, macs = file.errors, file.baseline_errors
    assert ours.leave_one_network_out_mape_percent < macs.leave_one_network_out_mape_percent
    assert ours.leave_one_model_out_mape_percent < macs.leave_one_model_out_mape_percent


def test_predictor_agrees_with_the_fit() -> None:
    target = PredictedTarget.load(IPHONE12)
    for row in target.file.rows:
        assert target.latency(row.config).ms == pytest.approx(row.fitted_ms, rel=1e-5)


def test_left_out_rows_do_not_see_themselves() -> None:
    """A row that lies tenfold moves its own fit and not its own left-out prediction."""
    file = read_target_file(IPHONE12)
    rows = list(bare_rows(file))
    index = next(i for i, row in enumerate(rows) if row.preset == "mobilevit-xxs")
    rows[index] = rows[index].model_copy(update={"latency_ms": 48.0})
    lied = calibrate(rows, (), priors_of(file), file.ridge, describe(file))
    after, before = lied.rows[index], file.rows[index]
    assert after.network_left_out_ms == pytest.approx(before.network_left_out_ms, rel=1e-4)
    assert after.fitted_ms > 1.05 * before.fitted_ms


def test_too_few_rows_are_refused() -> None:
    file = read_target_file(IPHONE12)
    with pytest.raises(InputError, match="three networks"):
        calibrate(bare_rows(file)[:2], (), priors_of(file), file.ridge, describe(file))


def test_calibration_id_follows_the_coefficients(tmp_path: Path) -> None:
    document = json.loads(IPHONE12.read_text(encoding="utf-8"))
    before = read_target_file(IPHONE12).calibration
    document["coefficients"]["gmacs"]["value"] += 0.01
    after = written(tmp_path, document)
    assert read_target_file(after).calibration != before
    document["coefficients"]["gmacs"]["value"] -= 0.01
    document["limits"] = "other words"
    assert read_target_file(written(tmp_path, document)).calibration == before


def written(folder: Path, document: object) -> Path:
    path = folder / "iphone12.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def edit(*keys: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit("unit", value="s"), "iphone12.json: unit 's'"),
        (edit("coefficients", "gmacs", "value", value=-0.1), "coefficients.gmacs.value -0.1"),
        (edit("coefficients", "gmacs", "value", value="1"), "coefficients.gmacs.value '1'"),
        (edit("coefficients", "gmacs", "unit", value="s per MAC"), "must have the unit 'ms per 1e9 MACs'"),
        (edit("coefficients", "map_traffic_mib", "value", value=0.0), "map_traffic_mib must be above zero"),
        (edit("coefficients", value={}), "coefficients must be operators"),
        (edit("date", value="2026-13-01"), "month must be in 1..12"),
        (edit("name", value="iphone11"), "must be the file's stem"),
        (edit("rows", 0, "preset", value="mobilevit-m"), "preset 'mobilevit-m' is unknown"),
        (edit("rows", 0, "patch_sizes", value=[2]), "must have 3 sides"),
        (edit("rows", 0, "latency_ms", value=0), "rows.0.latency_ms 0"),
        (edit("num_rows", value=8), "must equal the number of rows"),
        (edit("methods", value="x"), "did you mean 'method'?"),
        (lambda document: document.pop("interval"), "iphone12.json: interval: is required"),
    ],
)
def test_bad_file_names_the_field(tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    document = json.loads(IPHONE12.read_text(encoding="utf-8"))
    spoil(document)
    with pytest.raises(InputError) as caught:
        PredictedTarget.load(written(tmp_path, document))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "iphone12.json"
    path.write_text("{ not json", encoding="utf-8")
    with pytest.raises(InputError, match="JSON"):
        PredictedTarget.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        PredictedTarget.load(tmp_path / "absent.json")


def test_script_prints_rows_and_ratio(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fit_latency.py", "--quick"])
    script().main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("ratio iphone12-leave-one-out-vs-macs-only: ")
    assert float(lines[-1].rpartition(" ")[2]) > 1
    assert sum(line.startswith("MobileViT") for line in lines) == 15


def test_script_rebuilds_rows_from_a_published_table(tmp_path: Path) -> None:
    """A table in the published form, made of the stored rows and three that must stay out."""
    stored: TargetFile = read_target_file(IPHONE12)
    header = "model,variant,resolution,params_m,macs_g,device,compute_units,latency_ms,top1,source"
    sizes = {name: name.rpartition("-")[2].upper() for name in PRESETS}
    models = {name: "MobileViTv2" if name.startswith("mobilevitv2") else "MobileViT" for name in PRESETS}
    lines = [f"{header},url_or_path,note"]
    for row in stored.rows:
        note = "DIGITISED" if row.digitised else ""
        variant = f'"{sizes[row.preset]} ({",".join(map(str, row.patch_sizes))})"'
        measured = f"{row.device},{row.compute_units},{row.latency_ms}"
        lines.append(f"{models[row.preset]},{variant},{row.image_size[0]},,,{measured},,s,u,{note}")
    lines += [
        'MobileViT,"XS (2,2,2)",256,,,iPhone 12,CPU,17.86,,s,u,',
        "MobileViT,XS,256,,,iPhone 14 (iOS 16),Neural Engine,1.5,,s,u,",
        "MobileViT,MobileViT-S attention = separable,256,,,iPhone 12,unspecified,3.4,,s,u,",
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    rebuilt = script()._from_csv(path)
    assert rebuilt.values == pytest.approx(stored.values, rel=1e-4)
    assert [row.latency_ms for row in rebuilt.excluded] == [17.86, 1.5, 3.4]
    assert tuple(rebuilt.coefficients) == FEATURE_NAMES
