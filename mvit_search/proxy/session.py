"""`TrainingSession`: a training that can be stopped after any epoch, saved, and carried on to the same bits."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from mvit_search._files import write_atomically
from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.network import MobileViT
from mvit_search.data import ImageSet
from mvit_search.errors import ConflictError, InputError
from mvit_search.proxy.batches import Batches
from mvit_search.proxy.kept_weights import KeptWeights, put_into, write_weights
from mvit_search.proxy.optimising import (
    FlatParameters,
    WeightAverage,
    adamw,
    learning_rate_share,
    peak_learning_rate,
)  # fmt: skip
from mvit_search.proxy.recipe import Recipe
from mvit_search.proxy.result import Rung
from mvit_search.proxy.scoring import evaluate, recalibrate, require_finite

_CHECK_EVERY = 20  # steps between looks at the loss on a GPU, where each look waits for the device
_RECALIBRATION_SEED = 0x5CA1E  # mixed into the seed: other images than the first batch's
_FORMAT = 1


class TrainingSession:
    """One candidate in training: `advance` by an epoch, `score` at any time, `save` and `load` between epochs.

    On the CPU the same arguments, number of torch threads and torch version give the same bits, however often the
    training is scored, stopped, saved and loaded on its way.

    Attributes:
        network: in training, weights as of the last step.
        epoch: epochs trained.
        steps: optimiser steps taken.
        image_steps: training images seen, an image counted each time.
        rungs: the scores so far.
    """

    def __init__(
        self, config: MobileViTConfig, data: ImageSet, recipe: Recipe, *, seed: int, device: str = "cpu",
        share: float = 1.0, largest_batch: int | None = None, first: KeptWeights | None = None,
    ) -> None:  # fmt: skip
        """Start from the first weights that `seed` gives, or from `first`.

        Args:
            share: of the recipe's side, 0..1, that the network sees.
            largest_batch: images that go through the network at once; a larger batch is summed up from parts, each
                with batch-norm statistics of its own. None: whole batches.
            first: weights and batch-norm statistics that another training of the same network left. All else starts
                as from scratch: AdamW's moments, the average, the schedule.

        Raises:
            InputError: `first` is of another network.
        """
        self.data, self.recipe, self.seed, self.share = data, recipe, seed, share
        self.largest_batch = largest_batch or recipe.batch_size
        self.device = torch.device(device)
        self.network = build(config, data.num_classes, seed, self.device)
        if first is not None:
            put_into(self.network, first)
        self._first = first.digest if first is not None else None
        self.batches = Batches(data, recipe, self.device, share)
        self.epoch = self.steps = self.image_steps = 0
        self.rungs: list[Rung] = []
        self._flat = FlatParameters(self.network)
        self._average = WeightAverage(self._flat, recipe.ema_decay) if recipe.ema_decay else None
        self._adamw = adamw(self._flat, recipe)
        self._peak = peak_learning_rate(recipe, sum(p.numel() for p in self._flat.parameters))
        self._generator = torch.Generator().manual_seed(seed)
        self._spent = (0.0, 0.0)  # seconds and cpu seconds of earlier sessions
        self._since = (time.perf_counter(), time.process_time())

    def advance(self) -> float:
        """Train one epoch; returns its mean training loss.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
        """
        self.network.train()
        losses: list[Tensor] = []
        seen = 0
        per_epoch = self.batches.images_per_epoch
        for images, labels in self.batches.epoch(self._generator):
            before, seen = seen, seen + len(images)
            share = learning_rate_share(self.recipe, self.epoch + before / per_epoch, self.epoch + seen / per_epoch)
            losses.append(self._step(images, labels, share * self._peak))
            if self.device.type == "cpu" or self.steps % _CHECK_EVERY == 0:
                require_finite(float(losses[-1]), f"training loss at step {self.steps}")
        self.epoch += 1
        self.image_steps += seen
        mean = float(torch.stack(losses).mean())
        require_finite(mean, f"training loss in epoch {self.epoch}")
        return mean

    def _step(self, images: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
        """One optimiser step; the loss before it, still on the device."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._flat.clear_gradients()
        total = torch.zeros((), device=self.device)
        # Of smaller images more fit: a step of the multi-scale sampler costs the same at every side.
        most = max(2, round(self.largest_batch * len(images) / self.recipe.batch_size))
        for part, part_labels in _parts(images, labels, most):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                logits = self.network(part)
                loss = F.cross_entropy(logits, part_labels, label_smoothing=self.recipe.label_smoothing)
            loss = loss * (len(part) / len(images))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        nn.utils.clip_grad_norm_(self._flat.buffers, self.recipe.grad_clip)
        self._adamw.step()
        self.steps += 1
        if self._average is not None:
            self._average.update(self.steps)
        return total

    def score(self) -> Rung:
        """Score the weights (their average where the recipe has one) on the held-out images; training is not touched.

        Raises:
            TrainingDiverged: the held-out loss is NaN or infinite.
        """
        network = self.scored_network()
        top1, loss = evaluate(network, self.batches, self.data, 4 * self.largest_batch)
        self.rungs.append(Rung(self.epoch, top1, loss, self.image_steps, *self.spent()))
        return self.rungs[-1]

    def scored_network(self) -> MobileViT:
        """A copy of the network as it is scored: averaged weights, batch-norm statistics taken anew."""
        network = copy.deepcopy(self.network)
        if self._average is not None:
            self._put_average(network)
        generator = torch.Generator().manual_seed(self.seed ^ _RECALIBRATION_SEED)
        recalibrate(network, self.batches, generator, 2 * self.largest_batch)
        return network.eval()

    def keep(self, path: Path) -> None:
        """Leave the weights (their average where the recipe has one) for another training to begin with.

        Raises:
            OSError: the file cannot be written.
        """
        network = self.network
        if self._average is not None:
            network = copy.deepcopy(network)
            self._put_average(network)
        last = self.rungs[-1]
        write_weights(
            path, network.state_dict(), network.config, self.data.num_classes, image_steps=last.image_steps,
            seconds=last.seconds,
        )  # fmt: skip

    @torch.no_grad()
    def _put_average(self, network: MobileViT) -> None:
        assert self._average is not None
        for buffer, average in zip(FlatParameters(network).buffers, self._average.averages, strict=True):
            buffer.copy_(average)

    def spent(self) -> tuple[float, float]:
        """(wall-clock, processor) seconds so far, earlier sessions of the same training included."""
        now = time.perf_counter(), time.process_time()
        return self._spent[0] + now[0] - self._since[0], self._spent[1] + now[1] - self._since[1]

    # Stopping and carrying on.

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be carried on."""
        return {
            "format": _FORMAT, "config": self.network.config.digest(), "data": self.data.digest,
            "recipe": self.recipe.digest(), "seed": self.seed, "share": self.share, "first_weights": self._first,
        }  # fmt: skip

    def surroundings(self) -> dict[str, Any]:
        """What the bits depend on besides: a training carried on elsewhere would be neither the one nor the other."""
        where = {"torch": torch.__version__, "device": self.device.type}
        return where | ({"threads": torch.get_num_threads()} if self.device.type == "cpu" else {})

    def save(self, path: Path) -> None:
        """Everything that the next epoch depends on, into one safetensors file; its JSON header holds the counters."""
        state = {
            **self.identity(), "epoch": self.epoch, "steps": self.steps, "image_steps": self.image_steps,
            "largest_batch": self.largest_batch, "spent": self.spent(), "rungs": [vars(rung) for rung in self.rungs],
            **self.surroundings(),
        }  # fmt: skip
        header = {"mvit-search": json.dumps(state)}
        write_atomically(path, save({name: t.detach().cpu() for name, t in self._tensors().items()}, header))

    def load(self, path: Path) -> None:
        """Carry on from a checkpoint of the same training.

        Raises:
            InputError: the file is damaged or no checkpoint.
            ConflictError: it belongs to another candidate, recipe, data set or seed, or was made with another torch,
                device or number of threads; says what differs.
        """
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["mvit-search"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            rule = f"cannot be read as a training checkpoint ({' '.join(str(error).split())})"
            raise InputError("checkpoint", str(path), rule, "remove it to train anew") from None
        own = self.identity()
        different = [key for key, value in own.items() if state.get(key) != value]
        different += [key for key, value in self.surroundings().items() if state.get(key, value) != value]
        if different:
            rule = f"belongs to another training: {', '.join(different)} differ{'s' if len(different) == 1 else ''}"
            raise ConflictError("checkpoint", str(path), rule, "remove it to train anew")
        self._restore(tensors, path)
        self.epoch, self.steps, self.image_steps = state["epoch"], state["steps"], state["image_steps"]
        self.largest_batch = state["largest_batch"]
        self.rungs = [Rung(**rung) for rung in state["rungs"]]
        self._spent = tuple(state["spent"])
        self._since = (time.perf_counter(), time.process_time())

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step reads, by name."""
        tensors = {f"norm.{name}": buffer for name, buffer in self.network.named_buffers()}
        for group, buffer in zip(("decayed", "free"), self._flat.buffers, strict=True):
            tensors[f"weights.{group}"] = buffer
            moments = self._adamw.state.get(buffer) or self._fresh_moments(buffer)
            tensors |= {f"adamw.{group}.{name}": moments[name] for name in ("step", "exp_avg", "exp_avg_sq")}
        if self._average is not None:
            tensors |= {f"average.{g}": t for g, t in zip(("decayed", "free"), self._average.averages, strict=True)}
        tensors["generator"] = self._generator.get_state()
        return tensors

    def _fresh_moments(self, buffer: Tensor) -> dict[str, Tensor]:
        """AdamW's state before the first step, in its place."""
        step = torch.zeros((), dtype=torch.float32, device=buffer.device)
        fresh = {"step": step, "exp_avg": torch.zeros_like(buffer), "exp_avg_sq": torch.zeros_like(buffer)}
        self._adamw.state[buffer] = fresh
        return fresh

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor], path: Path) -> None:
        own = self._tensors()
        wrong = sorted(own.keys() ^ tensors.keys()) or [n for n, t in own.items() if tensors[n].shape != t.shape]
        if wrong:
            rule = f"does not fit this network: {wrong[0]}"
            raise InputError("checkpoint", str(path), rule, "remove it to train anew")
        self._generator.set_state(tensors.pop("generator"))
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def build(config: MobileViTConfig, num_classes: int, seed: int, device: torch.device) -> MobileViT:
    """The network with the first weights that `seed` gives, channels-last on `device`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`: that seeds the caller's GPUs too
        network = MobileViT(config, num_classes)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _parts(images: Tensor, labels: Tensor, most: int) -> list[tuple[Tensor, Tensor]]:
    """The batch in near-equal parts of at most `most` images."""
    count = -(-len(images) // most)
    return list(zip(torch.tensor_split(images, count), torch.tensor_split(labels, count), strict=True))
