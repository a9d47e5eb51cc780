"""Core ML conversion: a config, or a network with weights, becomes an ML program of fp16, batch 1 and static shapes.

Two layouts of the same weights. `paper` is the network as `blocks.py` writes it, whose program is the operator table
row by row; `ane` is `architecture/neural_engine.py`, rewritten for Apple's Neural Engine. docs/coreml.md compares them.

Importing this loads neither torch nor coremltools; the first conversion does.
"""

import contextlib
import io
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mvit_search import __version__
from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError, UnknownNameError, WorkError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mvit_search.architecture.network import MobileViT

Layout = Literal["paper", "ane"]
DeploymentTarget = Literal["iOS15", "iOS16", "iOS17", "iOS18"]
InputKind = Literal["array", "image"]

SUFFIX = ".mlpackage"
INPUT_NAME, OUTPUT_NAME = "image", "logits"
METADATA_PREFIX = "mvit_search."
LAYOUT_OPERATORS = frozenset((
    "reshape", "transpose", "split", "concat", "slice_by_index", "slice_by_size", "slice_update", "expand_dims",
    "squeeze", "stack", "space_to_depth", "depth_to_space", "pixel_shuffle", "pixel_unshuffle", "space_to_batch",
    "batch_to_space", "tile", "gather", "gather_nd", "gather_along_axis", "scatter", "sliding_windows", "pad",
))  # fmt: skip
"""MIL operator types that compute nothing: they rename, move or copy."""

# Largest difference to the network in torch, as a share of its largest logit. Both are fp32, where another order of the
# sums makes 1e-6, in odd networks 1e-4; fp16, which the program computes in, rounds each number by 5e-4.
_TOLERANCE = 1e-3
_TINY_LOGIT = 1e-3
_SHOWN = 300  # characters of torch's list of keys


@dataclass(frozen=True)
class ConversionSettings:
    """What kind of program is written.

    Attributes:
        layout: `paper` or `ane`.
        deployment_target: the oldest system that runs the program. The published iPhone 12 figures are of iOS 15 and
            16; from iOS 16 on arrays go in and out as fp16, and from iOS 18 on softmax attention of the `paper`
            layout is a single operator.
        input: `array`, (1, 3, height, width) from 0 to 1, or `image`, an RGB picture whose bytes the program
            divides by 255, as CoreNet's converter does.
        num_classes: classes of the network.

    Raises:
        UnknownNameError: a layout, target or input that there is not.
        InputError: a class count below one.
    """

    layout: Layout = "paper"
    deployment_target: DeploymentTarget = "iOS15"
    input: InputKind = "array"
    num_classes: int = 1000

    def __post_init__(self) -> None:
        for field, kind in (("layout", Layout), ("deployment_target", DeploymentTarget), ("input", InputKind)):
            if getattr(self, field) not in get_args(kind):
                raise UnknownNameError(field, str(getattr(self, field)), get_args(kind))
        if self.num_classes < 1:
            raise InputError("num_classes", self.num_classes, "must be at least 1")


@dataclass(frozen=True)
class Converted:
    """A converted network.

    Attributes:
        model: the `coremltools.models.MLModel`, not loaded: loading needs a Mac. Its files are temporary and
            go when the process ends.
        settings: as asked for.
        operators: operators of the program, constants apart.
        layout_operators: those among them that compute nothing (`LAYOUT_OPERATORS`).
        max_difference: largest difference of a logit between what was converted and the network, both fp32 in torch.
        seconds: from network to program; importing coremltools, some seconds once in a process, comes on top.
    """

    model: Any
    settings: ConversionSettings
    operators: int
    layout_operators: int
    max_difference: float
    seconds: float


def convert(
    network: "MobileViTConfig | MobileViT", settings: ConversionSettings | None = None, *,
    weights: "Mapping[str, Tensor] | None" = None, seed: int = 0, quiet: bool = True,
) -> Converted:  # fmt: skip
    """Convert a config, with `weights` or with random ones of that seed, or a network, with its own weights.

    What is converted is first run beside the network on a random image. A network that is handed in stays as it is.
    `quiet` keeps coremltools' progress bars and its remarks on versions off stderr.

    Raises:
        InputError: coremltools is not installed, the class count is not the network's, or `weights` do not fit.
        WorkError: the rewritten network does not say what the network says, or torch or coremltools failed.
    """
    settings = settings or ConversionSettings()
    with _silence() if quiet else contextlib.nullcontext():
        ct = _coremltools()
        begin = time.perf_counter()
        config = network if isinstance(network, MobileViTConfig) else network.config
        traced, max_difference = _traced(network, settings, weights, seed)
        model = _program(ct, traced, config, settings)
    _describe(model, config, settings, _origin(network, weights, seed))
    types = [op.op_type for op in model._mil_program.functions["main"].operations if op.op_type != "const"]
    moving = sum(op_type in LAYOUT_OPERATORS for op_type in types)
    return Converted(model, settings, len(types), moving, max_difference, time.perf_counter() - begin)


def write_package(
    network: "MobileViTConfig | MobileViT", settings: ConversionSettings, path: Path, *,
    weights: "Mapping[str, Tensor] | None" = None, seed: int = 0, quiet: bool = True,
) -> Converted:  # fmt: skip
    """Convert, and write the package (a folder) to `path`, which ends in `.mlpackage`; one that is there is replaced.

    The package is written beside `path` and renamed, so that a reader never sees half of one. The result's `model`
    has no files of its own any more.

    Raises:
        InputError: as `convert`, or `path` has another suffix or cannot be written.
        WorkError: as `convert`.
    """
    _require_place(path)
    converted = convert(network, settings, weights=weights, seed=seed, quiet=quiet)
    save_package(converted, path)
    return converted


def save_package(converted: Converted, path: Path) -> None:
    """Write a converted network once; see `write_package`."""
    _require_place(path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            written = Path(folder) / path.name
            converted.model.save(str(written))
            # coremltools keeps it until the process ends, which would fill the disk of a long search.
            shutil.rmtree(converted.model.package_path, ignore_errors=True)
            if path.exists():
                path.rename(Path(folder) / "replaced")
            written.rename(path)
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise InputError("path", str(path), rule, "choose another place") from error


def _require_place(path: Path) -> None:
    """Before the seconds that a conversion takes."""
    if path.suffix != SUFFIX:
        raise InputError("path", str(path), f"must end in {SUFFIX}")
    if not path.parent.is_dir():
        raise InputError("path", str(path), "is in a folder that does not exist", "make it, or choose another place")


def _reference(
    network: "MobileViTConfig | MobileViT", num_classes: int, weights: "Mapping[str, Tensor] | None", seed: int
) -> "MobileViT":
    """The network to convert, on the processor, fp32, in evaluation mode; nobody else's."""
    import copy

    from mvit_search.architecture.random_weights import random_network

    if isinstance(network, MobileViTConfig):
        reference = random_network(network, num_classes, seed=seed)
    else:
        reference = copy.deepcopy(network).cpu().float().eval()
    classes = reference.head.classifier.out_features
    if classes != num_classes:
        raise InputError("num_classes", num_classes, f"the network has {classes} classes", f"say {classes}")
    if weights is not None:
        try:
            reference.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            rule = f"do not fit the network ({str(error)[:_SHOWN]} ...)"
            raise InputError("weights", None, rule, "see `mvit-search weights convert`") from error
    return reference


def _traced(
    network: "MobileViTConfig | MobileViT",
    settings: ConversionSettings,
    weights: "Mapping[str, Tensor] | None",
    seed: int,
) -> "tuple[nn.Module, float]":
    """The network in the layout asked for, traced and checked; its largest difference of a logit."""
    try:
        with _one_thread():
            reference = _reference(network, settings.num_classes, weights, seed)
            traced, difference, scale = _compared(reference, settings.layout)
    except (RuntimeError, MemoryError) as error:
        raise WorkError(f"Core ML conversion: torch could not run the network ({_line(error)})") from error
    # Said this way round a NaN fails.
    if not difference <= _TOLERANCE * scale:
        raise WorkError(
            f"Core ML conversion: the {settings.layout} layout differs from the network by {difference:.2g} in a "
            f"logit, where the largest is {scale:.2g}; at most {_TOLERANCE:g} of it is rounding"
        )
    return traced, difference


def _compared(reference: "MobileViT", layout: Layout) -> "tuple[nn.Module, float, float]":
    """The network in that layout, traced; largest difference of a logit on a random image, and largest logit."""
    import torch

    from mvit_search.architecture.neural_engine import for_neural_engine

    module = for_neural_engine(reference) if layout == "ane" else reference
    image = torch.rand(1, 3, *reference.config.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(image)
        # torch's own check would run the network four times more.
        traced = torch.jit.trace(module, image, check_trace=False)  # type: ignore[no-untyped-call]
        difference = float((traced(image) - expected).abs().max())
    return traced, difference, max(float(expected.abs().max()), _TINY_LOGIT)


def _program(ct: Any, traced: "nn.Module", config: MobileViTConfig, settings: ConversionSettings) -> Any:
    """The MLModel, not loaded; `ct` is coremltools."""
    shape = (1, 3, *config.image_size)
    if settings.input == "image":
        image = ct.ImageType(name=INPUT_NAME, shape=shape, scale=1 / 255, color_layout=ct.colorlayout.RGB)
    else:
        image = ct.TensorType(name=INPUT_NAME, shape=shape)
    try:
        return ct.convert(
            traced,
            inputs=[image],
            outputs=[ct.TensorType(name=OUTPUT_NAME)],
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, settings.deployment_target),
            compute_precision=ct.precision.FLOAT16,
            skip_model_load=True,
        )
    except Exception as error:  # coremltools has no error type of its own
        raise WorkError(f"Core ML conversion: coremltools failed ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _coremltools() -> Any:
    try:
        import coremltools
    except ImportError as error:
        rule = f"cannot be imported ({error})"
        raise InputError("coremltools", None, rule, "install coremltools on Linux or macOS") from error
    return coremltools


def _origin(network: "MobileViTConfig | MobileViT", weights: "Mapping[str, Tensor] | None", seed: int) -> str:
    random = isinstance(network, MobileViTConfig) and weights is None
    return f"random, seed {seed}" if random else "given"


def _describe(model: Any, config: MobileViTConfig, settings: ConversionSettings, origin: str) -> None:
    """Fill in the metadata that Xcode shows and that a measurement is traced by."""
    height, width = config.image_size
    weights = f" Weights: {origin}." if origin != "given" else ""
    model.short_description = (
        f"MobileViT {config.digest()[:12]}, {settings.num_classes} classes, {height} x {width} px, "
        f"{settings.layout} layout.{weights}"
    )
    model.version = __version__
    model.author = "mvit-search"
    channels = "RGB, 0 to 1" if settings.input == "array" else "RGB picture"
    model.input_description[INPUT_NAME] = f"One image, {height} x {width} px, {channels}."
    model.output_description[OUTPUT_NAME] = f"{settings.num_classes} logits; no softmax."
    facts = {
        "version": __version__, "digest": config.digest(), "config": config.canonical_json(), "weights": origin,
        "layout": settings.layout, "deployment_target": settings.deployment_target, "input": settings.input,
        "num_classes": str(settings.num_classes),
    }  # fmt: skip
    for key, value in facts.items():
        model.user_defined_metadata[f"{METADATA_PREFIX}{key}"] = value


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Four images through a small network: beside a busy process more threads wait far longer than they work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No progress bars, no remarks on versions, missing Mac libraries and tracing; whatever fails still raises.

    Holds for the whole process: neither tqdm, which draws to stderr, nor warnings can be silenced for less.
    """
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
