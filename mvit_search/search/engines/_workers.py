"""How many workers an engine has when it is not told, and which GPU each gets."""

import os

from mvit_search.errors import InputError

WORKERS_OF_A_GPU = 4
"""A small network leaves a GPU mostly idle, so four trainings share one (docs/proxies.md)."""


def checked_workers(workers: int | None) -> int | None:
    """Raises InputError where there would be none."""
    if workers is not None and workers < 1:
        raise InputError("--workers", workers, "must be 1 or more", "leave it out to use every core")
    return workers


def default_workers(device: str, threads: int, gpus: int) -> int:
    """Tasks at once on this machine: as many as there are cores for, on a GPU four."""
    if device != "cpu":
        return WORKERS_OF_A_GPU * max(1, gpus)
    return max(1, (os.cpu_count() or 1) // max(1, threads))


def gpus_to_share(device: str) -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, one a GPU; none unless the device is `cuda` without a number."""
    if device != "cuda":
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return [name.strip() for name in names[:count]]
