"""Reading Core ML programs: ours equal the operator table, other families' equal hand counts, bad ones are refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mvit_search.architecture import Op, operators, preset
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget, load_target
from mvit_search.latency.coreml import ConversionSettings, _silence, write_package
from mvit_search.latency.features import features_of_network
from mvit_search.latency.mil import Program, read_program
from mvit_search.latency.mil_kinds import KIND_OF_TYPE
from tests.latency.packages import save, tiny_model

MODEL = "Data/com.apple.CoreML/model.mlmodel"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network of each version."""
    folder = tmp_path_factory.mktemp("packages")
    paths = {name: folder / f"{name}.mlpackage" for name in ("mobilevit-xxs", "mobilevitv2-0.5")}
    for name, path in paths.items():
        write_package(preset(name), ConversionSettings(num_classes=10), path)
    return paths


@pytest.fixture(scope="module")
def package(packages: dict[str, Path]) -> Path:
    return packages["mobilevit-xxs"]


def comparable(op: Op) -> tuple[object, ...]:
    """What a program says of an operator as the table does; a batch axis of one is left out on both sides."""
    shapes = [shape[1:] if len(shape) > 1 and shape[0] == 1 else shape for shape in (op.in_shape, op.shape)]
    weights = op.weights if op.kind in ("conv", "linear", "layer_norm", "batch_norm") else 0
    return (op.kind, *shapes, weights, op.macs, op.stride, op.groups, op.dilation, op.read, op.elements, op.tokens)


@pytest.mark.parametrize("name", ["mobilevit-xxs", "mobilevitv2-0.5"])
def test_a_package_of_ours_reads_as_the_operator_table(name: str, packages: dict[str, Path]) -> None:
    program = read_program(packages[name])
    table = operators(preset(name), 10)
    assert program.image_size == (256, 256)
    assert not program.unknown
    assert [comparable(op) for op in program.ops] == [comparable(op) for op in table]
    # A convolution's kernel is told by both; nothing else has one.
    assert [op.kernel for op in program.ops if op.kind == "conv"] == [op.kernel for op in table if op.kind == "conv"]


@pytest.mark.parametrize("name", ["mobilevit-xxs", "mobilevitv2-0.5"])
@pytest.mark.parametrize("target", ["iphone12", "iphone13", "iphone14"])
def test_a_package_is_predicted_as_its_config(target: str, name: str, packages: dict[str, Path]) -> None:
    device = load_target(target)
    assert isinstance(device, PredictedTarget)
    read = device.latency_of_program(read_program(packages[name]))
    assert read.ms == pytest.approx(device.latency(preset(name), 10).ms, rel=1e-6)
    assert read.low_ms < read.ms < read.high_ms
    assert read.source.startswith(f"predicted: {target}")


class Zoo(nn.Module):
    """An operator of each of many kinds, on (1, 3, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=4)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.norm = nn.InstanceNorm2d(4, affine=True)
        self.project = nn.Linear(4, 6)
        self.attention = nn.Linear(6, 18)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.stem(x))  # (1, 8, 16, 16)
        x = nn.functional.max_pool2d(torch.relu(self.grouped(x)), 2)  # (1, 8, 8, 8)
        x = self.norm(self.up(x))  # (1, 4, 16, 16)
        tokens = self.project(x.flatten(2).transpose(1, 2))  # (1, 256, 6)
        q, k, v = self.attention(tokens).chunk(3, dim=-1)
        scores = torch.softmax(q @ k.transpose(1, 2) * 0.5, dim=-1)
        return (scores @ v).amax(dim=1)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Program:
    path = tmp_path_factory.mktemp("zoo") / "zoo.mlpackage"
    convert(Zoo().eval(), (1, 3, 32, 32), path)
    return read_program(path)


def convert(network: nn.Module, shape: tuple[int, ...], path: Path, **more: Any) -> None:
    with _silence():
        import coremltools as ct

        traced = torch.jit.trace(network, torch.rand(shape))
        given = more.pop("inputs", None) or [ct.TensorType(name="image", shape=shape)]
        model = ct.convert(
            traced, inputs=given, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS15,
            skip_model_load=True, **more,
        )  # fmt: skip
        model.save(str(path))


def only(program: Program, kind: str) -> Op:
    (op,) = [op for op in program.ops if op.kind == kind]
    return op


def test_other_networks_operators_are_counted_by_hand(zoo: Program) -> None:
    stem, grouped = [op for op in zoo.ops if op.kind == "conv"]
    assert stem.macs == 9 * 3 * 8 * 16 * 16
    assert (stem.kernel, stem.groups, stem.stride, stem.shape) == (3, 1, 2, (8, 16, 16))
    assert stem.weights == 9 * 3 * 8 + 8
    assert (grouped.kernel, grouped.groups, grouped.macs) == (5, 4, 5 * 2 * 8 * 16 * 16)
    assert only(zoo, "silu").elements == 8 * 16 * 16
    assert only(zoo, "pool").stride == 4
    up = only(zoo, "conv_transpose")
    assert (up.macs, up.stride, up.shape) == (4 * 8 * 4 * 8 * 8, 2, (4, 16, 16))
    assert only(zoo, "instance_norm").shape == (4, 16, 16)
    project, attention = [op for op in zoo.ops if op.kind == "linear"]
    assert (project.macs, attention.macs) == (256 * 4 * 6, 256 * 6 * 18)
    scores, weighted = [op for op in zoo.ops if op.kind == "matmul"]
    assert scores.macs == weighted.macs == 256 * 256 * 6
    assert only(zoo, "reduce").read == 256 * 6
    assert zoo.unknown == ()


def test_tokens_are_told_from_maps(zoo: Program) -> None:
    tokens = {op.kind for op in zoo.ops if op.tokens}
    assert {"linear", "matmul", "softmax"} <= tokens
    assert not tokens & {"conv", "pool", "silu", "conv_transpose"}


class Einsums(nn.Module):
    """Sums of products over one axis, with a batch of two and with a repeated axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries, keys = x[:, :, :, :8], x[:, :, :, 8:]  # (2, 3, 4, 8) and (2, 3, 4, 8)
        scores = torch.einsum("bcqw,bckw->bcqk", queries, keys)
        return torch.einsum("bcqk,bckw->bcqw", scores, keys)


def test_products_are_counted_by_their_axes(tmp_path: Path) -> None:
    convert(Einsums().eval(), (2, 3, 4, 16), tmp_path / "einsums.mlpackage")
    products = [op for op in read_program(tmp_path / "einsums.mlpackage").ops if op.macs]
    assert [op.macs for op in products] == [2 * 3 * 4 * 4 * 8] * 2


def test_only_a_resize_by_no_whole_factor_is_uneven(tmp_path: Path) -> None:
    class Resizes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for side in (32, 16, 8, 11):
                x = nn.functional.interpolate(torch.relu(x), size=(side, side), mode="bilinear")
            return x

    convert(Resizes().eval(), (1, 3, 16, 16), tmp_path / "resizes.mlpackage")
    ops = read_program(tmp_path / "resizes.mlpackage").ops
    assert [op.shape[-1] for op in ops if op.kind == "resize"] == [32, 16, 8, 11]
    assert features_of_network(ops).uneven_resizes == 1


def test_an_operator_that_nobody_knows_is_listed_and_widens_the_interval(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = load_target("iphone12")
    assert isinstance(device, PredictedTarget)
    known = device.latency_of_program(read_program(package))
    monkeypatch.delitem(KIND_OF_TYPE, "layer_norm")
    program = read_program(package)
    assert program.unknown == (("layer_norm", 21),)
    guessed = device.latency_of_program(program)
    assert "lower confidence: operators of unknown type counted by bytes (21 layer_norm)" in guessed.source
    assert guessed.high_ms / guessed.ms > known.high_ms / known.ms
    assert guessed.low_ms / guessed.ms < known.low_ms / known.ms


def test_every_type_of_coremltools_opsets_has_a_kind_or_is_left_out_on_purpose() -> None:
    """What is missing is of no vision network: recurrent layers, control flow, state, strings, random numbers."""
    with _silence():
        from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    left_out = {
        "cond", "while_loop", "make_list", "list_gather", "list_length", "list_read", "list_scatter", "list_write",
        "gru", "lstm", "rnn", "random_bernoulli", "random_categorical", "random_normal", "random_uniform",
        "read_state", "conv_quantized", "_const_symbolic",
    }  # fmt: skip
    registered = {name for name in SSAOpRegistry.core_ops if not name.startswith("constexpr_")}
    assert registered - set(KIND_OF_TYPE) == left_out
    assert set(KIND_OF_TYPE) <= registered


def rewrite(package: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """A copy of the package with another program description."""
    from mvit_search.latency.mil import _protos

    copy = folder / package.name
    shutil.copytree(package, copy)
    protos: ModuleType = _protos()
    model = protos.Model()
    model.ParseFromString((copy / MODEL).read_bytes())
    change(model)
    (copy / MODEL).write_bytes(model.SerializeToString())
    return copy


def set_type(model: Any) -> None:
    model.neuralNetwork.layers.add().name = "conv"


def forget_size(model: Any) -> None:
    (given,) = model.mlProgram.functions["main"].inputs
    given.type.tensorType.dimensions[2].unknown.variadic = False


def forget_weight(model: Any) -> None:
    block = model.mlProgram.functions["main"].block_specializations["CoreML5"]
    conv = next(operation for operation in block.operations if operation.type == "conv")
    del conv.inputs["weight"]


def rename_function(model: Any) -> None:
    model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"])
    del model.mlProgram.functions["main"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_type, "is no ML program but a model of type neuralNetwork"),
        (lambda model: model.ClearField("mlProgram"), "is no ML program but no model type"),
        (forget_size, "has a dynamic shape (image)"),
        (rename_function, "has no function 'main'"),
        (forget_weight, "is broken: an operator conv lacks what it needs"),
    ],
)
def test_a_program_that_cannot_be_read_says_why(
    change: Callable[[Any], None], message: str, package: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read_program(rewrite(package, tmp_path, change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flexible_shapes_are_refused(tmp_path: Path) -> None:
    with _silence():
        import coremltools as ct

    sides = ct.RangeDim(lower_bound=32, upper_bound=64, default=32)
    flexible = [ct.TensorType(name="image", shape=(1, 3, sides, sides))]
    convert(nn.Conv2d(3, 4, 3).eval(), (1, 3, 32, 32), tmp_path / "flexible.mlpackage", inputs=flexible)
    with pytest.raises(InputError, match="dynamic shape"):
        read_program(tmp_path / "flexible.mlpackage")


def without_an_input(model: Any) -> None:
    operations(model)[1].inputs["weight"].ClearField("arguments")


def of_zero_stride(model: Any) -> None:
    operation = operations(model)[1]
    operation.type = "conv_transpose"
    operation.inputs["strides"].arguments[0].value.immediateValue.tensor.ints.values[:] = [0, 0]


def without_a_size(model: Any) -> None:
    operations(model)[1].outputs[0].type.tensorType.dimensions[1].constant.size = 0


def of_no_device(model: Any) -> None:
    operations(model)[1].outputs[0].type.tensorType.dimensions[1].constant.size = 2**63


def with_branches(model: Any) -> None:
    operations(model)[2].blocks.add()


def operations(model: Any) -> Any:
    return model.mlProgram.functions["main"].block_specializations["CoreML5"].operations


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_an_input, "is broken: an operator conv lacks what it needs"),
        (of_zero_stride, "is broken: an operator conv_transpose lacks what it needs"),
        (without_a_size, "is broken: map has the shape [1, 0, 16, 16]"),
        (of_no_device, "is broken: map has the shape [1, 9223372036854775808, 16, 16]"),
        (with_branches, "has control flow (relu)"),
    ],
)
def test_a_broken_operator_is_refused_in_one_line(spoil: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    model = tiny_model()
    spoil(model)
    with pytest.raises(InputError) as caught:
        read_program(save(model, tmp_path / "broken.mlpackage"))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_names_in_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    package = save(tiny_model(unknown="new\nline\x1b[31m" + "x" * 1000), tmp_path / "loud.mlpackage")
    device = load_target("iphone12")
    assert isinstance(device, PredictedTarget)
    source = device.latency_of_program(read_program(package)).source
    assert source.isprintable()
    assert len(source) < 400


def test_garbled_programs_are_read_or_refused(tmp_path: Path) -> None:
    device = load_target("iphone12")
    assert isinstance(device, PredictedTarget)
    package = save(tiny_model(), tmp_path / "garbled.mlpackage")
    content = (package / MODEL).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(1000):
        garbled = np.frombuffer(content, np.uint8).copy()
        garbled[random.integers(len(garbled), size=2)] = random.integers(256, size=2)
        (package / MODEL).write_bytes(garbled.tobytes())
        try:
            program = read_program(package)
        except InputError:
            continue
        latency = device.latency_of_program(program)
        assert 0 < latency.low_ms <= latency.ms <= latency.high_ms < float("inf")


@pytest.mark.parametrize(
    "text",
    ["[]", "[" * 100_000, '{"itemInfoEntries": [], "rootModelIdentifier": 0}', '{"rootModelIdentifier": ' + "1" * 5000],
)
def test_a_manifest_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    package = save(tiny_model(), tmp_path / "odd.mlpackage")
    (package / "Manifest.json").write_text(text)
    with pytest.raises(InputError, match="broken Manifest"):
        read_program(package)


@pytest.mark.parametrize("path", ["x" * 5000, "\0", "pipe", "com.apple.CoreML", "absent"])
def test_a_manifest_names_a_file(path: str, tmp_path: Path) -> None:
    """Not a pipe, which would be read for ever."""
    package = save(tiny_model(), tmp_path / "odd.mlpackage")
    os.mkfifo(package / "Data" / "pipe")
    entry = {"itemInfoEntries": {"model": {"path": path}}, "rootModelIdentifier": "model"}
    (package / "Manifest.json").write_text(json.dumps(entry))
    with pytest.raises(InputError, match=r"no file of the package|broken Manifest"):
        read_program(package)


def test_einsums_and_scalars(tmp_path: Path) -> None:
    """`nchw,nwhu->nchu` multiplies once for every n, c, h, w, u; a scalar may become a vector."""
    with _silence():
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb

        left, right = (2, 3, 4, 5), (2, 5, 4, 6)

        @mb.program(  # type: ignore[untyped-decorator]
            input_specs=[mb.TensorSpec(shape=left), mb.TensorSpec(shape=right)], opset_version=ct.target.iOS15
        )
        def program(x: Any, y: Any) -> Any:
            product = mb.einsum(values=[x, y], equation="nchw,nwhu->nchu")
            total = mb.reduce_sum(x=product, axes=[0, 1, 2, 3], keep_dims=False)
            return mb.expand_dims(x=total, axes=[0])

        ct.convert(program, convert_to="mlprogram", skip_model_load=True).save(str(tmp_path / "einsum.mlpackage"))
    assert only(read_program(tmp_path / "einsum.mlpackage"), "matmul").macs == 2 * 3 * 4 * 5 * 6


def test_what_is_no_package_is_refused(package: Path, tmp_path: Path) -> None:
    def complaint(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            read_program(path)
        return str(caught.value)

    assert "does not exist" in complaint(tmp_path / "absent.mlpackage")
    assert "is no Core ML package" in complaint(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("no model")
    assert "is no Core ML package" in complaint(text)
    (tmp_path / "compiled.mlmodelc").mkdir()
    assert "compiled" in complaint(tmp_path / "compiled.mlmodelc")
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(package, broken)
    (broken / MODEL).write_bytes(np.random.default_rng(0).bytes(1000))
    assert "cannot be parsed" in complaint(broken) or "is no ML program" in complaint(broken)
    (broken / "Manifest.json").write_text("{}")
    assert "broken Manifest.json" in complaint(broken)


def test_a_manifest_may_not_leave_its_package(package: Path, tmp_path: Path) -> None:
    copy = tmp_path / package.name
    shutil.copytree(package, copy)
    manifest = json.loads((copy / "Manifest.json").read_text())
    entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    entry["path"] = "../../elsewhere.mlmodel"
    (copy / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="outside the package"):
        read_program(copy)


def test_reading_loads_neither_torch_nor_coremltools(package: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from mvit_search.latency.mil import read_program\n"
        f"read_program(Path({str(package)!r}))\n"
        "heavy = {'torch', 'coremltools', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
