"""Core ML conversion: real ones by coremltools, which writes programs on Linux too and runs them nowhere here."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch

from mvit_search import __version__
from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, MobileViTStage, neural_engine, operators
from mvit_search.architecture.random_weights import random_network
from mvit_search.errors import InputError, UnknownNameError, WorkError
from mvit_search.latency import coreml
from mvit_search.latency.coreml import LAYOUT_OPERATORS, ConversionSettings, Converted, convert, write_package
from tests.latency import mil_interpreter

TINY = MobileViTConfig(
    image_size=(32, 48),
    stem_channels=8,
    stages=(
        ConvStage(out_channels=8, expand_ratio=2, stride=2),
        MobileViTStage(out_channels=8, transformer_dim=12, num_heads=3, num_layers=1, expand_ratio=2),
    ),
)
TINY_V2 = TINY.model_copy(
    update={"stages": (MobileViTStage(out_channels=8, transformer_dim=8, num_layers=1, attention="separable"),)}
)
CLASSES = 5
SPECIFICATION = {"iOS15": 6, "iOS16": 7, "iOS17": 8, "iOS18": 9}


def settings(**values: Any) -> ConversionSettings:
    return ConversionSettings(**{"num_classes": CLASSES, **values})


def types(converted: Converted) -> Counter[str]:
    """How often the program has each operator type, constants apart."""
    operations = converted.model._mil_program.functions["main"].operations
    return Counter(op.op_type for op in operations if op.op_type != "const")


@pytest.fixture(scope="module")
def tiny() -> Converted:
    return convert(TINY, settings())


@pytest.fixture(scope="module")
def tiny_ane() -> Converted:
    return convert(TINY, settings(layout="ane"))


@pytest.mark.parametrize(
    ("target", "layout"), [*((target, "ane") for target in SPECIFICATION), ("iOS15", "paper"), ("iOS18", "paper")]
)
def test_every_target_takes_both_layouts(target: str, layout: str) -> None:
    converted = convert(TINY, settings(deployment_target=target, layout=layout))

    spec = converted.model.get_spec()
    assert spec.specificationVersion == SPECIFICATION[target]
    assert spec.WhichOneof("Type") == "mlProgram"
    (image,), (logits,) = spec.description.input, spec.description.output
    assert (image.name, list(image.type.multiArrayType.shape)) == ("image", [1, 3, 32, 48])
    assert (logits.name, list(logits.type.multiArrayType.shape)) == ("logits", [1, CLASSES])
    # From iOS 18 on, softmax attention of the paper's layout is one operator.
    assert types(converted)["scaled_dot_product_attention"] == (target == "iOS18" and layout == "paper")
    assert types(converted)["cast"] == (2 if target == "iOS15" else 0)
    assert converted.max_difference < 1e-4


def test_counts_are_those_of_the_program(tiny: Converted, tiny_ane: Converted) -> None:
    for converted in (tiny, tiny_ane):
        found = types(converted)
        assert converted.operators == sum(found.values())
        assert converted.layout_operators == sum(found[kind] for kind in LAYOUT_OPERATORS)
        assert converted.seconds > 0
    # Unfold 5, fold 5, attention 9, fusion 1; and unfold 1, fold 1, attention 4, fusion 1.
    assert (tiny.layout_operators, tiny_ane.layout_operators) == (20, 7)
    # One norm a place, not the seven operators it is written as; the only linear layer is the head's.
    assert types(tiny_ane)["layer_norm"] == types(tiny)["layer_norm"] == 3
    assert types(tiny_ane)["linear"] == 1
    assert types(tiny)["linear"] == 5


def test_separable_attention_moves_nothing_but_its_patches() -> None:
    assert convert(TINY_V2, settings(layout="ane")).layout_operators == 3  # unfold, fold, fusion


def test_a_preset_as_the_documentation_says() -> None:
    """docs/coreml.md, the table of layout operators."""
    config = PRESETS["mobilevit-xxs"]
    table = Counter(op.kind for op in operators(config))
    moving = sum(table[kind] for kind in ("reshape", "transpose", "concat")) + table["split"] // 3
    assert (moving, convert(config, settings(layout="ane")).layout_operators) == (114, 45)


MIXED = MobileViTConfig(
    image_size=(44, 52),
    activation="hardswish",
    stages=(
        MobileViTStage(out_channels=16, transformer_dim=24, num_heads=3, num_layers=1, patch_h=3, patch_w=2),
        MobileViTStage(out_channels=16, transformer_dim=16, num_layers=1, attention="separable", fusion=False),
    ),
)


@pytest.mark.parametrize(("layout", "target"), [("paper", "iOS15"), ("ane", "iOS15"), ("paper", "iOS18")])
def test_the_program_itself_says_what_the_network_says(
    layout: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run operator by operator, as fp32, since fp16 would hide small mistakes; maps are resized in both blocks."""
    network = random_network(MIXED, CLASSES)
    real, fp32 = ct.convert, {"compute_precision": ct.precision.FLOAT32}
    monkeypatch.setattr(ct, "convert", lambda *given, **named: real(*given, **{**named, **fp32}))
    program = convert(network, settings(layout=layout, deployment_target=target)).model._mil_program
    image = torch.rand(1, 3, *MIXED.image_size)
    with torch.no_grad():
        expected, blank = network(image), network(torch.zeros_like(image))
        difference = (mil_interpreter.run(program, image) - expected).abs().max()
    assert difference < 1e-4 * (expected - blank).abs().max()


def test_image_input_takes_rgb_bytes_to_the_range_of_the_array() -> None:
    converted = convert(TINY, settings(input="image"))
    (image,) = converted.model.get_spec().description.input
    picture = image.type.imageType
    assert (picture.width, picture.height) == (48, 32)
    assert picture.colorSpace == ct.proto.FeatureTypes_pb2.ImageFeatureType.RGB
    first = converted.model._mil_program.functions["main"].operations
    scale = next(op for op in first if op.op_type == "mul")
    assert float(scale.y.val) == pytest.approx(1 / 255, rel=1e-3)
    assert scale.x.name == "image"


def test_metadata_say_what_it_is(tiny: Converted, tmp_path: Path) -> None:
    said = tiny.model.user_defined_metadata
    facts = {key.removeprefix("mvit_search."): value for key, value in said.items() if key.startswith("mvit_search.")}
    assert MobileViTConfig.model_validate(json.loads(facts.pop("config"))) == TINY
    assert facts == {
        "version": __version__, "digest": TINY.digest(), "weights": "random, seed 0", "layout": "paper",
        "deployment_target": "iOS15", "input": "array", "num_classes": "5",
    }  # fmt: skip
    description = tiny.model.get_spec().description.metadata
    assert (description.author, description.versionString) == ("mvit-search", __version__)
    assert TINY.digest()[:12] in description.shortDescription
    assert "random, seed 0" in description.shortDescription


def test_given_weights_are_the_ones_written() -> None:
    network = random_network(TINY, CLASSES, seed=3).train()
    converted = convert(network, settings())

    expected = network.head.classifier.weight.detach().numpy()
    np.testing.assert_allclose(_linears(converted)[-1].weight.val, expected, rtol=1e-3)
    assert converted.model.user_defined_metadata["mvit_search.weights"] == "given"
    assert "random" not in converted.model.short_description
    assert network.training, "the caller's network stays as it was"


def test_a_state_dict_is_loaded_into_the_config() -> None:
    weights = random_network(TINY, CLASSES, seed=3).state_dict()
    loaded = coreml._reference(TINY, CLASSES, weights, seed=0).state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.items())


def _linears(converted: Converted) -> list[Any]:
    return [op for op in converted.model._mil_program.functions["main"].operations if op.op_type == "linear"]


def test_the_seed_decides_the_random_weights(tiny: Converted) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    other = convert(TINY, settings(), seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    written, others = (_linears(converted)[-1].weight.val for converted in (tiny, other))
    expected = random_network(TINY, CLASSES, seed=0).head.classifier.weight.detach().numpy()
    np.testing.assert_allclose(written, expected, rtol=1e-3)
    assert (others != written).any()


def test_a_package_is_written_whole_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "network.mlpackage"
    path.mkdir()
    (path / "stale").write_text("of another package")

    converted = write_package(TINY, settings(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.mlpackage"]
    assert {entry.name for entry in path.iterdir()} == {"Data", "Manifest.json"}
    read = ct.utils.load_spec(str(path))
    assert read.description.metadata.userDefined["mvit_search.digest"] == TINY.digest()
    assert not Path(converted.model.package_path).exists(), "coremltools' own copy"


def test_a_failed_write_leaves_the_old_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "network.mlpackage"
    path.mkdir()
    (path / "old").write_text("still here")

    def half(self: Any, place: str) -> None:
        Path(place).mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ct.models.MLModel, "save", half)
    with pytest.raises(InputError, match=r"network.mlpackage.*No space left on device"):
        write_package(TINY, settings(), path)
    assert (path / "old").read_text() == "still here"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_conversion_is_one_line_and_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError("operator 'x'\nis not known")

    monkeypatch.setattr(ct, "convert", fail)
    with pytest.raises(WorkError) as caught:
        write_package(TINY, settings(), tmp_path / "network.mlpackage")
    assert "coremltools failed (NotImplementedError: operator 'x' is not known)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_layout_that_says_something_else_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural_engine, "for_neural_engine", lambda network: random_network(TINY, CLASSES, seed=9))
    with pytest.raises(WorkError, match="the ane layout differs from the network by"):
        convert(TINY, settings(layout="ane"))


def test_a_network_without_finite_logits_is_not_converted() -> None:
    network = random_network(TINY, CLASSES)
    with torch.no_grad():
        network.head.classifier.weight.fill_(torch.nan)
    with pytest.raises(WorkError, match="differs from the network by nan"):
        convert(network, settings())


def test_a_network_that_torch_cannot_hold_is_failed_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator:\nnot enough memory")

    monkeypatch.setattr(torch.jit, "trace", fail)
    threads = torch.get_num_threads()
    with pytest.raises(WorkError, match=r"could not run the network \(RuntimeError: DefaultCPUAllocator: not enough"):
        convert(TINY, settings())
    assert torch.get_num_threads() == threads


def test_missing_coremltools_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(InputError, match=r"coremltools: cannot be imported .*; install coremltools on Linux or macOS"):
        convert(TINY, settings())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layout": "papr"}, "did you mean 'paper'"),
        ({"deployment_target": "iOS14"}, r"unknown deployment_target \(known: iOS15, iOS16, iOS17, iOS18\)"),
        ({"input": "picture"}, r"unknown input \(known: array, image\)"),
    ],
)
def test_unknown_settings_name_the_known_ones(values: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        settings(**values)


def test_numbers_of_classes_must_agree() -> None:
    with pytest.raises(InputError, match="num_classes 0: must be at least 1"):
        settings(num_classes=0)
    with pytest.raises(InputError, match="num_classes 5: the network has 4 classes; say 4"):
        convert(random_network(TINY, 4), settings())


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="weights: do not fit the network"):
        convert(TINY, settings(), weights=random_network(TINY_V2, CLASSES).state_dict())


def test_places_that_cannot_be_written_are_refused_before_converting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.mlpackage"):
        write_package(TINY, settings(), tmp_path / "network.mlmodel")
    with pytest.raises(InputError, match="is in a folder that does not exist"):
        write_package(TINY, settings(), tmp_path / "none" / "network.mlpackage")


@pytest.mark.filterwarnings("ignore")
def test_bars_are_drawn_only_when_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    convert(TINY, settings(), quiet=False)
    assert "MIL" in capfd.readouterr().err


def test_a_first_conversion_says_nothing_at_all(tmp_path: Path) -> None:
    """In a process of its own: coremltools makes its remarks when it is imported."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from mvit_search.architecture import MobileViTConfig\n"
        "from mvit_search.latency.coreml import ConversionSettings, write_package\n"
        "assert not {'torch', 'coremltools'} & sys.modules.keys()\n"
        f"config = MobileViTConfig.model_validate(json.loads({TINY.canonical_json()!r}))\n"
        "write_package(config, ConversionSettings(num_classes=2), Path('network.mlpackage'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(coreml.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "network.mlpackage" / "Manifest.json").is_file()
