"""What a Ray worker process does: makes the run's evaluator once, and carries weights files in and out.

Needs `mvit_search` installed on every node, in the driver's version: only the factory and the tasks travel.
"""

import platform
import signal
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mvit_search import __version__
from mvit_search.errors import InputError
from mvit_search.search.engines._worker import evaluated, limit_threads, made, portable
from mvit_search.search.task import Evaluation, Evaluator, Task


class Order(NamedTuple):
    """What all tasks of a run share.

    Attributes:
        run: tells one run's evaluator from another's in a process that serves both.
        make: reference to the factory, in a tuple so that Ray does not unpack it for every task.
    """

    run: str
    version: str
    make: tuple[Any]
    threads: int


class Answer(NamedTuple):
    """`error` is what the factory or the evaluator raised; `kept` is the weights file that the task left."""

    evaluation: Evaluation | None
    kept: bytes | None = None
    error: Exception | None = None


_kept: tuple[str, Evaluator] | None = None  # one a process: the evaluator of the run that it last worked for


def work(order: Order, task: Task | None, start: bytes | None) -> Answer:
    """Value a candidate; without a task only make the evaluator."""
    import ray.exceptions

    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As in all that a shell starts in the background. Ray interrupts a task that is called off by just that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        evaluator = _evaluator(order)
        return Answer(None) if task is None else _valued(evaluator, task, start)
    except ray.exceptions.RayError:
        raise  # the factory could not be had: Ray's own trouble, so the task is tried again
    except Exception as error:
        return Answer(None, error=portable(error))


def _evaluator(order: Order) -> Evaluator:
    global _kept
    import ray

    if _kept is None or _kept[0] != order.run:
        _kept = None  # the pixels of another run are let go first
        if order.version != __version__:
            rule = f"of the driver is not that of node {platform.node()}, {__version__}"
            raise InputError("mvit-search", order.version, rule, "install the same version everywhere")
        limit_threads(order.threads)
        _kept = order.run, made(ray.get(order.make[0]), order.threads)
    return _kept[1]


def _valued(evaluator: Evaluator, task: Task, start: bytes | None) -> Answer:
    with tempfile.TemporaryDirectory(prefix="mvit-search-") as folder:
        here = Path(folder)
        given = here / f"start{task.start.suffix}" if task.start is not None and start is not None else None
        if given is not None and start is not None:
            given.write_bytes(start)
        left = here / f"keep{task.keep.suffix}" if task.keep is not None else None
        evaluation = evaluated(evaluator, task._replace(start=given, keep=left))
        return Answer(evaluation, left.read_bytes() if left is not None and left.exists() else None)
