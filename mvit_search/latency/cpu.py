"""Latency measured with torch on this machine's processor: real everywhere, and no phone's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from statistics import quantiles

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError, WorkError
from mvit_search.latency.base import Latency


@dataclass(frozen=True)
class CpuTarget:
    """Runs the network, fp32 and batch 1: the median of at least `repeats` runs after `warmup` ones.

    Runs repeat until `seconds` are over too, so that a small network is timed more often. `clock` counts
    seconds. The process's thread count and random state are left as they were.

    Raises:
        InputError: a number is out of range.
    """

    threads: int = 2
    warmup: int = 5
    repeats: int = 20
    seconds: float = 1.5
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        for field, smallest in (("threads", 1), ("warmup", 0), ("repeats", 2), ("seconds", 0)):
            value = getattr(self, field)
            if not smallest <= value < float("inf"):
                raise InputError(field, value, f"must be a finite number of at least {smallest}")

    @property
    def name(self) -> str:
        return "cpu"

    @property
    def measured(self) -> bool:
        return True

    @property
    def calibration(self) -> str:
        """Identity of the protocol; another torch, or another number of threads, is another."""
        settings = f"threads-{self.threads}-warmup-{self.warmup}-repeats-{self.repeats}-seconds-{self.seconds:g}"
        return f"cpu-torch-{_torch_version()}-{settings}"

    @property
    def protocol(self) -> str:
        """The protocol in words."""
        return (
            f"torch {_torch_version()} eager, fp32, batch 1, eval, inference mode, {self._thread_words}; "
            f"{self.warmup} warm-up runs, then at least {self.repeats} runs and {self.seconds:g} s; "
            "median, 10th and 90th percentile"
        )

    @property
    def _thread_words(self) -> str:
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Build the network with random weights and time it at `config.image_size`.

        Raises:
            WorkError: torch could not build or run it, for want of memory for instance.
        """
        try:
            times_ms = self._times_ms(config, num_classes)
        except (RuntimeError, MemoryError) as error:
            raise WorkError(f"cpu latency: torch could not run the network ({error})") from error
        deciles = quantiles(times_ms, n=10, method="inclusive")
        source = f"measured: cpu, torch {_torch_version()}, {self._thread_words}, median of {len(times_ms)}"
        return Latency(deciles[4], deciles[0], deciles[8], source, self.name, self.protocol)

    def _times_ms(self, config: MobileViTConfig, num_classes: int) -> list[float]:
        # torch takes seconds to import and predicting needs none of it.
        import torch

        from mvit_search.architecture.network import MobileViT

        threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            # Timing a candidate must not change the random numbers of the search around it.
            with torch.random.fork_rng(devices=[]), torch.inference_mode():
                torch.default_generator.manual_seed(0)
                network = MobileViT(config, num_classes).eval()
                image = torch.randn(1, 3, *config.image_size)
                return self._time(lambda: network(image))
        finally:
            torch.set_num_threads(threads_before)

    def _time(self, run: Callable[[], object]) -> list[float]:
        """Milliseconds of each run."""
        for _ in range(self.warmup):
            run()
        times_ms: list[float] = []
        begin = self.clock()
        while True:
            before = self.clock()
            run()
            after = self.clock()
            times_ms.append(1e3 * (after - before))
            if len(times_ms) >= self.repeats and after - begin >= self.seconds:
                return times_ms


def _torch_version() -> str:
    """Without the build tag (`+cpu`), and without importing torch."""
    return version("torch").partition("+")[0]
