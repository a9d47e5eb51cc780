"""Core ML packages made of protocol buffers alone: what coremltools would convert, and what it would not."""

import json
from pathlib import Path
from typing import Any

from mvit_search.latency.mil import _protos

_MODEL = Path("Data") / "com.apple.CoreML" / "model.mlmodel"
_STRIDES = (2, 2)


def tiny_model(unknown: str = "", count: int = 1, side: int = 32) -> Any:
    """An ML program: a 3x3 convolution of stride 2 on a square image, a ReLU, and operators of an `unknown` type."""
    model = _protos().Model()
    model.specificationVersion = 6
    function = model.mlProgram.functions["main"]
    function.opset = "CoreML5"
    _declare(function.inputs.add(), "image", (1, 3, side, side))
    block = function.block_specializations["CoreML5"]
    kernel = block.operations.add(type="const")
    _declare(kernel.outputs.add(), "kernel", (8, 3, 3, 3))
    conv = block.operations.add(type="conv")
    conv.inputs["x"].arguments.add().name = "image"
    conv.inputs["weight"].arguments.add().name = "kernel"
    strides = conv.inputs["strides"].arguments.add().value.immediateValue.tensor
    strides.ints.values.extend(_STRIDES)
    shape = (1, 8, side // 2, side // 2)
    _declare(conv.outputs.add(), "map", shape)
    last = "map"
    for index, kind in enumerate(("relu", *[unknown] * (count if unknown else 0))):
        operation = block.operations.add(type=kind)
        operation.inputs["x"].arguments.add().name = last
        last = f"{kind}_{index}"
        _declare(operation.outputs.add(), last, shape)
    block.outputs.append(last)
    return model


def neural_network() -> Any:
    """A model of the older format."""
    model = _protos().Model()
    model.specificationVersion = 4
    model.neuralNetwork.layers.add().name = "conv"
    return model


def flexible_model() -> Any:
    """A program whose image has no fixed height."""
    model = tiny_model()
    (image,) = model.mlProgram.functions["main"].inputs
    image.type.tensorType.dimensions[2].unknown.variadic = False
    return model


def save(model: Any, package: Path) -> Path:
    """Write `model` as a package, without weights."""
    (package / _MODEL).parent.mkdir(parents=True)
    (package / _MODEL).write_bytes(model.SerializeToString())
    entry = {"path": _MODEL.relative_to("Data").as_posix()}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"model": entry}, "rootModelIdentifier": "model"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    return package


def _declare(named: Any, name: str, shape: tuple[int, ...]) -> None:
    named.name = name
    named.type.tensorType.rank = len(shape)
    for size in shape:
        named.type.tensorType.dimensions.add().constant.size = size
