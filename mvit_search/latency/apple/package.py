"""What a runtime must know of a Core ML package before it runs it: its inputs and its precision."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mvit_search.errors import InputError
from mvit_search.latency.mil import read_program

if TYPE_CHECKING:
    import numpy as np


class PackageInput(NamedTuple):
    """One input of a package.

    Attributes:
        name: as `predict` wants it.
        kind: `float32`, `float16`, `float64` or `int32` for an array; `rgb` or `grayscale` for a picture.
        shape: of the array; (height, width) of the picture.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def is_image(self) -> bool:
        return self.kind in ("rgb", "grayscale")


class Package(NamedTuple):
    """Inputs and precision (`fp16`, `fp32`) of a Core ML package."""

    path: Path
    inputs: tuple[PackageInput, ...]
    precision: str

    def io(self, *, own_types: bool) -> str:
        """What goes in, in words, `own_types` as in `arrays`: `float32 array`, `image`."""
        return " and ".join(sorted({_io(given, own_types=own_types) for given in self.inputs}))


def read_package(path: Path, mlmodel: Any) -> Package:
    """Inputs and precision of the package at `path`; `mlmodel` is `coremltools.models.MLModel`.

    Raises:
        InputError: no Core ML package, another format than an ML program, dynamic shapes, state, or an input that
            is neither an array nor a picture.
    """
    read_program(path)  # refuses, with reasons, whatever is no static ML program
    spec = mlmodel(str(path), skip_model_load=True).get_spec()
    description = spec.description
    if len(description.state):
        raise InputError(path.name, None, "keeps state between predictions", "convert it without states")
    inputs = tuple(_input(given, path) for given in description.input)
    return Package(path, inputs, _precision(spec))


def arrays(package: Package, *, own_types: bool) -> "dict[str, np.ndarray[Any, Any]]":
    """Random arrays for a package without pictures; fp16 ones only with `own_types`, else fp32 in their place."""
    import numpy as np

    random = np.random.default_rng(0)
    made = {}
    for given in package.inputs:
        kind = "float32" if _is_cast(given, own_types=own_types) else given.kind
        values = np.zeros(given.shape) if kind == "int32" else random.random(given.shape)
        made[given.name] = values.astype(kind)
    return made


def pictures_and_arrays(package: Package) -> dict[str, Any]:
    """Random values as `MLModel.predict` takes them: pictures of Pillow, and arrays."""
    import numpy as np
    from PIL import Image

    plain = package._replace(inputs=tuple(given for given in package.inputs if not given.is_image))
    made: dict[str, Any] = dict(arrays(plain, own_types=False))
    random = np.random.default_rng(0)
    for given in package.inputs:
        if given.is_image:
            shape = (*given.shape, 3) if given.kind == "rgb" else given.shape
            made[given.name] = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
    return made


def _io(given: PackageInput, *, own_types: bool) -> str:
    if given.is_image:
        return "image"
    return "float32 array cast to float16" if _is_cast(given, own_types=own_types) else f"{given.kind} array"


def _is_cast(given: PackageInput, *, own_types: bool) -> bool:
    return given.kind == "float16" and not own_types


def _input(given: Any, path: Path) -> PackageInput:
    """An input of a specification's description; its enumerations are numbers of coremltools' FeatureTypes.proto."""
    kind = given.type.WhichOneof("Type")
    if kind == "multiArrayType":
        array = given.type.multiArrayType
        if array.dataType in _ARRAY_TYPES:
            return PackageInput(given.name, _ARRAY_TYPES[array.dataType], tuple(array.shape))
    if kind == "imageType":
        picture = given.type.imageType
        if picture.colorSpace in _COLOR_SPACES:
            return PackageInput(given.name, _COLOR_SPACES[picture.colorSpace], (picture.height, picture.width))
    rule = f"is an input that cannot be made up ({kind or 'of no type'})"
    raise InputError(f"{path.name}: {given.name}", None, rule, "convert it with arrays of numbers as inputs")


def _precision(spec: Any) -> str:
    """`fp16` if any operator computes in it: converters leave casts at the ends in fp32."""
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    types = {made.type.tensorType.dataType for operation in block.operations for made in operation.outputs}
    return "fp16" if _MIL_FLOAT16 in types else "fp32"


_ARRAY_TYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}
_COLOR_SPACES = {10: "grayscale", 20: "rgb", 30: "rgb"}
_MIL_FLOAT16 = 10
