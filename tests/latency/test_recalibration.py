"""Calibration on simulated devices: the error falls, the rest of the target stays, and other devices stay apart."""

import json
from dataclasses import replace
from functools import cache
from statistics import median

import numpy as np
import pytest

from mvit_search.architecture import PRESETS, MobileViTConfig, operators
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget, load_target
from mvit_search.latency.calibrating.planning import d_optimal
from mvit_search.latency.calibrating.recalibration import (
    OWN_WEIGHT,
    Recalibration,
    is_same_device,
    own_row,
    paper_of,
    recalibrate,
    require_new_name,
)
from mvit_search.latency.calibrating.results_table import Network, Result, Results
from mvit_search.latency.calibrating.simulation import Hidden, SimulatedDevice, padded_work_gmacs
from mvit_search.latency.calibration import priors_of
from mvit_search.latency.fitting import Array, Problem
from mvit_search.latency.target_file import MEASURED, Row, TargetFile, read_target_file, text_of
from tests.latency.test_planning import pool, pool_features, target

TODAY = "2026-11-24"
BASE = target("iphone14")
IPHONE = SimulatedDevice.near(BASE, 7, device="iPhone 14")
OTHER = SimulatedDevice.near(BASE, 8, Hidden(level=0.7, spread=0.5), device="iPhone 17 Pro")


def measured(device: SimulatedDevice, configs: tuple[MobileViTConfig, ...], system: str = "simulation") -> Results:
    protocol = replace(device.protocol, system=system)
    rows = []
    for number, config in enumerate(configs, start=2):
        ms = device.measured_ms(config)
        network = Network(f"candidate-{config.digest()[:10]}", config, 1000, "paper")
        rows.append(Result(number, network, ms, 0.99 * ms, 1.01 * ms, protocol))
    return Results(tuple(rows), failures=0)


@cache
def planned(count: int) -> tuple[MobileViTConfig, ...]:
    return tuple(pool()[place] for place in d_optimal(pool_features(), BASE, count).chosen)


@cache
def calibrated(count: int = 12) -> Recalibration:
    return recalibrate(BASE, measured(IPHONE, planned(count)), date=TODAY)


def unseen_error(file: TargetFile, device: SimulatedDevice) -> float:
    """Median error (%) on candidates that no design of these tests holds."""
    unseen = [place for place, config in enumerate(pool()) if config not in planned(40)]
    predicted = np.array(pool_features())[unseen] @ np.array(file.values)
    return 100 * float(np.median(np.abs(predicted / true_ms(device)[unseen] - 1)))


def test_a_next_version_predicts_the_device_and_says_so():
    found = calibrated()
    file = found.after
    assert (file.name, file.version, file.based_on) == ("iphone14", 2, BASE.calibration)
    assert unseen_error(BASE, IPHONE) > 10
    assert unseen_error(file, IPHONE) < 3
    assert found.error(lambda row: row.after_ms).mape_percent < 5 < found.error(lambda row: row.before_ms).mape_percent
    assert file.settings.reference_papers == ("measured: iPhone 14 (simulated 7), simulation, simulation, ALL",)
    assert len(file.own_rows) == 12
    assert len(file.rows) == 12 + len(BASE.rows)
    assert file.words.protocol == IPHONE.protocol.words
    source = PredictedTarget(file).latency(pool()[0]).source
    assert source.startswith("predicted: iphone14 calibration 2026-11 v2, leave-one-out MAPE ")
    assert "on 12 MobileViTs" in source


def test_the_stated_error_and_interval_are_of_the_own_rows():
    file = calibrated().after
    assert file.family is not None
    assert (file.family.rows, file.family.papers) == (12, 1)
    assert file.family.errors.network.mape_percent == pytest.approx(
        calibrated().error(lambda row: row.after_ms).mape_percent, abs=0.01
    )
    assert file.interval_of(in_family=True).ratio < BASE.interval_of(in_family=True).ratio
    assert not any(row.fallback for row in file.own_rows)


def test_published_rows_keep_informing_through_their_papers():
    found = calibrated()
    assert found.published_percent is not None
    before, after = found.published_percent
    assert before < 15
    assert after < 2 * before
    assert {effect.paper for effect in found.after.papers if effect.percent == 0} >= {
        paper_of(IPHONE.protocol, "paper")
    }
    assert any(effect.paper == "SwiftFormer" and effect.percent != 0 for effect in found.after.papers)


def test_a_written_file_reads_back_as_a_target(tmp_path):
    path = tmp_path / "iphone14-v2.json"
    path.write_text(text_of(calibrated().after), encoding="utf-8")
    assert read_target_file(path) == calibrated().after
    loaded = load_target(str(path))
    assert (loaded.name, loaded.calibration) == ("iphone14", calibrated().after.calibration)


def test_left_out_rows_do_not_see_themselves():
    results = measured(IPHONE, planned(12))
    rows = list(results.rows)
    ms = 3 * rows[4].latency_ms
    rows[4] = replace(rows[4], latency_ms=ms, low_ms=0.99 * ms, high_ms=1.01 * ms)
    lied = recalibrate(BASE, Results(tuple(rows), 0), date=TODAY)
    assert lied.rows[4].after_ms == pytest.approx(calibrated().rows[4].after_ms, rel=1e-3)


def test_a_row_of_unknown_median_weighs_little():
    results = measured(IPHONE, planned(12))
    rows = [replace(results.rows[0], low_ms=0.2 * results.rows[0].low_ms), *results.rows[1:]]
    weights = [row.weight for row in recalibrate(BASE, Results(tuple(rows), 0), date=TODAY).after.own_rows]
    assert weights[0] < weights[1] / 50


def test_a_preset_among_the_rows_is_left_out_with_its_published_rows():
    configs = (PRESETS["mobilevit-xs"], *planned(6))
    found = recalibrate(BASE, measured(IPHONE, configs), date=TODAY)
    assert found.after.own_rows[0].network == "MobileViT-XS 2,2,2@256"
    assert sum(row.network == "MobileViT-XS 2,2,2@256" for row in found.after.rows) > 1


def test_versions_count_on_and_rows_count_once():
    more = measured(IPHONE, tuple(pool()[:4]))
    third = recalibrate(calibrated().after, more, date=TODAY)
    assert (third.after.version, third.after.based_on) == (3, calibrated().after.calibration)
    assert len(third.after.own_rows) == 16
    with pytest.raises(InputError, match=r"results row 2 .* is in iphone14-2026-11-24-v2-.* already"):
        recalibrate(calibrated().after, measured(IPHONE, planned(12)), date=TODAY)
    updated = recalibrate(calibrated().after, measured(IPHONE, planned(12), system="iOS 99"), date=TODAY).after
    assert len(updated.own_rows) == 12  # of the new system; the others are another paper now
    assert sum(row.paper.startswith(MEASURED) for row in updated.rows) == 24


def test_another_device_makes_another_target_of_own_rows_alone():
    results = measured(OTHER, planned(12))
    with pytest.raises(InputError, match=r"iPhone 17 Pro \(simulated 8\), ALL is not what iphone14 predicts .* --name"):
        recalibrate(BASE, results, date=TODAY)
    found = recalibrate(BASE, results, date=TODAY, name="iphone17")
    file = found.after
    assert (file.name, file.version, len(file.rows), file.excluded) == ("iphone17", 1, 12, ())
    assert found.published_percent is None
    assert unseen_error(file, OTHER) < 4
    assert file.words.device == "iPhone 17 Pro (simulated 8)"
    assert is_same_device(file, OTHER.protocol)
    assert not is_same_device(file, IPHONE.protocol)


def test_published_rows_of_another_device_would_do_harm():
    """The reason for dropping them: five rows, coefficients a factor of two apart."""
    alone, beside = [], []
    for seed in range(12):
        device = SimulatedDevice.near(BASE, seed, Hidden(level=0.7, spread=0.6))
        results = measured(device, planned(5))
        alone.append(refit_error(device, results, ()))
        beside.append(refit_error(device, results, BASE.rows))
    assert median(alone) < median(beside)


def test_devices_are_told_by_model_and_by_kind_of_unit():
    protocol = IPHONE.protocol
    for device, units, same in (
        ("iPhone 14 (iPhone14,7)", "ALL", True),
        ("iPhone 14 (iPhone14,7)", "CPU_AND_NE", True),
        ("iPhone 14 (iPhone14,7)", "CPU_ONLY", False),
        ("iPhone 14 Pro (iPhone15,2)", "ALL", False),
        ("iPhone", "ALL", False),
    ):
        assert is_same_device(BASE, replace(protocol, device=device, compute_units=units)) is same


def test_too_few_networks_are_refused():
    with pytest.raises(InputError, match="at least 4 networks"):
        recalibrate(BASE, measured(IPHONE, planned(3)), date=TODAY)
    with pytest.raises(InputError, match="at least 4 networks"):
        recalibrate(BASE, measured(IPHONE, planned(1) * 4), date=TODAY)


@pytest.mark.parametrize("name", ["iphone12", "cpu-torch", "My Phone", "", "a/b", "-x"])
def test_names_that_a_target_cannot_have_are_refused(name):
    with pytest.raises(InputError, match="--name"):
        require_new_name(name)


def test_a_simulated_device_is_the_same_each_time_and_has_a_cost_that_no_feature_counts():
    again = SimulatedDevice.near(BASE, 7, device="iPhone 14")
    assert again == IPHONE
    assert again.measured_ms(planned(1)[0]) == IPHONE.measured_ms(planned(1)[0])
    assert true_ms(IPHONE)[3] == pytest.approx(IPHONE.true_ms(pool()[3]))
    plain = replace(IPHONE, hidden=Hidden(padding=0))
    hidden = [IPHONE.true_ms(config) / plain.true_ms(config) - 1 for config in pool()[:30]]
    assert 0.01 < median(hidden) < 0.1
    assert json.dumps(IPHONE.protocol.words)


def refit_error(device: SimulatedDevice, results: Results, published: tuple[Row, ...]) -> float:
    """Median error (%) on unseen candidates of the fit alone, which is what takes least time."""
    weight, paper = OWN_WEIGHT / BASE.settings.family_weight, "measured: x"
    rows = [own_row(result, paper, weight, result.network.name) for result in results.rows]
    settings = BASE.settings.model_copy(update={"reference_papers": (paper,)})
    problem = Problem([*published, *rows], priors_of(BASE), settings)
    taken = {result.network.config for result in results.rows}
    unseen = [place for place, config in enumerate(pool()) if config not in taken]
    predicted = np.array(pool_features())[unseen] @ problem.fit(problem.everything).coefficients
    return 100 * float(np.median(np.abs(predicted / true_ms(device)[unseen] - 1)))


def true_ms(device: SimulatedDevice) -> Array:
    """`device.true_ms` of the whole pool."""
    own, padding = device.coefficients, np.array(pool_padding())
    modelled = np.array(pool_features()) @ np.array(own)
    return np.asarray(modelled + device.hidden.padding * own.conv_work_gmacs * padding)


@cache
def pool_padding() -> tuple[float, ...]:
    return tuple(padded_work_gmacs(operators(config, 1000)) for config in pool())


@cache
def curve(kind: str) -> dict[int, float]:
    """Median error (%) over twelve devices, by number of measured candidates."""
    errors: dict[int, list[float]] = {count: [] for count in (5, 10, 20, 40)}
    for seed in range(12):
        device = SimulatedDevice.near(BASE, 100 + seed)
        order = np.random.default_rng(seed).permutation(len(pool())).tolist()
        configs = planned(40) if kind == "optimal" else tuple(pool()[place] for place in order[:40])
        results = measured(device, configs)
        for count, found in errors.items():
            found.append(refit_error(device, Results(results.rows[:count], 0), BASE.rows))
    return {count: median(found) for count, found in errors.items()}


def test_the_error_falls_with_the_number_of_measured_candidates():
    errors = curve("optimal")
    assert errors[40] < errors[5] / 1.5
    assert errors[10] < 1.1 * errors[5]
    assert errors[20] < 1.1 * errors[10]
    assert errors[40] < 1.1 * errors[20]


def test_a_design_is_better_than_chance():
    chosen, chance = curve("optimal"), curve("random")
    assert sum(chosen[count] for count in chosen) < sum(chance[count] for count in chance)
    assert chosen[5] < chance[5]
