"""The operator table against the ML program that coremltools writes: equal row by row, in the same order.

docs/operators.md explains the mapping of kinds to MIL's operator types, `KINDS_OF_MIL`. Before they are compared,
these differences of notation are taken away, and nothing else:

- a MIL `split` with three outputs is three rows of the table;
- MIL always writes the batch axis, of size 1, and the table never does; where the network itself joins the batch to
  another axis, the shapes are the same.
"""

import random
from collections import Counter
from typing import NamedTuple

import pytest

from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, MobileViTStage, Op, operators
from tests.architecture.coreml_program import WEIGHED, MilOp, coreml_program
from tests.random_configs import random_config

KINDS_OF_MIL = {
    "conv": "conv", "linear": "linear", "matmul": "matmul", "softmax": "softmax", "layer_norm": "layer_norm",
    "batch_norm": "batch_norm", "relu": "activation", "silu": "silu", "thresholded_relu": "activation",
    "sigmoid_hard": "activation", "add": "add", "sub": "sub", "mul": "mul", "real_div": "div", "square": "square",
    "sqrt": "sqrt", "reduce_mean": "mean", "reduce_sum": "sum", "split": "split", "reshape": "reshape",
    "transpose": "transpose", "concat": "concat", "upsample_bilinear": "resize", "cast": "cast",
}  # fmt: skip

# Twenty of the first few hundred seeds, picked so that every value below occurs and the programs stay short.
SEEDS = (3, 5, 6, 18, 19, 20, 22, 28, 31, 32, 38, 55, 111, 164, 215, 242, 285, 316, 375, 387)


class Case(NamedTuple):
    config: MobileViTConfig
    num_classes: int
    output_stride: int | None

    @property
    def table(self) -> tuple[Op, ...]:
        return operators(self.config, self.num_classes, output_stride=self.output_stride)

    @property
    def program(self) -> list[MilOp]:
        return coreml_program(self.config, self.num_classes, self.output_stride)


def random_case(seed: int) -> Case:
    rng = random.Random(seed)
    return Case(random_config(rng, max_image=48), rng.choice((1, 2, 7)), rng.choice((None, 8, 16)))


def _block(attention: str, **values: object) -> MobileViTStage:
    defaults = {"out_channels": 8, "num_layers": 1, "stride": 2, "expand_ratio": 1, "attention": attention}
    return MobileViTStage.model_validate({**defaults, **values})


CORNERS = {
    "one channel a head, and no more patches than one": Case(
        MobileViTConfig(
            image_size=(17, 20), stem_channels=1,
            stages=(_block("softmax", transformer_dim=4, num_heads=4, patch_h=16, patch_w=16),),
        ), 1, None,
    ),
    "one channel, where a norm's scale and shift stay apart": Case(
        MobileViTConfig(
            image_size=(16, 17), head_expansion=0,
            stages=(_block("separable", transformer_dim=1, patch_h=1, patch_w=3),),
        ), 3, None,
    ),
    "a map of one pixel": Case(
        MobileViTConfig(
            image_size=(16, 16), activation="hardswish",
            stages=(
                ConvStage(out_channels=4, stride=2), ConvStage(out_channels=4, stride=2, num_blocks=2),
                _block("softmax", transformer_dim=2, num_heads=1, patch_h=1, patch_w=1, conv_kernel_size=7),
                _block("separable", transformer_dim=2, stride=1, patch_h=1, patch_w=1),
            ),
        ), 2, None,
    ),
    "mobilevit-xxs": Case(PRESETS["mobilevit-xxs"].with_image_size(64), 10, None),
    "mobilevitv2-0.5": Case(PRESETS["mobilevitv2-0.5"].with_image_size(64), 10, 16),
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_is_the_core_ml_program_of_random_configs(seed: int) -> None:
    case = random_case(seed)
    assert_equal(case.table, case.program)


@pytest.mark.parametrize("name", CORNERS)
def test_the_table_is_the_core_ml_program_at_the_corners(name: str) -> None:
    assert_equal(CORNERS[name].table, CORNERS[name].program)


def test_any_wrong_row_is_noticed() -> None:
    """The comparison itself: each change to the table of one network makes it fail."""
    case = CORNERS["one channel, where a norm's scale and shift stay apart"]
    table, program = case.table, case.program
    assert_equal(table, program)
    at = next(index for index, op in enumerate(table) if op.kind == "conv" and op.groups > 1)
    conv = table[at]
    changes = {
        "kind": "linear", "shape": (conv.shape[0] + 1, *conv.shape[1:]), "weights": conv.weights + 1,
        "inputs": (at - 2,), "kernel": conv.kernel + 2, "groups": 1, "dilation": 2, "stride": 2 * conv.stride,
    }  # fmt: skip
    for field, value in changes.items():
        with pytest.raises(AssertionError, match=f"row {at}"):
            assert_equal((*table[:at], conv._replace(**{field: value}), *table[at + 1 :]), program)
    for fewer in (table[:-1], table[1:], (*table[:at], *table[at + 1 :])):
        with pytest.raises(AssertionError):
            assert_equal(fewer, program)
    with pytest.raises(AssertionError):
        assert_equal((*table, table[-1]), program)


def assert_equal(table: tuple[Op, ...], program: list[MilOp]) -> None:
    rows = rows_of_program(program)
    for index, (op, own, theirs) in enumerate(zip(table, rows_of_table(table), rows, strict=False)):
        # The batch axis, where it stands apart.
        shape = theirs.shape[1:] if len(theirs.shape) > len(own.shape) and theirs.shape[0] == 1 else theirs.shape
        assert own == theirs._replace(shape=shape), f"row {index} ({op.name})"
    assert len(table) == len(rows)


class Row(NamedTuple):
    """What both sides say of one operator.

    `window` is (kernel, stride, dilation, groups) of a convolution, `weights` the numbers stored for a kind of
    `WEIGHED`, `inputs` indices of rows, -1 for the image.
    """

    kind: str
    shape: tuple[int, ...]
    window: tuple[int, ...]
    weights: int
    inputs: tuple[int, ...]


def rows_of_program(program: list[MilOp]) -> list[Row]:
    where = {(-1, 0): -1}
    rows: list[Row] = []
    for index, op in enumerate(program):
        inputs = tuple(where[source] for source in op.inputs)
        for port, shape in enumerate(op.shapes):
            where[index, port] = len(rows)
            rows.append(Row(KINDS_OF_MIL.get(op.op_type, op.op_type), shape, op.window, op.weights, inputs))
    return rows


def rows_of_table(table: tuple[Op, ...]) -> list[Row]:
    rows = []
    for op in table:
        window: tuple[int, ...] = ()
        if op.kind == "conv":
            stride_before = table[op.inputs[0]].stride if op.inputs[0] >= 0 else 1
            window = (op.kernel, op.stride // stride_before, op.dilation, op.groups)
        rows.append(Row(op.kind, op.shape, window, op.weights if op.kind in WEIGHED else 0, op.inputs))
    return rows


def test_the_random_configs_have_every_value_of_every_dimension() -> None:
    seen = Counter(value for seed in SEEDS for value in dimensions(random_case(seed)))
    assert not EVERY_VALUE - set(seen)
    assert len(SEEDS) == 20


EVERY_VALUE = {
    (name, value)
    for name, values in {
        "activation": ("silu", "relu", "hardswish"), "head_expansion": (0, 1, 2.5, 4), "num_classes": (1, 2, 7),
        "output_stride": (None, 8, 16), "stages": (1, 2, 3, 4), "kind": ("conv", "mobilevit"), "num_blocks": (1, 2, 3),
        "conv stride": (1, 2), "conv expand_ratio": (1, 1.5, 2, 4), "mobilevit stride": (1, 2),
        "mobilevit expand_ratio": (1, 2, 3.5), "num_heads": (1, 2, 3, 4), "num_layers": (1, 2, 3),
        "ffn_ratio": (0.5, 1.3, 2, 4), "patch_h": (1, 2, 3, 4), "patch_w": (1, 2, 3, 4),
        "softmax kernel, fusion": tuple((kernel, fusion) for kernel in (1, 3, 5) for fusion in (True, False)),
        "separable kernel, fusion": tuple((kernel, fusion) for kernel in (1, 3, 5) for fusion in (True, False)),
        "softmax resize": (True, False), "separable resize": (True, False), "dilation": (1, 2),
    }.items()
    for value in values
}  # fmt: skip


def dimensions(case: Case) -> set[tuple[str, object]]:
    """The values that a case has, by dimension."""
    config = case.config
    found: set[tuple[str, object]] = {
        ("activation", config.activation), ("head_expansion", config.head_expansion),
        ("num_classes", case.num_classes), ("output_stride", case.output_stride), ("stages", len(config.stages)),
    }  # fmt: skip
    found |= {("dilation", op.dilation) for op in case.table}
    resized = {op.name.split(".resize_in")[0] for op in case.table if op.kind == "resize"}
    for index, stage in enumerate(config.stages):
        kind = stage.kind
        found |= {("kind", kind), (f"{kind} stride", stage.stride), (f"{kind} expand_ratio", stage.expand_ratio)}
        if isinstance(stage, ConvStage):
            found.add(("num_blocks", stage.num_blocks))
            continue
        for name in ("num_heads", "num_layers", "ffn_ratio", "patch_h", "patch_w"):
            found.add((name, getattr(stage, name)))
        found.add((f"{stage.attention} kernel, fusion", (stage.conv_kernel_size, stage.fusion)))
        found.add((f"{stage.attention} resize", f"stages.{index}.block" in resized))
    return found
