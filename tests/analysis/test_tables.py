import pytest

from mvit_search._quantities import format_count
from mvit_search.analysis import (
    baseline_table,
    candidate_points,
    front_table,
    latency_source,
    read_document,
    seed_noise,
    verdict,
)
from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError
from mvit_search.profile import cost
from tests.run_fixtures import make_document, make_record

XXS, XS, S = (PRESETS[f"mobilevit-{size}"] for size in ("xxs", "xs", "s"))
FOUND = [XXS.model_copy(update={"stem_channels": channels}) for channels in (17, 18, 19)]


def document(*candidates, xs_top1=0.90, seeds=3, std=0.006, **options):
    """XS at 7 ms beside `candidates` = (latency_ms, top1)."""
    records = [
        make_record(0, XS, name="mobilevit-xs", top1=xs_top1, std=std, seeds=seeds, latency_ms=7.0),
        *(
            make_record(number, config, top1=top1, std=std, seeds=seeds, latency_ms=ms)
            for number, (config, (ms, top1)) in enumerate(zip(FOUND, candidates, strict=False), start=1)
        ),
    ]
    return make_document("demo", records, **options)


def test_cells_are_what_a_person_reads():
    table = front_table(document((6.3, 0.934)))
    assert table.columns[0] == "Reference"
    (row,) = table.rows
    assert row[0] == "demo/1"
    assert (row[1], row[2]) == ("1.27M", format_count(cost(FOUND[0]).macs))
    assert row[4] == "6.3 ms [5.6, 7.1]"
    assert row[5] == "93.4 % ± 0.6 (3 seeds)"
    assert all(len(cells) == len(table.columns) for cells in table.rows)
    assert set(table.left) <= set(table.columns)


def test_a_single_seed_has_no_spread():
    assert front_table(document((6.0, 0.934), seeds=1)).rows[0][5] == "93.4 % (1 seed)"


def test_a_preset_over_the_budget_has_costs_and_no_accuracy():
    table = baseline_table(document((6.0, 0.93), over_budget=["mobilevit-s"]))
    cells = table.rows[-1]
    assert (cells[0], cells[1], cells[5], cells[6]) == ("MobileViT-S", "5.58M", "–", "preset, over budget")


@pytest.mark.parametrize(
    ("top1", "says", "beats"),
    [
        (0.930, "beats MobileViT-XS by 3.0 points", ("MobileViT-XS",)),
        (0.905, "indistinguishable from MobileViT-XS, 1.0 ms faster", ()),
        (0.895, "indistinguishable from MobileViT-XS, 1.0 ms faster", ()),
        (0.850, "–", ()),
    ],
)
def test_a_point_beats_a_preset_only_by_more_than_the_seed_noise(top1, says, beats):
    entry = front_table(document((6.0, top1))).entries[0]
    assert entry.cells[-1] == says
    assert entry.beats == beats


def test_a_slower_point_beats_nothing():
    entry = front_table(document((7.5, 0.99))).entries[-1]
    assert (entry.cells[-1], entry.beats) == ("–", ())


def test_the_noise_is_pooled_over_rows_with_several_seeds():
    noise = seed_noise(read_document(document((6.0, 0.93), std=0.006)))
    assert noise is not None
    # Two rows of three seeds each; the preset on the front counts once.
    assert (noise.std, noise.degrees) == (pytest.approx(0.006), 4)
    assert seed_noise(read_document(document((6.0, 0.93), seeds=1))) is None


def test_fewer_seeds_need_a_larger_difference():
    def standing(seeds):
        rows = document((6.0, 0.914))
        rows["front"][0] |= {"top1_by_seed": {str(n): 0.914 for n in range(seeds)}, "top1_std": None}
        return front_table(rows).entries[0].cells[-1]

    # 1.4 points; of three seeds beside three 4.30 * 0.6 * sqrt(2/3) = 2.1 points of two degrees; one beside three 3.0.
    assert standing(3).startswith("indistinguishable")
    assert standing(1).startswith("indistinguishable")
    sure = document((6.0, 0.925))
    sure["front"][0]["top1_by_seed"] = {"0": 0.925}
    assert standing(3) == standing(1)
    assert front_table(sure).entries[0].beats == ("MobileViT-XS",)


def test_the_verdict_counts_and_says_how_many_differences_are_sure():
    text = verdict(document((5.0, 0.905), (6.0, 0.93)))
    assert "2 of 2 front points are more accurate than MobileViT-XS at equal or lower predicted latency" in text
    assert "1 of the 2 differences is larger than the seed noise (1.2 points)" in text
    assert "demo/1) takes predicted 5.0 ms against predicted 7.0 ms" in text


def test_the_verdict_admits_that_nothing_is_better():
    text = verdict(document((5.0, 0.80), (7.0, 0.90 + 1e-9)))
    assert "indistinguishable" in text or "no larger" in text
    assert verdict(document((5.0, 0.80))).startswith("MobileViT-XS is on the front itself: nothing found is as fast")


def test_the_verdict_claims_nothing_from_one_seed():
    text = verdict(document((6.0, 0.99), seeds=1))
    assert "not known whether" in text
    assert "larger than" not in text
    entry = front_table(document((6.0, 0.99), seeds=1)).entries[0]
    assert (entry.beats, entry.cells[-1]) == ((), "9.0 points above MobileViT-XS, spread unknown")


def test_the_verdict_without_front_or_presets():
    assert "no front yet" in verdict(make_document("demo", []))
    assert "No preset was evaluated" in verdict(make_document("demo", [make_record(0, FOUND[0])]))
    only_over = make_document("demo", [make_record(0, FOUND[0])], over_budget=["mobilevit-s"])
    assert verdict(only_over) == "MobileViT-S breaks the budget and was not trained."


def test_the_most_accurate_point_that_is_level_with_a_faster_one_is_called_so():
    text = verdict(document((5.0, 0.929), (6.5, 0.93)))
    said = "The most accurate point (demo/2, predicted 6.5 ms) is indistinguishable in accuracy from demo/1"
    assert f"{said} at predicted 5.0 ms." in text


def test_measured_latency_is_called_measured():
    source = "measured: cpu, torch 2.13.0, 1 threads, median of 50"
    records = [
        make_record(0, XS, name="mobilevit-xs", top1=0.9, seeds=2, latency_ms=7, source=source, target="cpu"),
        make_record(1, FOUND[0], top1=0.95, seeds=2, latency_ms=6, source=source, target="cpu"),
    ]
    document = make_document("demo", records, target="cpu") | {"latency_measured": True}
    assert "at equal or lower measured latency" in verdict(document)


@pytest.mark.parametrize(("measured", "title"), [(True, "Latency (measured)"), (False, "Latency (predicted)")])
def test_the_latency_column_says_how_it_is_known(measured, title):
    written = document((6.3, 0.934)) | {"latency_measured": measured}
    for table in (front_table(written), baseline_table(written)):
        assert table.columns[4] == title
        assert table.left == (table.columns[0], table.columns[-1])


def test_a_document_that_does_not_say_is_taken_at_its_rows_word():
    written = document((6.3, 0.934))
    del written["latency_measured"]
    assert front_table(written).columns[4] == "Latency (predicted)"
    for row in (*written["front"], *written["baselines"]):
        del row["latency_source"]
    assert front_table(written).columns[4] == "Latency"


CPU = "measured: cpu, torch 2.13.0, 2 threads"
PHONE = "predicted: iphone12 calibration 2026-11, leave-one-out MAPE 8.2 %"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ((PHONE, PHONE), PHONE),
        ((f"{CPU}, median of 341", f"{CPU}, median of 20"), f"{CPU}, medians"),
        (
            (
                f"{CPU}, median of 341",
                f"{CPU}, median of 20; drift: the last third of the runs is 9 % slower than the first",
            ),
            f"{CPU}, medians; some with remarks on how steadily they were timed",
        ),
        ((f"{CPU}, median of 341", "measured: gpu"), "measured, the rest differs by row"),
        (
            (PHONE, f"{PHONE} at 256 px; extrapolated to 64x64 px, error unknown"),
            "predicted: iphone12 calibration 2026-11, the rest differs by row",
        ),
        ((PHONE, f"{CPU}, median of 20"), f"{PHONE}; {CPU}, median of 20"),
        ((PHONE, None), f"{PHONE}; unknown source"),
        ((None, None), "unknown source"),
        ((), "unknown source"),
    ],
)
def test_one_phrase_of_source_is_true_of_every_row(sources, said):
    written = make_document("demo", [make_record(n, FOUND[n], latency_ms=5 + n, top1=0.8 + n / 100) for n in (0, 1)])
    for row, source in zip(written["front"], sources, strict=False):
        row["latency_source"] = source
    written["front"] = written["front"][: len(sources)]
    assert latency_source(read_document(written)) == said


def test_a_broken_document_names_the_field():
    broken = document((6.0, 0.93))
    del broken["front"][0]["params"]
    with pytest.raises(InputError, match=r"front document: front\.0\.params"):
        front_table(broken)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("params", 10**400), ("latency_ms", float("nan")), ("latency_ms", "soon"), ("top1", 93.4), ("config", {}),
        ("latency_source", "\ud800"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(key, value):
    broken = document((6.0, 0.93))
    broken["front"][0][key] = value
    with pytest.raises(InputError, match=rf"front document: front\.0\.{key}"):
        front_table(broken)


def test_a_record_of_an_impossible_figure_is_an_input_error():
    with pytest.raises(InputError, match="candidate: params"):
        candidate_points([make_record(0, XS).model_copy(update={"params": 10**400})], "demo")
