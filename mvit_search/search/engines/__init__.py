"""Engines: where the work of a run is done. One file each; this table is the registration.

`in-process` is the default with one worker, `pool` with several; `ray` is asked for.
"""

from collections.abc import Callable

from mvit_search.errors import UnknownNameError
from mvit_search.search.engines._base import RETRIES, Engine, EngineSettings, EvaluatorFactory, Finished
from mvit_search.search.engines.in_process import InProcess


def _pool(settings: EngineSettings) -> Engine:
    from mvit_search.search.engines.pool import Pool

    return Pool.open(settings)


def _ray(settings: EngineSettings) -> Engine:
    from mvit_search.search.engines.ray_cluster import RayCluster

    return RayCluster.open(settings)


ENGINES: dict[str, Callable[[EngineSettings], Engine]] = {
    "in-process": InProcess.open,
    "pool": _pool,
    "ray": _ray,
}


def check_engine(name: str) -> None:
    """Raises UnknownNameError, with the nearest name, for an unknown engine."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)


def open_engine(name: str, settings: EngineSettings) -> Engine:
    """The engine of that name, ready for tasks.

    Raises:
        InputError: an extra that is not installed, a cluster that does not answer, no workers.
        WorkError: workers that die as they start.
    """
    check_engine(name)
    return ENGINES[name](settings)


__all__ = [
    "ENGINES", "RETRIES", "Engine", "EngineSettings", "EvaluatorFactory", "Finished", "InProcess", "check_engine",
    "open_engine",
]  # fmt: skip
