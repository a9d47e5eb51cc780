"""`train`: one candidate, one seed, one short training, one accuracy on held-out images."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.network import MobileViT
from mvit_search.data import ImageSet
from mvit_search.errors import InputError, TrainingDiverged
from mvit_search.proxy.batches import Batches
from mvit_search.proxy.recipe import Recipe
from mvit_search.proxy.result import ProxyResult

_EVALUATION_BATCH = 256
_RECALIBRATION_BATCH = 128
_CHECK_EVERY = 20  # steps between looks at the loss on a GPU, where each look waits for the device

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
    on_epoch: OnEpoch | None = None,
) -> ProxyResult:
    """Train `config` from scratch on the training images and score it on the held-out ones.

    On the CPU the same arguments, the same number of threads and the same torch give the same result, bit for
    bit; the caller's random state and thread count are left as they were. The network takes the data's class
    count and `share` of its resolution, whatever resolution the config is costed at.

    Args:
        seed: decides the first weights, the order of the images and their random views.
        threads: torch's threads within one operator while this runs; None leaves the setting.
        share: of the recipe's side, 0..1: how a space whose resolution varies shows smaller images to a candidate
            that would be given smaller ones.
        on_epoch: called after every epoch with its number, from 1, and the mean training loss.

    Raises:
        InputError: fewer training images than a batch, or data of another resolution than the recipe's.
        TrainingDiverged: the loss became NaN or infinite.
    """
    require_trainable(data, recipe)
    start = time.perf_counter()
    with _threads(threads):
        network = build(config, data.num_classes, seed, torch.device(device))
        batches = Batches(data, recipe, torch.device(device), torch.Generator().manual_seed(seed), share)
        steps = fit(network, batches, recipe, on_epoch)
        trained = time.perf_counter()
        recalibrate(network, batches)
        top1, loss = evaluate(network, batches, data)
    finished = time.perf_counter()
    rate = steps * recipe.batch_size / (trained - start)
    return ProxyResult(top1, loss, recipe.epochs, steps, finished - start, rate)


def require_trainable(data: ImageSet, recipe: Recipe) -> None:
    """Refuse data that the recipe cannot train on; cheap, for checking before a search begins.

    Raises:
        InputError: as in `train`.
    """
    if len(data.train_images) < recipe.batch_size:
        rule = f"has {len(data.train_images)} training images, fewer than a batch of {recipe.batch_size}"
        raise InputError("data", data.name, rule, "add images")
    if data.image_size != recipe.image_size:
        rule = f"was loaded at {data.image_size} px, the recipe says {recipe.image_size} px"
        raise InputError("data", data.name, rule, "load it with image_size=recipe.image_size")


def build(config: MobileViTConfig, num_classes: int, seed: int, device: torch.device) -> MobileViT:
    """The network with the first weights that `seed` gives, channels-last on `device`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MobileViT(config, num_classes)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; weight decay on convolutions and matrices, none on norms and biases (all of rank 1)."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One fused kernel: with a network of 300 small tensors the step otherwise costs a fifth of the time.
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up to `recipe.learning_rate`, then a cosine to zero; `step` counts from 0."""
    steps = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), steps - 1)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def fit(network: nn.Module, batches: Batches, recipe: Recipe, on_epoch: OnEpoch | None = None) -> int:
    """Train in place; returns the number of steps.

    Raises:
        TrainingDiverged: the loss became NaN or infinite.
    """
    adamw = optimiser(network, recipe)
    network.train()
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        losses: list[torch.Tensor] = []
        for images, labels in batches.epoch():
            for group in adamw.param_groups:
                group["lr"] = learning_rate(recipe, step, batches.steps_per_epoch)
            adamw.zero_grad()
            loss = F.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
            adamw.step()
            losses.append(loss.detach())
            step += 1
            if loss.device.type == "cpu" or step % _CHECK_EVERY == 0:
                _require_finite(float(losses[-1]), f"training loss at step {step}")
        mean = float(torch.stack(losses).mean())
        _require_finite(mean, f"training loss in epoch {epoch}")
        if on_epoch is not None:
            on_epoch(epoch, mean)
    return step


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Batches) -> None:
    """Take batch-norm statistics anew with the final weights, all batches weighing the same."""
    views = list(batches.recalibration(_RECALIBRATION_BATCH))
    if not views:
        return
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # None = cumulative average
    network.train()
    for images in views:
        network(images)


@torch.no_grad()
def evaluate(network: nn.Module, batches: Batches, data: ImageSet) -> tuple[float, float]:
    """(top-1 as 0..1, mean cross-entropy) on the held-out images.

    Raises:
        TrainingDiverged: the loss is NaN or infinite.
    """
    network.eval()
    correct, loss = 0, 0.0
    for images, labels in batches.held_out(data, _EVALUATION_BATCH):
        logits = network(images)
        correct += int((logits.argmax(dim=1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    _require_finite(loss, "held-out loss")
    return correct / len(data.val_labels), loss / len(data.val_labels)


def _require_finite(loss: float, what: str) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(f"{what} is {loss}")


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """torch's thread count within the block; restored whatever happens."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
