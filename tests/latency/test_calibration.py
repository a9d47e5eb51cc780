"""The stored targets are what their own rows give, and broken files are refused by field."""

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mvit_search.latency
from mvit_search.architecture import MobileViTStage, operators
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget
from mvit_search.latency.calibration import FALLBACK_RATIO, calibrate, priors_of, refit
from mvit_search.latency.features import FEATURE_NAMES, features_of_network
from mvit_search.latency.networks import published_networks
from mvit_search.latency.target_file import Row, TargetFile, read_target_file, text_of

TARGETS = sorted((Path(mvit_search.latency.__file__).parent / "targets").glob("iphone*.json"))
IPHONE12, IPHONE13, IPHONE14 = TARGETS
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fit_latency.py"
every_target = pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_latency", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_target
def test_refit_gives_what_the_file_says(path: Path) -> None:
    stored = read_target_file(path)
    again = refit(stored)
    assert again.values == pytest.approx(stored.values, rel=1e-3, abs=1e-6)
    assert again.version == stored.version
    assert again.excluded == stored.excluded
    for group in ("family", "all"):
        found, expected = getattr(again, group).errors, getattr(stored, group).errors
        for left_out in ("network", "model", "series", "paper"):
            assert getattr(found, left_out).mape_percent == pytest.approx(
                getattr(expected, left_out).mape_percent, rel=1e-2
            )
    assert again.interval.ratio == pytest.approx(stored.interval.ratio, rel=1e-2)
    for row, before in zip(again.rows, stored.rows, strict=True):
        assert row.network_left_out_ms == pytest.approx(before.network_left_out_ms, rel=1e-2)


@every_target
def test_rows_state_their_source_and_the_features_of_their_network(path: Path) -> None:
    networks = published_networks()
    for row in read_target_file(path).rows:
        assert row.source
        assert row.paper
        assert row.digitised == (row.weight < 1)
        ops = operators(row.config) if row.config else networks[row.network].ops
        assert row.amounts == pytest.approx(features_of_network(ops), rel=1e-4)
        assert row.gmacs == pytest.approx(sum(op.macs for op in ops) / 1e9, rel=1e-4)


@every_target
def test_intervals_hold_what_they_say(path: Path) -> None:
    """An 80 % interval holds 70 to 90 % of the rows it did not see."""
    file = read_target_file(path)
    assert 70 <= file.interval.coverage_percent <= 90
    assert 70 <= file.interval.coverage_with_fallbacks_percent <= 90
    if file.family_interval:
        assert 70 <= file.family_interval.coverage_percent <= 90


def test_iphone12_reaches_its_goals_on_networks_it_did_not_see() -> None:
    file = read_target_file(IPHONE12)
    assert file.family is not None
    assert file.family.errors.network.mape_percent <= 8
    assert file.family.errors.kendall_tau >= 0.9
    assert file.all.errors.network.median_percent <= 15
    for group in (file.family, file.all):
        for baseline in (group.macs_only, group.macs_and_weights):
            assert group.errors.network.mape_percent < baseline.network.mape_percent / 2
            assert group.errors.paper.mape_percent < baseline.paper.mape_percent / 2


@pytest.mark.parametrize("path", [IPHONE13, IPHONE14], ids=["iphone13", "iphone14"])
def test_an_a15_is_fitted_apart_and_reaches_the_goal_for_mixed_networks(path: Path) -> None:
    file = read_target_file(path)
    assert file.all.errors.network.median_percent <= 15
    device = "iPhone 13" if path == IPHONE13 else "iPhone 14"
    assert all(row.device.startswith(device) for row in file.rows)


def test_iphone12_rows_of_the_family() -> None:
    rows = [row for row in read_target_file(IPHONE12).rows if row.in_family]
    first = sorted(row.latency_ms for row in rows if row.series == "MobileViT")
    assert first == [4.8, 5.93, 7.2, 7.28, 7.3, 8.2, 9.85, 9.9, 14.69]
    second = {row.latency_ms: row.image_size[0] for row in rows if row.series == "MobileViTv2"}
    assert second == {1.6: 256, 3.4: 256, 3.8: 256, 5.1: 256, 7.5: 256, 17.0: 384}
    assert {row.latency_ms for row in rows if row.digitised} == {7.2, 7.3}


def test_what_is_kept_out_has_its_reason() -> None:
    file = read_target_file(IPHONE12)
    reasons = {row.latency_ms: row.reason for row in file.excluded}
    assert reasons[17.86] == "another compute unit"
    assert "head" in reasons[32.3]
    assert all(row.source and row.reason for row in file.excluded)


def test_fallbacks_are_named() -> None:
    """ShuffleNetV2 2.0x takes 1.08 ms in one paper and 19.9 ms in another's conversion."""
    rows = [row for row in read_target_file(IPHONE12).rows if row.model == "tv.shufflenet_v2_x2_0"]
    assert {row.latency_ms: row.fallback for row in rows} == {1.08: False, 19.9: True, 16.9: True}
    for row in read_target_file(IPHONE13).rows:
        assert row.fallback == (row.latency_ms > FALLBACK_RATIO * row.network_left_out_ms)


def test_predictor_agrees_with_the_fit() -> None:
    target = PredictedTarget.load(IPHONE12)
    for row in target.file.rows:
        if row.config:
            assert target.latency(row.config).ms == pytest.approx(row.fitted_ms, rel=1e-4)


def with_latency(file: TargetFile, network: str, ms: float) -> TargetFile:
    rows = [row.bare() for row in file.rows]
    lied = [row.model_copy(update={"latency_ms": ms}) if row.network == network else row for row in rows]
    return calibrate(lied, (), priors_of(file), file.settings, file.words, date=file.date)


def test_left_out_rows_do_not_see_themselves() -> None:
    """A row that lies moves its own fit and not its own left-out prediction."""
    file = read_target_file(IPHONE14)
    network = next(row.network for row in file.rows if row.model == "MobileViT-XS")
    lied = with_latency(file, network, 3.0)
    for before, after in zip(file.rows, lied.rows, strict=True):
        if before.network == network:
            assert after.network_left_out_ms == pytest.approx(before.network_left_out_ms, rel=1e-3)
            assert after.fitted_ms > 1.02 * before.fitted_ms


def test_a_row_that_nothing_explains_hardly_moves_the_others() -> None:
    file = read_target_file(IPHONE14)
    network = next(row.network for row in file.rows if row.model == "resnet50")
    lied = with_latency(file, network, 190.0)
    for before, after in zip(file.rows, lied.rows, strict=True):
        if before.network != network:
            assert after.fitted_ms == pytest.approx(before.fitted_ms, rel=0.1)
        else:
            assert after.fallback


def test_a_papers_factor_is_found() -> None:
    """Every latency of one paper doubled: the paper's factor takes most of it, the coefficients little."""
    file = read_target_file(IPHONE12)
    rows = [row.bare() for row in file.rows]
    doubled = [
        row.model_copy(update={"latency_ms": 1.2 * row.latency_ms}) if row.paper == "FastViT" else row for row in rows
    ]
    after = calibrate(doubled, (), priors_of(file), file.settings, file.words, date=file.date)
    effect = {paper.paper: paper.percent for paper in after.papers}
    assert effect["FastViT"] > next(paper.percent for paper in file.papers if paper.paper == "FastViT") + 8
    assert effect["MobileViT"] == effect["MobileViTv2"] == 0


def test_more_rows_make_the_next_version() -> None:
    file = read_target_file(IPHONE14)
    measured = file.rows[0].bare().model_copy(update={"paper": "measured here"})
    after = refit(file, [measured], date="2026-12-01")
    assert after.version == file.version + 1
    assert after.based_on == file.calibration
    assert after.calibration.startswith("iphone14-2026-12-01-v2-")
    assert len(after.rows) == len(file.rows) + 1


def test_too_few_rows_are_refused() -> None:
    file = read_target_file(IPHONE12)
    rows: list[Row] = [file.rows[0].bare()] * 5
    with pytest.raises(InputError, match="four networks"):
        calibrate(rows, (), priors_of(file), file.settings, file.words, date=file.date)


def test_calibration_id_follows_the_coefficients(tmp_path: Path) -> None:
    document = json.loads(IPHONE12.read_text(encoding="utf-8"))
    before = read_target_file(IPHONE12).calibration
    document["coefficients"]["conv_work_gmacs"]["value"] += 0.01
    assert read_target_file(written(tmp_path, document)).calibration != before
    document["coefficients"]["conv_work_gmacs"]["value"] -= 0.01
    document["words"]["limits"] = "other words"
    assert read_target_file(written(tmp_path, document)).calibration == before


def test_a_file_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "iphone14-v2.json"
    path.write_text(text_of(read_target_file(IPHONE14)), encoding="utf-8")
    assert read_target_file(path) == read_target_file(IPHONE14)
    assert path.read_text(encoding="utf-8") == IPHONE14.read_text(encoding="utf-8")


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
        (edit("format", value=1), "iphone12.json: format 1"),
        (edit("coefficients", "conv_work_gmacs", "value", value=-0.1), "coefficients.conv_work_gmacs.value -0.1"),
        (edit("coefficients", "conv_work_gmacs", "value", value="1"), "coefficients.conv_work_gmacs.value '1'"),
        (edit("coefficients", "conv_work_gmacs", "unit", value="s per MAC"), "must have the unit 'ms per 1e9 MACs'"),
        (edit("coefficients", "networks", "value", value=0.0), "networks must be above zero"),
        (edit("coefficients", value={}), "coefficients must be networks"),
        (edit("date", value="2026-13-01"), "month must be in 1..12"),
        (edit("words", "name", value="iphone11"), "must begin the file's name"),
        (edit("rows", 0, "config", "stem_channels", value=0), "stem_channels 0"),
        (edit("rows", 0, "amounts", value=[1.0]), "amounts must be 15 numbers"),
        (edit("rows", 0, "latency_ms", value=0), "rows.0.latency_ms 0"),
        (edit("interval", "ratio", value=0.9), "interval.ratio 0.9"),
        (edit("methods", value="x"), "methods"),
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


def test_script_prints_rows_and_ratios(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fit_latency.py", "--quick", "--rows"])
    script().main()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("MobileViT-", "MobileViTv2-")) for line in lines) == 15 + 3 + 4
    ratios = {line.split()[1].rstrip(":"): float(line.split()[2]) for line in lines if line.startswith("ratio ")}
    assert len(ratios) == 12
    assert ratios["iphone12-mobilevit-left-out-mape-vs-macs"] > 2


def test_script_rebuilds_rows_from_a_published_table(tmp_path: Path) -> None:
    """A table in the published form, made of the stored rows and some that must stay out."""
    stored = read_target_file(IPHONE14)
    networks = published_networks()
    fields = (
        "model",
        "variant",
        "resolution",
        "device",
        "compute_units",
        "latency_ms",
        "source",
        "url_or_path",
        "note",
    )
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, fields)
        table.writeheader()
        for row in stored.rows:
            known = networks[row.network].published_as[0] if not row.config else (row.series, variant(row))
            values = (*known, row.image_size[0], row.device, row.compute_units, row.latency_ms)
            table.writerow(dict(zip(fields, (*values, row.source, row.url, row.note), strict=True)))
        for device, units, ms in (("iPhone 14", "CPU", "17.86"), ("iPhone 12", "ALL", "1.5"), ("iPhone 14", "ALL", "")):
            values = ("MobileViT", "XS", 256, device, units, ms, "a source", "", "")
            table.writerow(dict(zip(fields, values, strict=True)))
        table.writerow(dict(zip(fields, ("Nobody", "1", 224, "iPhone 14", "ALL", 1, "s", "", ""), strict=True)))
    rebuilt = script().from_csv("iphone14", path)
    assert rebuilt.values == pytest.approx(stored.values, rel=1e-4, abs=1e-6)
    reasons = [row.reason for row in rebuilt.excluded]
    assert reasons[:2] == ["another compute unit", "no latency reported"]
    assert "no public definition" in reasons[2]
    assert tuple(rebuilt.coefficients) == FEATURE_NAMES


def variant(row: Any) -> str:
    patches = ",".join(str(stage.patch_h) for stage in row.config.stages if isinstance(stage, MobileViTStage))
    return f"{row.model.rpartition('-')[2]} ({patches})"
