"""Evaluating candidates: the seam between the loop and what values them."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from mvit_search.architecture import MobileViTConfig
from mvit_search.data import ImageSet
from mvit_search.errors import MvitSearchError
from mvit_search.proxy import Recipe


class Evaluation(NamedTuple):
    """One candidate with one seed: its value, or why there is none; and how long it took.

    Attributes:
        value: held-out top-1 (0..1) of a training; where the run's proxy is a zero-cost score, that score.
        largest_batch: images that fitted in memory at once, where a whole batch did not; else None.
    """

    value: float | None
    seconds: float
    error: str | None = None
    largest_batch: int | None = None


class Evaluator(Protocol):
    """Values a candidate with a seed. A candidate that fails is an `Evaluation` with `error`, not an exception."""

    def evaluate(self, config: MobileViTConfig, seed: int) -> Evaluation: ...


class InProcessEvaluator:
    """Trains in this process, one candidate at a time.

    `relative_size` is a candidate's resolution over the largest of the space: one of half sees images of half the
    recipe's side, so that what resolution costs in accuracy is seen as well as what it saves in latency.
    """

    def __init__(
        self, data: ImageSet, recipe: Recipe, *, relative_size: Callable[[MobileViTConfig], float],
        device: str = "cpu", threads: int = 1,
    ) -> None:  # fmt: skip
        self.data, self.recipe, self.device, self.threads = data, recipe, device, threads
        self.relative_size = relative_size

    def evaluate(self, config: MobileViTConfig, seed: int) -> Evaluation:
        import time

        from mvit_search.proxy import train

        start = time.perf_counter()
        try:
            result = train(
                config, self.data, self.recipe, seed=seed, device=self.device, threads=self.threads,
                share=self.relative_size(config),
            )  # fmt: skip
        except (MvitSearchError, MemoryError, RuntimeError) as error:
            # RuntimeError is torch's: out of memory, or an operator that cannot run. One candidate's, not the run's.
            reason = " ".join(str(error).split()) or type(error).__name__
            return Evaluation(None, time.perf_counter() - start, reason[:500])
        short = result.largest_batch if result.largest_batch < self.recipe.batch_size else None
        return Evaluation(result.top1, result.seconds, largest_batch=short)


class ZeroCostEvaluator:
    """Scores untrained networks in this process; as `InProcessEvaluator`, without the training."""

    def __init__(
        self, name: str, data: ImageSet, *, relative_size: Callable[[MobileViTConfig], float], device: str = "cpu",
        threads: int = 1,
    ) -> None:  # fmt: skip
        self.name, self.data, self.device, self.threads = name, data, device, threads
        self.relative_size = relative_size

    def evaluate(self, config: MobileViTConfig, seed: int) -> Evaluation:
        import time

        from mvit_search.proxy.zero_cost import score

        start = time.perf_counter()
        try:
            found = score(
                self.name, config, self.data, seed=seed, device=self.device, threads=self.threads,
                share=self.relative_size(config),
            )  # fmt: skip
        except MvitSearchError as error:
            return Evaluation(None, time.perf_counter() - start, str(error)[:500])
        return Evaluation(found.value, found.seconds)
