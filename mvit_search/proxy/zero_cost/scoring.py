"""`score`: one candidate, one zero-cost score, on one thread count, with nothing left changed."""

import math
import time
from collections.abc import Callable

import torch

from mvit_search.architecture import MobileViTConfig
from mvit_search.data import ImageSet
from mvit_search.errors import WorkError
from mvit_search.proxy.session import build
from mvit_search.proxy.threads import torch_threads
from mvit_search.proxy.zero_cost import ZeroCostScore, check_name
from mvit_search.proxy.zero_cost._base import Measure
from mvit_search.proxy.zero_cost.grad_norm import grad_norm
from mvit_search.proxy.zero_cost.images import plain_batches
from mvit_search.proxy.zero_cost.jacob_cov import jacob_cov
from mvit_search.proxy.zero_cost.macs import macs
from mvit_search.proxy.zero_cost.naswot import naswot
from mvit_search.proxy.zero_cost.params import params
from mvit_search.proxy.zero_cost.snip import snip
from mvit_search.proxy.zero_cost.synflow import synflow
from mvit_search.proxy.zero_cost.zen import zen
from mvit_search.proxy.zero_cost.zico import zico

OF_TABLE: dict[str, Callable[[MobileViTConfig, int], float]] = {"params": params, "macs": macs}
"""Scores of the operator table: (config, classes) -> value. They look at no network, no data and no seed."""

OF_NETWORK: dict[str, Measure] = {
    "synflow": synflow,
    "jacob_cov": jacob_cov,
    "naswot": naswot,
    "snip": snip,
    "grad_norm": grad_norm,
    "zen": zen,
    "zico": zico,
}
"""Scores of an untrained network; see `_base.py` for what they are handed."""

_BATCHES = {"zico": 2}


def score(
    name: str, config: MobileViTConfig, data: ImageSet, *, seed: int, device: str = "cpu", threads: int | None = None,
    share: float = 1.0,
) -> ZeroCostScore:  # fmt: skip
    """The score of that name for `config`; larger is better, and values of different names do not compare.

    On the CPU the same arguments, threads and torch give the same value, bit for bit. The caller's random state and
    thread count are left as they were. The network takes the data's class count and `share` of its resolution, as
    `train` does; `macs` counts at the config's own.

    Args:
        seed: decides the first weights, the images looked at, and what the score itself draws.
        device: `mps` computes on the processor, for want of double precision.
        threads: torch's threads within one operator while this runs; None leaves the setting.

    Raises:
        UnknownNameError: no such score.
        InputError: too few images.
        WorkError: the network cannot be run, or the value is NaN or infinite.
    """
    check_name(name)
    start = time.perf_counter()
    try:
        with torch_threads(threads), torch.random.fork_rng(devices=[]):
            value = _value(name, config, data, seed, _with_doubles(torch.device(device)), share)
    except (RuntimeError, MemoryError) as error:
        # RuntimeError is torch's: out of memory, or an operator that cannot run.
        raise WorkError(f"{name}: {' '.join(str(error).split())[:400] or type(error).__name__}") from None
    if not math.isfinite(value):
        raise WorkError(f"{name}: the score is {value}")
    return ZeroCostScore(value, time.perf_counter() - start)


def _value(name: str, config: MobileViTConfig, data: ImageSet, seed: int, device: torch.device, share: float) -> float:
    if name in OF_TABLE:
        return OF_TABLE[name](config, data.num_classes)
    batches = plain_batches(data, _BATCHES.get(name, 1), seed=seed, device=device, share=share)
    network = build(config, data.num_classes, seed, device).train()
    return OF_NETWORK[name](network, batches, torch.Generator().manual_seed(seed))


def _with_doubles(device: torch.device) -> torch.device:
    """The device, or the processor in place of Apple's GPUs: scores need double precision, which those lack."""
    return torch.device("cpu") if device.type == "mps" else device
