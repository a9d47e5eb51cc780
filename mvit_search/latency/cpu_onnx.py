"""Latency measured with ONNX Runtime on this machine's processor, of our networks and of any static ONNX file."""

import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError, WorkError
from mvit_search.latency import machine
from mvit_search.latency.cpu_torch import CPU_TIMING, require_threads
from mvit_search.latency.runtime import Measurement, MeasuringProtocol
from mvit_search.latency.surroundings import Surroundings
from mvit_search.latency.timing import Clock, TimingSettings, time_runs, timed

if TYPE_CHECKING:
    import numpy as np

_EXTRA = "pip install 'mvit-search[onnx]'"
_OPSET = 17
"""The first with LayerNormalization as one operator."""
_ERRORS_ONLY = 3
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "float64": "fp64", "uint8": "uint8", "int8": "int8"}


@dataclass(frozen=True)
class CpuOnnxRuntime:
    """Runs an ONNX file, batch 1, with the CPU provider on a fixed number of threads, one operator after another.

    `clock` counts seconds.

    Raises:
        InputError: fewer than one thread.
    """

    threads: int = 2
    timing: TimingSettings = CPU_TIMING
    clock: Clock = field(default=time.perf_counter, repr=False)

    def __post_init__(self) -> None:
        require_threads(self.threads)

    @property
    def name(self) -> str:
        return "cpu-onnx"

    @property
    def suffix(self) -> str:
        return ".onnx"

    @property
    def identity(self) -> str:
        protocol = self.protocol("fp32", "float32 array")
        return f"cpu-onnx-{_version()}-threads-{self.threads}-{self.timing.word}-{protocol.digest}"

    def protocol(self, precision: str, io: str) -> MeasuringProtocol:
        """How it measures a network of that precision and input."""
        return MeasuringProtocol(
            runtime=f"ONNX Runtime {_version()}",
            device=machine.processor(),
            system=machine.system(),
            compute_units="CPU",
            precision=precision,
            io=io,
            threads=self.threads,
            warmup=self.timing.warmup,
            rule=self.timing.rule,
        )

    def require_device(self) -> None:
        """Require the extra `onnx`.

        Raises:
            InputError: it is not installed.
        """
        _version()

    def write(self, config: MobileViTConfig, num_classes: int, path: Path) -> None:
        """Export the network with random weights, fp32, batch 1 and static shapes.

        Raises:
            InputError: the extra `onnx` is not installed, or `path` cannot be written.
            WorkError: torch could not export the network.
        """
        self.require_device()
        export(config, num_classes, path)

    def measure(self, path: Path) -> Measurement:
        """Time the network at `path` on random input; a batch that the file leaves open is 1.

        Raises:
            InputError: the extra is not installed, the file is no ONNX model, or a shape in it is not static.
            WorkError: ONNX Runtime failed on it.
        """
        session = self._session(path)
        inputs = {given.name: _random_array(given, path) for given in session.get_inputs()}
        run_ms = timed(lambda: session.run(None, inputs), self.clock)
        around = Surroundings(self.clock)
        try:
            timings = time_runs(run_ms, self.timing, clock=self.clock)
        except WorkError:
            raise
        except Exception as error:  # its errors have no class of their own in common
            raise WorkError(f"cpu-onnx: ONNX Runtime could not run {path.name} ({error})") from error
        precision, io = _words(list(inputs.values()))
        return timings.measurement(self.protocol(precision, io), notes=around.remarks())

    def _session(self, path: Path) -> Any:
        _version()
        import onnxruntime

        if not path.is_file():
            raise InputError(str(path), None, "is no file", "give a .onnx file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _ERRORS_ONLY
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class of their own in common
            rule = f"is no model that ONNX Runtime {_version()} can load ({error})"
            raise InputError(path.name, None, rule, "give an ONNX file that needs no custom operators") from None


def export(config: MobileViTConfig, num_classes: int, path: Path) -> None:
    """Write the network with random weights as an ONNX file of static shapes.

    The exporter that traces is used. The newer one (`dynamo=True`) takes seven times as long, needs onnxscript,
    and ONNX Runtime makes the same operators of either file. docs/measuring.md has the figures.

    Raises:
        InputError: `path` cannot be written.
        WorkError: torch could not export the network.
    """
    import warnings

    import torch

    from mvit_search.architecture.random_weights import random_network

    network = random_network(config, num_classes)
    image = torch.zeros(1, 3, *config.image_size)
    try:
        # It warns that it is the older one, and of every shape that tracing makes a constant, as is meant here.
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network, (image,), str(path), dynamo=False, opset_version=_OPSET,
                input_names=["image"], output_names=["logits"],
            )  # fmt: skip
    except OSError as error:
        raise InputError("path", str(path), f"cannot be written ({error.strerror})") from error
    except (RuntimeError, MemoryError) as error:
        raise WorkError(f"cpu-onnx: torch could not export the network ({error})") from error


def _random_array(given: Any, path: Path) -> "np.ndarray[Any, Any]":
    """Random numbers in the shape and type of an input; whole numbers are zeros, which index any table.

    Raises:
        InputError: the input is no tensor of numbers, or a side other than the first is open.
    """
    import numpy as np

    numbers = {
        "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
        "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int32)": np.int32, "tensor(int64)": np.int64,
    }  # fmt: skip
    if given.type not in numbers:
        raise InputError(f"{path.name}: {given.name}", given.type, "must be a tensor of numbers")
    shape = [_side(given, place, path) for place in range(len(given.shape))]
    kind = np.dtype(numbers[given.type])
    if kind.kind != "f":
        return np.zeros(shape, kind)
    return np.random.default_rng(0).random(shape).astype(kind)


def _side(given: Any, place: int, path: Path) -> int:
    side = given.shape[place]
    if isinstance(side, int) and side > 0:
        return side
    if place == 0:
        return 1
    shape = "x".join(str(part) for part in given.shape)
    rule = f"has the shape {shape}, where {side!r} (axis {place}) is not static"
    raise InputError(f"{path.name}: {given.name}", None, rule, "export it anew with every side but the batch fixed")


def _words(inputs: "list[np.ndarray[Any, Any]]") -> tuple[str, str]:
    """Precision and input in the words of a protocol."""
    kinds = sorted({array.dtype.name for array in inputs})
    return _PRECISIONS.get(kinds[0], kinds[0]), " and ".join(f"{kind} array" for kind in kinds)


def _version() -> str:
    """ONNX Runtime's, without importing it.

    Raises:
        InputError: the extra is not installed.
    """
    try:
        version("onnx")
        return version("onnxruntime")
    except PackageNotFoundError as error:
        raise InputError("cpu-onnx", None, f"needs {error.name}, which is not installed", _EXTRA) from None
