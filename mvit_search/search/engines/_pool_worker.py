"""A worker process of the pool: makes its evaluator once, then answers one task after another."""

import multiprocessing
import os
import pickle
import signal
import threading
from multiprocessing.connection import Connection
from typing import NamedTuple

from mvit_search.search.engines._worker import evaluated, limit_threads, made, portable
from mvit_search.search.task import Evaluation


class WorkerSettings(NamedTuple):
    """What a worker process is started with.

    Attributes:
        make: the pickled factory. It is unpickled after the threads are limited, for that may import torch.
        gpu: for CUDA_VISIBLE_DEVICES; None leaves it.
    """

    make: bytes
    threads: int
    gpu: str | None


Said = Evaluation | Exception | None
"""What a worker says: ready for tasks (None), an evaluation, or an error of the factory or the evaluator."""


def serve(pipe: Connection, settings: WorkerSettings) -> None:
    """The whole life of a worker process."""
    # Ctrl-C reaches every process of a terminal. The driver decides what becomes of the tasks. It started this process
    # with the signal blocked, so that none comes through before this line.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    limit_threads(settings.threads)
    if settings.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu
    try:
        evaluator = made(pickle.loads(settings.make), settings.threads)
    except Exception as error:  # the driver raises it
        pipe.send(portable(error))
        return
    said: Said = None
    while True:
        try:
            pipe.send(said)
            task = pipe.recv()
        except (EOFError, OSError):
            return  # the driver let go
        try:
            said = evaluated(evaluator, task)
        except Exception as error:  # the driver raises it
            said = portable(error)


def _leave_with_parent() -> None:
    """A killed driver's workers would train on, or wait for tasks for good, beside those of the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
