"""Any Core ML program as operator rows: what `architecture/ops.py` lists for our networks, read from a package.

A row is the same `Op`, counted by the same convention, so that everything that costs or predicts from rows works
on a network of any family. `read_program` parses the package's protocol buffers alone: no coremltools import
(five seconds), no torch, no weights.
"""

import importlib.util
import json
import math
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mvit_search.architecture.rows import NETWORK_INPUT, Op, Shape
from mvit_search.errors import InputError
from mvit_search.latency.mil_kinds import CONSTANT, KIND_OF_TYPE, UNKNOWN

_ADVICE = "give a .mlpackage that holds an ML program (coremltools: convert_to='mlprogram')"
_LONGEST_NAME = 60
_PROTO = "_mvit_search_coreml_proto"
_MAX_MODEL_BYTES = 1 << 30
_MAX_NUMBERS = 1 << 40
"""In one tensor: two terabytes in fp16, more than any device holds; beyond it sums would leave a float's range."""


class Program(NamedTuple):
    """A Core ML program as rows.

    Attributes:
        name: the package's name without its suffix.
        ops: one row an output of an operator, in the program's order; names begin with `at_stride_<n>.`.
        image_size: (height, width) of the first input of rank 4.
        unknown: MIL types that are in no table of kinds, and how often each occurs.
    """

    name: str
    ops: tuple[Op, ...]
    image_size: tuple[int, int]
    unknown: tuple[tuple[str, int], ...]


def read_program(path: Path) -> Program:
    """The main function of the ML program in the package at `path`.

    Raises:
        InputError: no package, another format (a neural network, a pipeline, a compiled model), a broken file,
            dynamic shapes, or control flow; names what was found and what to give instead.
    """
    model = _model(path)
    function = model.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    rows = _ProgramRows(path.name)
    for given in function.inputs:
        rows.add_input(given)
    for operation in block.operations:
        rows.add(operation)
    if rows.image_size is None or not rows.ops:
        raise InputError(path.name, None, "has no image input of rank 4, or no operators", _ADVICE)
    return Program(path.stem, tuple(rows.ops), rows.image_size, tuple(sorted(rows.unknown.items())))


class _Value(NamedTuple):
    """What a variable of the program holds: a constant (`row` None), the image (-1), or the output of a row."""

    row: int | None
    shape: tuple[int, ...]
    numbers: tuple[int, ...] = ()


class _ProgramRows:
    """Rows of a program so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ops: list[Op] = []
        self.image_size: tuple[int, int] | None = None
        self.unknown: Counter[str] = Counter()
        self._values: dict[str, _Value] = {}
        self._map_sizes: set[tuple[int, ...]] = set()

    def add_input(self, given: Any) -> None:
        shape = self._shape(given)
        self._values[given.name] = _Value(NETWORK_INPUT, shape)
        if self.image_size is None and len(shape) == 4:
            self.image_size = (shape[2], shape[3])
            self._map_sizes.add(self.image_size)

    def add(self, operation: Any) -> None:
        """Append one row an output; a constant becomes a value that others read.

        Raises:
            InputError: control flow, whose branches and turns depend on the image; or an operator that lacks an input.
        """
        if operation.blocks:
            rule = f"has control flow ({_printable(operation.type)}), so its latency depends on the image"
            raise InputError(self.name, None, rule, "convert it without")
        try:
            self._add(operation)
        except (LookupError, ArithmeticError, ValueError):
            rule = f"is broken: an operator {_printable(operation.type)} lacks what it needs"
            raise InputError(self.name, None, rule, _ADVICE) from None

    def _add(self, operation: Any) -> None:
        kind = KIND_OF_TYPE.get(operation.type, UNKNOWN)
        if kind == CONSTANT or operation.type.startswith("constexpr_"):
            for output in operation.outputs:
                self._values[output.name] = _constant(self._shape(output), operation.attributes)
            return
        if kind == UNKNOWN:
            self.unknown[_printable(operation.type)] += 1
        given = {key: self._arguments(argument) for key, argument in operation.inputs.items()}
        for output in operation.outputs:
            row = self._row(operation.type, kind, given, output)
            self._values[output.name] = _Value(len(self.ops), self._shape(output))
            self.ops.append(row)

    def _arguments(self, argument: Any) -> list[_Value]:
        """What one parameter is given; a literal in place of a variable counts as a constant."""
        return [
            self._values.get(binding.name, _Value(None, ()))
            if binding.WhichOneof("binding") == "name"
            else _literal((), binding.value)
            for binding in argument.arguments
        ]  # fmt: skip

    def _row(self, mil_type: str, kind: str, given: dict[str, list[_Value]], output: Any) -> Op:
        shape = self._shape(output)
        # Queries, keys and values come in this order, whatever the order of the file's map.
        ordered = sorted(given.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER)))
        read = [value for _, values in ordered for value in values if value.row is not None]
        stored = [
            value for key, values in ordered for value in values if value.row is None and key not in _FOLDED_STATISTICS
        ]
        first = read[0] if read else _Value(NETWORK_INPUT, shape)
        window = _window(mil_type, given, first, shape)
        entry = 1 if first.row is None or first.row == NETWORK_INPUT else self.ops[first.row].stride
        stride = max(1, round(entry * window.stride))
        weights = sum(math.prod(value.shape) for value in stored if _is_weight(value))
        return Op(
            name=f"at_stride_{stride}.{output.name}", kind=kind,
            inputs=tuple(value.row for value in read if value.row is not None), in_shape=_bare(first.shape),
            shape=_bare(shape), params=weights, weights=weights,
            macs=_macs(mil_type, given, shape), stride=stride, kernel=window.kernel, groups=window.groups,
            dilation=window.dilation, block_output=False, read=sum(math.prod(value.shape) for value in read),
            elements=math.prod(shape), tokens=self._on_tokens(kind, first, shape),
        )  # fmt: skip

    def _on_tokens(self, kind: str, first: _Value, shape: tuple[int, ...]) -> bool:
        """Whether a result is tokens: from the reshape that makes them of a map to the one that makes a map of them.

        A map has rank 4, and a height and width that an operator on maps made before.
        """
        before = first.row is not None and first.row >= 0 and self.ops[first.row].tokens
        is_map = len(shape) == 4 and shape[0] == 1 and shape[2:] in self._map_sizes
        if kind == "reshape" and math.prod(first.shape) > max(first.shape, default=1):
            return not is_map
        if before and kind == "transpose" and is_map and first.shape[1:3] == shape[2:]:
            return False  # channels last to channels first
        if not before and len(shape) == 4:
            self._map_sizes.add(shape[2:])
        return before

    def _shape(self, named: Any) -> tuple[int, ...]:
        """Sizes of a variable, batch axis included; a scalar's is ().

        Raises:
            InputError: a size is not fixed, or no tensor has it.
        """
        sizes = []
        for dimension in named.type.tensorType.dimensions:
            if dimension.WhichOneof("dimension") != "constant":
                rule = f"has a dynamic shape ({_printable(named.name)})"
                raise InputError(self.name, None, rule, "convert it with fixed input shapes")
            sizes.append(int(dimension.constant.size))
        if not 0 < math.prod(sizes) <= _MAX_NUMBERS:
            rule = f"is broken: {_printable(named.name)} has the shape {sizes[:6]}"
            raise InputError(self.name, None, rule, _ADVICE)
        return tuple(sizes)


class _Window(NamedTuple):
    """A sliding window: kernel side, groups, dilation, and by how much the stride grows (below 1: it shrinks)."""

    kernel: int = 0
    groups: int = 1
    dilation: int = 1
    stride: float = 1.0


_ORDER = {name: place for place, name in enumerate(("x", "query", "key", "value", "y", "values", "weight", "bias"))}
_NO_WINDOW = _Window()
_FOLDED_STATISTICS = frozenset(("mean", "variance"))
"""Of a batch norm's four numbers a channel two are left once it is a scale and a shift."""


def _window(mil_type: str, given: dict[str, list[_Value]], first: _Value, shape: tuple[int, ...]) -> _Window:
    if mil_type in ("conv", "conv_transpose"):
        weight = given["weight"][0].shape
        strides, dilations = _ints(given, "strides"), _ints(given, "dilations")
        grows = float(strides[0]) if strides else 1.0
        groups = (_ints(given, "groups") or (1,))[0]
        dilation = dilations[0] if dilations else 1
        return _Window(max(weight[2:], default=1), groups, dilation, grows if mil_type == "conv" else 1 / grows)
    if KIND_OF_TYPE.get(mil_type) in ("pool", "resize") and len(shape) == len(first.shape) >= 3 and shape[-2]:
        kernel = max(_ints(given, "kernel_sizes"), default=0)
        return _Window(kernel, stride=first.shape[-2] / shape[-2])
    return _NO_WINDOW


def _macs(mil_type: str, given: dict[str, list[_Value]], shape: tuple[int, ...]) -> int:
    """Multiply-adds of convolutions and matrix products, as docs/operators.md counts; else 0."""
    if mil_type == "conv":
        weight = given["weight"][0].shape
        return math.prod(weight[1:]) * math.prod(shape)
    if mil_type == "conv_transpose":
        weight, source = given["weight"][0].shape, given["x"][0].shape
        return math.prod(weight[1:]) * math.prod(source)
    if mil_type == "linear":
        return given["weight"][0].shape[-1] * math.prod(shape)
    if mil_type == "matmul":
        transposed = bool((_ints(given, "transpose_x") or (0,))[0])
        left = given["x"][0].shape
        return (left[-2] if transposed else left[-1]) * math.prod(shape)
    if mil_type == "einsum":
        # Core ML has two, `nchw,nwhu->nchu` and `chw,whr->chr`: both sum over the left operand's last axis.
        return given["values"][0].shape[-1] * math.prod(shape)
    if mil_type == "scaled_dot_product_attention":
        query, key, value = (given[name][0].shape for name in ("query", "key", "value"))
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return 0


def _ints(given: dict[str, list[_Value]], name: str) -> tuple[int, ...]:
    return given[name][0].numbers if given.get(name) else ()


def _is_weight(value: _Value) -> bool:
    """Whether a constant is a stored tensor: what tells sizes, axes and modes has no shape, or small integers."""
    return not value.numbers and math.prod(value.shape) > 1


def _printable(name: str) -> str:
    """A name out of a file as part of a message: a file may hold anything."""
    return name if name.isidentifier() and len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]!a}"


def _bare(shape: tuple[int, ...]) -> Shape:
    """Without the batch axis, where it stands apart."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _constant(shape: tuple[int, ...], attributes: Any) -> _Value:
    return _literal(shape, attributes["val"]) if "val" in attributes else _Value(None, shape)


def _literal(shape: tuple[int, ...], value: Any) -> _Value:
    """A constant with the integers or truth values that the program itself holds; of other content the shape."""
    tensor = value.immediateValue.tensor
    which = tensor.WhichOneof("value")
    if which in ("ints", "longInts", "bools"):
        return _Value(None, shape, tuple(int(number) for number in getattr(tensor, which).values))
    return _Value(None, shape)


def _model(path: Path) -> Any:
    """The parsed model of a package.

    Raises:
        InputError: as `read_program`.
    """
    file = _model_file(path)
    protos = _protos()
    model = protos.Model()
    from google.protobuf.message import DecodeError

    try:
        if file.stat().st_size > _MAX_MODEL_BYTES:
            raise InputError(path.name, None, "holds a program description above 1 GiB", _ADVICE)
        model.ParseFromString(file.read_bytes())
    except OSError as error:
        raise InputError(str(path), None, f"cannot be read ({error.strerror})", _ADVICE) from None
    except (DecodeError, RuntimeError):
        raise InputError(path.name, None, "is no Core ML model: its content cannot be parsed", _ADVICE) from None
    found = model.WhichOneof("Type")
    if found != "mlProgram":
        words = "no model type" if found is None else f"a model of type {found}"
        raise InputError(path.name, None, f"is no ML program but {words}", _ADVICE)
    if "main" not in model.mlProgram.functions:
        raise InputError(path.name, None, "has no function 'main'", "save one function under that name")
    return model


def _model_file(path: Path) -> Path:
    if not path.exists():
        raise InputError(str(path), None, "does not exist", _ADVICE)
    if path.suffix == ".mlmodelc":
        raise InputError(path.name, None, "is a compiled model, whose program is not readable", _ADVICE)
    if path.suffix == ".mlmodel" and path.is_file():
        return path
    if not path.is_dir() or not (path / "Manifest.json").is_file():
        raise InputError(str(path), None, "is no Core ML package (a folder with a Manifest.json)", _ADVICE)
    return _root_model(path)


def _root_model(package: Path) -> Path:
    """The file that the manifest names; one outside the package is refused."""
    try:
        manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
        relative = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        file = (package / "Data" / str(relative)).resolve()
        is_file = file.is_file()
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise InputError(package.name, None, "has a broken Manifest.json", _ADVICE) from None
    if not file.is_relative_to(package.resolve()):
        raise InputError(package.name, relative, "names a model outside the package", _ADVICE)
    if not is_file:
        raise InputError(package.name, relative, "names a model that is no file of the package", _ADVICE)
    return file


def _protos() -> ModuleType:
    """coremltools' message classes, without running coremltools' own start, which takes seconds and logs.

    Raises:
        InputError: coremltools is not installed.
    """
    if f"{_PROTO}.Model_pb2" not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or not spec.submodule_search_locations:
            rule = "is not installed: Core ML packages cannot be read"
            raise InputError("coremltools", None, rule, "pip install 'coremltools>=9.0,<10' (Linux and macOS)")
        _import_protos(Path(spec.submodule_search_locations[0]) / "proto")
    return importlib.import_module(f"{_PROTO}.Model_pb2")


def _import_protos(folder: Path) -> None:
    """coremltools.proto under a name of ours: its files import one another relatively."""
    spec = importlib.util.spec_from_file_location(
        _PROTO, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PROTO] = module
    spec.loader.exec_module(module)
