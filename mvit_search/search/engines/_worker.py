"""What every worker process does, whoever started it: threads, the evaluator, errors that can travel."""

import os
import pickle
import sys
import traceback

from mvit_search.errors import MvitSearchError, WorkError
from mvit_search.search.engines._base import EvaluatorFactory
from mvit_search.search.task import Evaluation, Evaluator, Task


def limit_threads(threads: int) -> None:
    """For libraries that are loaded from now on; torch reads it as it is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def made(make: EvaluatorFactory, threads: int) -> Evaluator:
    """The evaluator of this process."""
    evaluator = make()
    if "torch" in sys.modules:  # evaluators that look values up load none, and start in a fraction of the time
        import torch

        torch.set_num_threads(threads)
    return evaluator


def evaluated(evaluator: Evaluator, task: Task) -> Evaluation:
    """The evaluation. A process that has lost its GPU would fail every later task too, so it ends: that is a death."""
    try:
        return evaluator.evaluate(task)
    except RuntimeError as error:  # torch's
        if "CUDA error" in str(error):
            os._exit(1)
        raise


def portable(error: Exception) -> Exception:
    """The error as another process can raise it, with the lines it came from as a note."""
    if not isinstance(error, MvitSearchError):  # those are told in one line
        error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign class does when it is pickled
        return WorkError(f"{type(error).__name__}: {' '.join(str(error).split())}")
    return error
