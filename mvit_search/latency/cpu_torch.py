"""Latency measured with torch on this machine's processor: real everywhere, and no phone's."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from mvit_search._files import write_atomically
from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.config import parse_config
from mvit_search.errors import InputError, WorkError
from mvit_search.latency import machine
from mvit_search.latency.runtime import Measurement, MeasuringProtocol
from mvit_search.latency.surroundings import Surroundings
from mvit_search.latency.timing import Clock, Timings, TimingSettings, time_runs, timed

CPU_TIMING = TimingSettings(warmup=10, min_runs=30, max_seconds=5.0)


@dataclass(frozen=True)
class CpuTorchRuntime:
    """Runs the network eagerly, fp32 and batch 1, on a fixed number of threads.

    The process's thread count and random state are left as they were. `clock` counts seconds.

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
        return "cpu-torch"

    @property
    def suffix(self) -> str:
        return ".json"

    @property
    def identity(self) -> str:
        protocol = self.protocol
        return f"cpu-torch-{_torch_version()}-threads-{self.threads}-{self.timing.word}-{protocol.digest}"

    @property
    def protocol(self) -> MeasuringProtocol:
        """How it measures."""
        return MeasuringProtocol(
            runtime=f"torch {_torch_version()} eager",
            device=machine.processor(),
            system=machine.system(),
            compute_units="CPU",
            precision="fp32",
            io="float32 array",
            threads=self.threads,
            warmup=self.timing.warmup,
            rule=self.timing.rule,
        )

    def require_device(self) -> None:
        """Nothing to require: torch comes with this package, and there is always a processor."""

    def write(self, config: MobileViTConfig, num_classes: int, path: Path) -> None:
        """Write the config and its class count as JSON; the weights are drawn when it is measured.

        Raises:
            InputError: `path` cannot be written.
        """
        document = {"config": config.model_dump(mode="json"), "num_classes": num_classes}
        try:
            write_atomically(path, json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise InputError("path", str(path), f"cannot be written ({error.strerror})") from error

    def measure(self, path: Path) -> Measurement:
        """Build the network with random weights and time it at `config.image_size`.

        Raises:
            InputError: the file is no such document.
            WorkError: torch could not build or run it, for want of memory for instance.
        """
        config, num_classes = read_network(path)
        try:
            timings, remarks = self._timings(config, num_classes)
        except (RuntimeError, MemoryError) as error:
            raise WorkError(f"cpu-torch: torch could not run the network ({error})") from error
        return timings.measurement(self.protocol, notes=remarks)

    def _timings(self, config: MobileViTConfig, num_classes: int) -> tuple[Timings, tuple[str, ...]]:
        # torch takes seconds to import and predicting needs none of it.
        import torch

        from mvit_search.architecture.random_weights import random_network

        network = random_network(config, num_classes)
        image = torch.rand(1, 3, *config.image_size, generator=torch.Generator().manual_seed(0))
        with _threads(self.threads), torch.inference_mode():
            around = Surroundings(self.clock)
            timings = time_runs(timed(lambda: network(image), self.clock), self.timing, clock=self.clock)
            return timings, around.remarks()


def read_network(path: Path) -> tuple[MobileViTConfig, int]:
    """Config and class count of a document that `CpuTorchRuntime.write` wrote.

    Raises:
        InputError: it is no such document, or holds a config that cannot be built.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, f"cannot be read as JSON ({error})", _WRITTEN_BY) from None
    if not isinstance(document, dict) or document.keys() != {"config", "num_classes"}:
        raise InputError(str(path), None, "must hold the keys 'config' and 'num_classes', and no others", _WRITTEN_BY)
    classes = document["num_classes"]
    if not isinstance(classes, int) or isinstance(classes, bool) or not 1 <= classes <= _MAX_CLASSES:
        raise InputError(f"{path.name}: num_classes", classes, f"must be a whole number from 1 to {_MAX_CLASSES:,}")
    return parse_config(document["config"], source=path.name), classes


def require_threads(threads: int) -> None:
    """Raises InputError below one thread."""
    if threads < 1:
        raise InputError("threads", threads, "must be at least 1")


_MAX_CLASSES = 1_000_000
_WRITTEN_BY = "write it with `mvit-search measure --plan N --target cpu-torch`"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _torch_version() -> str:
    """Without the build tag (`+cpu`), and without importing torch."""
    return version("torch").partition("+")[0]
