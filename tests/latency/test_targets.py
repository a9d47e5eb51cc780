"""The contract of every target, and what the issue claims of `iphone12`."""

import subprocess
import sys
import timeit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage, operators, preset
from mvit_search.architecture.ops import parts
from mvit_search.architecture.rows import Rows
from mvit_search.errors import UnknownNameError
from mvit_search.latency import (
    CpuOnnxRuntime,
    CpuTorchRuntime,
    Latency,
    MeasuredTarget,
    PredictedTarget,
    Target,
    load_target,
    target_names,
)
from mvit_search.latency.features import (
    BALANCE,
    COEFFICIENT_UNITS,
    FEATURE_NAMES,
    OPERATOR_CLASSES,
    features,
    features_of_network,
    features_of_operators,
)
from tests.latency.networks import SHORT

IPHONE12 = load_target("iphone12")
assert isinstance(IPHONE12, PredictedTarget)


def with_patches(name: str, *sides: int) -> MobileViTConfig:
    """A preset with square patches of these sides in its MobileViT stages."""
    convolutions = [stage for stage in preset(name).stages if isinstance(stage, ConvStage)]
    blocks = [stage for stage in preset(name).stages if isinstance(stage, MobileViTStage)]
    patched = [change(stage, patch_h=side, patch_w=side) for stage, side in zip(blocks, sides, strict=True)]
    return MobileViTConfig(stages=(*convolutions, *patched))


def change(stage: MobileViTStage, **values: object) -> MobileViTStage:
    return MobileViTStage.model_validate({**stage.model_dump(), **values})


def quick(name: str) -> Target:
    """The target, with a short protocol where it measures."""
    runtimes = {"cpu-torch": CpuTorchRuntime, "cpu-onnx": CpuOnnxRuntime}
    return MeasuredTarget(runtimes[name](threads=1, timing=SHORT)) if name in runtimes else load_target(name)


def test_apples_devices_are_targets_too() -> None:
    """tests/latency/test_runtimes.py has their contract: they cannot be loaded here."""
    assert {"mac", "mac:ane", "mac:gpu", "mac:cpu", "iphone"} <= set(target_names())


@pytest.mark.parametrize("name", [name for name in target_names() if name.split(":")[0] not in ("mac", "iphone")])
def test_every_target_gives_value_interval_and_source(name: str) -> None:
    assert load_target(name).name == name
    target = quick(name)
    # A phone is predicted in no time; this machine takes a small image.
    config = preset("mobilevit-xxs").with_image_size(64 if target.measured else 256)
    latency = target.latency(config, num_classes=10)
    assert isinstance(latency, Latency)
    assert 0 < latency.low_ms <= latency.ms <= latency.high_ms < float("inf")
    assert latency.target == name
    assert latency.protocol
    assert latency.source.startswith("measured: " if target.measured else f"predicted: {name}")
    assert target.calibration.startswith(name)
    assert target.calibration == quick(name).calibration


def test_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'iphone12'\?"):
        load_target("iphone-12")
    with pytest.raises(UnknownNameError):
        load_target("../targets/iphone12")


def test_prediction_states_its_left_out_error() -> None:
    source = IPHONE12.latency(preset("mobilevit-xxs")).source
    assert source.startswith("predicted: iphone12 calibration 20")
    assert "leave-one-out MAPE" in source


def test_prediction_at_another_size_than_the_fitted_rows_says_so() -> None:
    assert {row.image_size for row in IPHONE12.file.rows if row.in_family} == {(256, 256), (384, 384)}
    at_256 = IPHONE12.latency(preset("mobilevit-s"))
    assert "extrapolated" not in at_256.source
    at_64 = IPHONE12.latency(preset("mobilevit-s").with_image_size(64))
    assert at_64.source == f"{at_256.source} at 256 px; extrapolated to 64x64 px, error unknown"
    wide = preset("mobilevit-s").model_copy(update={"image_size": (256, 128)})
    assert IPHONE12.latency(wide).source.endswith("at 256 px; extrapolated to 256x128 px, error unknown")


def test_predicting_stays_under_a_few_milliseconds() -> None:
    config = preset("mobilevit-s").with_image_size(64)
    assert min(timeit.repeat(lambda: IPHONE12.latency(config), number=1, repeat=20)) < 5e-3


def test_presets_are_ordered() -> None:
    xxs, xs, s = (IPHONE12.latency(preset(f"mobilevit-{size}")).ms for size in ("xxs", "xs", "s"))
    assert xxs < xs < s


@pytest.mark.parametrize("name", ["mobilevit-xxs", "mobilevit-xs", "mobilevit-s"])
def test_patches_842_below_222_below_333(name: str) -> None:
    patches = ((8, 4, 2), (2, 2, 2), (3, 3, 3))
    large, paper, resized = (IPHONE12.latency(with_patches(name, *sides)).ms for sides in patches)
    assert large < paper < resized


def test_predicting_loads_no_torch_and_no_scipy() -> None:
    code = (
        "import sys; from mvit_search.latency import load_target, target_names\n"
        "from mvit_search.architecture import preset\n"
        "assert load_target('cpu').calibration and target_names()\n"
        "load_target('iphone12').latency(preset('mobilevit-s'))\n"
        "heavy = {'torch', 'scipy', 'numpy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@st.composite
def mobilevit_stages(draw: st.DrawFn) -> MobileViTStage:
    heads = draw(st.sampled_from([1, 2, 4, 8]))
    return MobileViTStage(
        out_channels=draw(st.integers(8, 200)),
        stride=draw(st.sampled_from([1, 2])),
        expand_ratio=draw(st.sampled_from([1.0, 2.0, 3.5, 6.0])),
        transformer_dim=heads * draw(st.integers(1, 40)),
        num_layers=draw(st.integers(1, 6)),
        num_heads=heads,
        ffn_ratio=draw(st.sampled_from([1.0, 2.0, 4.0])),
        patch_h=draw(st.integers(1, 8)),
        patch_w=draw(st.integers(1, 8)),
        conv_kernel_size=draw(st.sampled_from([1, 3, 5, 7])),
        fusion=draw(st.booleans()),
    )


@st.composite
def configs(draw: st.DrawFn) -> MobileViTConfig:
    conv = st.builds(
        ConvStage, out_channels=st.integers(8, 96), num_blocks=st.integers(1, 4),
        stride=st.sampled_from([1, 2]), expand_ratio=st.sampled_from([1.0, 2.0, 4.0]),
    )  # fmt: skip
    side = draw(st.integers(2, 10)) * 32
    before, blocks = draw(st.lists(conv, max_size=2)), draw(st.lists(mobilevit_stages(), min_size=1, max_size=3))
    return MobileViTConfig(image_size=(side, side), stages=(*before, *blocks))


@settings(deadline=None, max_examples=60)
@given(configs())
def test_any_network_has_a_positive_finite_latency(config: MobileViTConfig) -> None:
    latency = IPHONE12.latency(config)
    assert 0 < latency.low_ms < latency.ms < latency.high_ms < float("inf")


def larger(stage: MobileViTStage, knob: str) -> MobileViTStage:
    step = {
        "num_layers": stage.num_layers + 1,
        "transformer_dim": stage.transformer_dim + stage.num_heads,
        "ffn_ratio": stage.ffn_ratio + 0.5,
        "conv_kernel_size": stage.conv_kernel_size + 2,
        "out_channels": stage.out_channels + 8,
        "expand_ratio": stage.expand_ratio + 0.5,
    }
    return change(stage, **{knob: step[knob]})


@settings(deadline=None, max_examples=120)
@given(
    configs(),
    st.integers(1, 3),
    st.sampled_from(["num_layers", "transformer_dim", "ffn_ratio", "conv_kernel_size", "out_channels", "expand_ratio"]),
)
def test_more_is_never_faster(config: MobileViTConfig, from_last: int, knob: str) -> None:
    stages = list(config.stages)
    index = max(len(stages) - from_last, 0)
    stage = stages[index]
    assume(isinstance(stage, MobileViTStage))
    assert isinstance(stage, MobileViTStage)
    stages[index] = larger(stage, knob)
    bigger = MobileViTConfig(image_size=config.image_size, stages=tuple(stages))
    assert IPHONE12.latency(bigger).ms >= IPHONE12.latency(config).ms * (1 - 1e-12)


def test_what_no_row_has_is_named() -> None:
    def source(config: MobileViTConfig) -> str:
        return IPHONE12.latency(config).source

    second = preset("mobilevitv2-1.0")
    assert "fitted" not in source(second)
    assert "fitted" not in source(preset("mobilevitv2-2.0").with_image_size(384))
    # The one row at 384 px is a MobileViTv2: it vouches for no softmax attention there.
    assert source(preset("mobilevit-s").with_image_size(384)).endswith(
        "at 256 px; extrapolated to 384x384 px, error unknown"
    )
    last = change(second.stages[-1], fusion=True)
    fused = second.model_copy(update={"stages": (*second.stages[:-1], last)})
    assert source(fused).endswith("no fitted row has fusion around separable attention, error unknown")
    mixed = second.model_copy(update={"stages": (*second.stages[:-1], preset("mobilevit-s").stages[-1])})
    assert source(mixed).endswith("no fitted row has softmax and separable attention together, error unknown")
    plain = MobileViTConfig(stages=preset("mobilevit-s").stages[:2])
    assert "on 100 networks" in source(plain)  # the other families', of which most have no attention


def test_where_a_prediction_extrapolates_its_interval_is_no_narrower_than_other_families() -> None:
    known, strange = (IPHONE12.latency(preset("mobilevit-s").with_image_size(side)) for side in (256, 64))
    assert strange.high_ms / strange.ms > known.high_ms / known.ms
    assert strange.high_ms / strange.ms == pytest.approx(IPHONE12.file.interval.ratio)


def test_wider_is_not_faster_where_the_residual_sum_goes() -> None:
    """From 16 to 24 channels the first stage loses its residual, and its sum."""
    config = preset("mobilevit-xxs")
    wider = ConvStage.model_validate({**config.stages[0].model_dump(), "out_channels": 24})
    grown = MobileViTConfig(stages=(wider, *config.stages[1:]))
    assert IPHONE12.latency(grown).ms > IPHONE12.latency(config).ms


def test_a_network_outside_the_family_is_not_far_off() -> None:
    """MobileNetV2-1.0 at 224 px is published at 0.92 ms."""
    sizes = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    stages = tuple(
        ConvStage(out_channels=channels, num_blocks=blocks, stride=stride, expand_ratio=float(ratio))
        for ratio, channels, blocks, stride in sizes
    )
    config = MobileViTConfig(image_size=(224, 224), stem_channels=32, activation="relu", stages=stages)
    assert 0.92 / 1.5 < IPHONE12.latency(config).ms < 0.92 * 1.5


def test_features_of_mobilevit_s() -> None:
    """By hand: attention maps are 1024, 256, 64 pixels in patches of 4 pixels, 4 heads, 2, 4 and 3 layers."""
    found = features(parts(preset("mobilevit-s")))
    # Written, read and written by the softmax, and read: four passes over the scores of every layer. On the smallest
    # map there are fewer tokens (16) than channels a head (60), and the queries are the larger matrix of a product.
    layers = ((2, 1024, 36), (4, 256, 48), (3, 64, 60))
    scores = sum(
        number * 4 * 4 * (2 * (pixels // 4) ** 2 + 2 * (pixels // 4) * max(pixels // 4, per_head))
        for number, pixels, per_head in layers
    )
    assert found.batched_score_mib == pytest.approx(scores * 2 / 2**20)
    assert found.score_mib == 0
    assert found.networks == 1
    assert found.uneven_resizes == 0
    assert features(parts(with_patches("mobilevit-s", 3, 3, 3))).uneven_resizes == 6
    large = features(parts(with_patches("mobilevit-s", 8, 4, 2)))
    assert large.silu_mib == pytest.approx(found.silu_mib)
    assert large.batched_score_mib < found.batched_score_mib


def test_a_convolution_counts_by_what_bounds_it() -> None:
    """A roofline: 1x1 from 256 to 256 channels is bound by arithmetic, a depthwise one by what it moves."""

    def work(groups: int) -> tuple[float, float, float]:
        rows = Rows(((256, 32, 32),))
        rows.conv("conv", -1, 256, groups=groups)
        (op,) = rows.ops
        moved_mib = 2 * (op.read + op.elements) / 2**20
        return features_of_operators(rows.ops).conv_work_gmacs, op.macs / 1e9, BALANCE * moved_mib

    dense, dense_gmacs, dense_moved = work(1)
    assert dense == pytest.approx(dense_gmacs)
    assert dense > dense_moved
    thin, thin_gmacs, thin_moved = work(256)
    assert thin == pytest.approx(thin_moved)
    assert thin > thin_gmacs


@settings(deadline=None, max_examples=40)
@given(configs())
def test_sums_over_parts_are_sums_over_the_table(config: MobileViTConfig) -> None:
    ops = operators(config)
    assert features(parts(config)) == pytest.approx(features_of_network(ops))
    explained = IPHONE12.ms_of_operators(ops) + IPHONE12.fixed_ms
    assert IPHONE12.latency(config).ms == pytest.approx(explained)
    assert sum(IPHONE12.ms_by_feature(ops)) == pytest.approx(IPHONE12.ms_of_operators(ops))


def test_every_feature_is_in_one_class() -> None:
    classes = [name for names in OPERATOR_CLASSES.values() for name in names]
    assert sorted(classes) == sorted(FEATURE_NAMES)
    assert set(COEFFICIENT_UNITS) == set(FEATURE_NAMES)


@pytest.mark.parametrize("name", ["iphone12", "iphone13", "iphone14"])
def test_presets_are_predicted_near_what_was_published(name: str) -> None:
    """Inside the interval, where the row is no fallback."""
    target = load_target(name)
    assert isinstance(target, PredictedTarget)
    for row in target.file.rows:
        if row.config and not row.fallback and row.config.image_size == (256, 256):
            latency = target.latency(row.config)
            assert latency.low_ms <= row.latency_ms <= latency.high_ms, row.network
