"""`train`: one candidate, one seed, one short training, accuracies on held-out images."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from mvit_search.architecture import MobileViTConfig
from mvit_search.data import ImageSet
from mvit_search.errors import InputError, OutOfMemory
from mvit_search.proxy.allocator import freed_memory_kept
from mvit_search.proxy.kept_weights import read_weights
from mvit_search.proxy.recipe import Recipe
from mvit_search.proxy.result import ProxyResult
from mvit_search.proxy.session import TrainingSession
from mvit_search.proxy.threads import torch_threads

_SMALLEST_PART = 4

OnEpoch = Callable[[int, float], None]


def train(
    config: MobileViTConfig,
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    threads: int | None = None,
    share: float = 1.0,
    rungs: Collection[int] = (),
    until: int | None = None,
    checkpoint: Path | None = None,
    save_every_s: float | None = None,
    stop: Callable[[], bool] | None = None,
    on_epoch: OnEpoch | None = None,
    first_weights: Path | None = None,
    keep_weights: Path | None = None,
) -> ProxyResult:
    """Train `config` on the training images and score it on the held-out ones.

    On the CPU the same arguments, the same number of threads and the same torch give the same result, bit for
    bit, whether in one go or stopped and carried on; the caller's random state and thread count are left as they
    were. The network takes the data's class count and `share` of its resolution, whatever resolution the config
    is costed at.

    What does not fit in memory as one batch goes through the network in halves, quarters, ... of it: slower, and
    with batch-norm statistics of these. `ProxyResult.largest_batch` says what fitted.

    Args:
        seed: decides the first weights, the order of the images and their random views.
        threads: torch's threads within one operator while this runs; None leaves the setting.
        share: of the recipe's side, 0..1: how a space whose resolution varies shows smaller images to a candidate
            that would be given smaller ones.
        rungs: epochs after which it is scored, besides the last. Scoring changes nothing of the training.
        until: stop after this epoch, score, and leave the rest of the schedule for later; None trains to the end.
        checkpoint: file that the training is carried on from, where it exists, and is saved to at every rung.
        save_every_s: save it after the first epoch that ends so many seconds after the last time, and not at rungs:
            for a training whose result is all that is wanted of it.
        stop: asked after every epoch; once it says so the training is saved and left as it is. Its result then has
            the rungs so far, which may be none.
        on_epoch: called after every epoch with its number, from 1, and the mean training loss.
        first_weights: file that another training of the same network left, to begin with instead of weights drawn by
            `seed`. The schedule is the recipe's own from its start, warm-up included, with fresh moments.
        keep_weights: file to leave for such a training, once the last epoch of the schedule is trained.

    Raises:
        InputError: fewer training images than a batch, data of another resolution than the recipe's; `checkpoint`:
            a damaged checkpoint or one of another training, first weights that are damaged or of another network.
        OSError: a file cannot be written.
        TrainingDiverged: the loss became NaN or infinite.
        OutOfMemory: not even a few images at once fit.
    """
    require_trainable(data, recipe)
    first = read_weights(first_weights, config, data.num_classes) if first_weights is not None else None
    part = recipe.batch_size
    with torch_threads(threads), freed_memory_kept():
        while True:
            session: TrainingSession | None = None
            try:
                session = TrainingSession(
                    config, data, recipe, seed=seed, device=device, share=share, largest_batch=part, first=first
                )
                result = _run(session, {*rungs, until or recipe.epochs}, checkpoint, save_every_s, stop, on_epoch)
                if keep_weights is not None and session.epoch == recipe.epochs:
                    session.keep(keep_weights)
                return result
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                tried = session.largest_batch if session is not None else part
                part = tried // 2
                if part < min(_SMALLEST_PART, recipe.batch_size):
                    rule = f"does not fit in memory at {tried} images at once ({_first_line(error)})"
                    raise OutOfMemory(rule) from error
            # From the start, so that a seed means one result however memory was found to be short.
            del session
            _give_back(torch.device(device), checkpoint)


def _run(
    session: TrainingSession, rungs: set[int], checkpoint: Path | None, save_every_s: float | None,
    stop: Callable[[], bool] | None, on_epoch: OnEpoch | None,
) -> ProxyResult:  # fmt: skip
    if checkpoint is not None and checkpoint.exists():
        session.load(checkpoint)
    last = min(max(rungs), session.recipe.epochs)
    rungs = {epoch for epoch in rungs if epoch < last} | {last}
    trained, first, saved = 0.0, session.image_steps, time.monotonic()
    if session.epoch == last and not any(rung.epoch == last for rung in session.rungs):
        session.score()  # it was stopped and saved where nobody had asked for a score
    while session.epoch < last:
        start = time.perf_counter()
        loss = session.advance()
        trained += time.perf_counter() - start
        if on_epoch is not None:
            on_epoch(session.epoch, loss)
        if session.epoch in rungs:
            session.score()
        stopped = stop is not None and stop()
        due = session.epoch in rungs
        if save_every_s is not None:
            due = time.monotonic() - saved >= save_every_s and session.epoch < last
            stopped = stopped and session.epoch < last
        if checkpoint is not None and (due or stopped):
            session.save(checkpoint)
            saved = time.monotonic()
        if stopped:
            break
    rate = (session.image_steps - first) / trained if trained else 0.0
    return ProxyResult(tuple(session.rungs), session.steps, rate, session.largest_batch)


def require_trainable(data: ImageSet, recipe: Recipe) -> None:
    """Refuse data that the recipe cannot train on; cheap, for checking before a search begins.

    Raises:
        InputError: as in `train`.
    """
    needed = max([recipe.batch_size, *map(recipe.batch_at, recipe.scales)])
    if len(data.train_images) < needed:
        rule = f"has {len(data.train_images)} training images, fewer than a batch of {needed}"
        advice = "add images (--images, --data-fraction), or lower the recipe's batch_size (--recipe)"
        raise InputError("data", data.name, rule, advice)
    if data.image_size != recipe.image_size:
        rule = f"was loaded at {data.image_size} px, the recipe says {recipe.image_size} px"
        raise InputError("data", data.name, rule, "load it with image_size=recipe.image_size")


def _out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether torch (or Python) asked for memory in vain; on the CPU torch has no type of its own for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in ("not enough memory", "can't allocate memory", "out of memory"))


def _give_back(device: torch.device, checkpoint: Path | None) -> None:
    """Free what the failed attempt held; its checkpoint was made with larger parts."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
