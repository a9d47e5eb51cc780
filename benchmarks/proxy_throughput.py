"""Training images per second of our network and loop, against transformers' and timm's MobileViT in a plain loop.

    python benchmarks/proxy_throughput.py [--quick] [--data digits|shapes|PATH] [--recipe FILE] [--sizes 32 64]
        [--models xxs xs s] [--threads 2 1] [--runs N] [--batches N] [--device cpu|cuda] [--at-once N]
        [--clock wall|cpu]

Same data, same recipe, same random views, same batches. The plain loop is what a user would write: AdamW with torch's
defaults, gradient clipping, cosine, label smoothing, an average of the weights where the recipe has one, channels-last
(without it the peers are a quarter slower on a CPU). Every contender has a process of its own; they take turns, an
epoch each, and a ratio is the median over turns that follow each other, so that a busy machine slows both sides. On a
very busy one `--clock cpu --threads 1` says more: processor seconds, of which a core has one a second.
`two at once` is two of our trainings, one thread each, against one with two threads (on CUDA: `--at-once` processes
against one). The CUDA path has not been exercised where this was written.
"""

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvit_search.architecture import preset
from mvit_search.data import ImageSet, load_data
from mvit_search.proxy import Recipe, default_recipe, load_recipe
from mvit_search.proxy.allocator import freed_memory_kept
from mvit_search.proxy.batches import Batches
from mvit_search.proxy.session import TrainingSession

WIDTHS = {
    "xxs": ([64, 80, 96], [16, 16, 24, 48, 64, 80, 320], 2.0),
    "xs": ([96, 120, 144], [16, 32, 48, 64, 80, 96, 384], 4.0),
    "s": ([144, 192, 240], [16, 32, 64, 96, 128, 160, 640], 4.0),
}
"""transformers' hidden sizes, neck sizes and expand ratio."""
NEVER_OVER = 1000  # epochs of the schedule


def main() -> None:
    arguments = parse_arguments()
    peers = ["transformers", *(["timm"] if timm_imports() else [])]
    at_once = 2 if arguments.device == "cpu" else arguments.at_once
    context = get_context("spawn")
    crews = {f"ours {i}": Contender(context, "ours", arguments) for i in range(at_once)}
    crews |= {peer: Contender(context, peer, arguments) for peer in peers}
    print(f"{arguments.data}, batch {arguments.batch}, {arguments.batches} batches a turn, {arguments.runs} turns; "
          f"torch {torch.__version__}, {arguments.device}, {arguments.clock} seconds")  # fmt: skip
    print(f"{'':<26}" + "".join(f"{name:>14}" for name in ("ours", *peers)) + "   images/s, median")
    ratios: list[tuple[str, float]] = []
    try:
        for size in arguments.sizes:
            for model in arguments.models:
                for threads in arguments.threads:
                    ratios += against_peers(crews, peers, (model, size, threads), arguments.runs)
                # Shared cores show in no process's own seconds.
                if arguments.clock == "wall" and (model == "xs" or not arguments.quick):
                    ratios += several_at_once(crews, at_once, (model, size, max(arguments.threads)), arguments.runs)
    finally:
        for crew in crews.values():
            crew.close()
    for name, value in ratios:
        print(f"ratio {name}: {value:.3g}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="32 px, two threads, few turns; under 50 s on two cores")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--models", nargs="+", choices=sorted(WIDTHS), default=["xxs", "xs", "s"])
    parser.add_argument("--threads", type=int, nargs="+")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--batches", type=int, help="batches a turn")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--at-once", type=int, default=4, help="trainings at once on CUDA")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or ([32] if arguments.quick else [32, 64])
    arguments.threads = arguments.threads or ([2] if arguments.quick else [2, 1])
    arguments.runs = arguments.runs or (3 if arguments.quick else 7)
    arguments.batches = arguments.batches or (2 if arguments.quick else 4)
    return arguments


Case = tuple[str, int, int]
"""Model, side in pixels, threads."""


def against_peers(crews: dict[str, "Contender"], peers: list[str], case: Case, runs: int) -> list[tuple[str, float]]:
    """Turn by turn; prints images per second, returns ratios."""
    names = ["ours 0", *peers]
    for name in names:
        crews[name].prepare(case)
    turns = [{name: crews[name].turn() for name in names} for _ in range(runs)]
    model, size, threads = case
    rates = "".join(f"{statistics.median(turn[name] for turn in turns):14.0f}" for name in names)
    print(f"{f'{model} {size} px, threads {threads}':<26}{rates}", flush=True)
    end = f"{model}-{size}px" + ("" if threads == 2 else f"-{threads}-threads")
    return [
        (f"throughput-{'' if peer == 'transformers' else f'vs-{peer}-'}{end}",
         statistics.median(turn["ours 0"] / turn[peer] for turn in turns))
        for peer in peers
    ]  # fmt: skip


def several_at_once(crews: dict[str, "Contender"], count: int, case: Case, runs: int) -> list[tuple[str, float]]:
    """`count` of our trainings at once, sharing the threads, against one training (ours, transformers') with all."""
    model, size, threads = case
    names = [f"ours {i}" for i in range(count)]
    alone, peer, together = [], [], []
    for _ in range(runs):
        crews[names[0]].prepare(case)
        alone.append(crews[names[0]].turn())
        crews["transformers"].prepare(case)
        peer.append(crews["transformers"].turn())
        for name in names:
            crews[name].prepare((model, size, max(1, threads // count)))
        for name in names:
            crews[name].begin()
        together.append(sum(crews[name].end() for name in names))
    rates = f"{statistics.median(together):14.0f}"
    print(f"{f'{model} {size} px, {count} at once':<26}{rates}", flush=True)
    ratio = statistics.median(both / one for both, one in zip(together, alone, strict=True))
    over_peer = statistics.median(both / one for both, one in zip(together, peer, strict=True))
    return [
        (f"{count}-at-once-over-one-{model}-{size}px", ratio),
        (f"{count}-at-once-over-transformers-{model}-{size}px", over_peer),
    ]


class Contender:
    """A process that trains one epoch of few batches whenever it is told to."""

    def __init__(self, context: Any, kind: str, arguments: argparse.Namespace) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, kind, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._case: Case | None = None

    def prepare(self, case: Case) -> None:
        """Build the network, unless it is there, and warm it up."""
        if case != self._case:
            self._pipe.send(case)
            self._pipe.recv()
            self._case = case

    def begin(self) -> None:
        self._pipe.send("turn")

    def end(self) -> float:
        """Images per second."""
        return float(self._pipe.recv())

    def turn(self) -> float:
        self.begin()
        return self.end()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()
        self._pipe.close()


def work(pipe: Connection, kind: str, arguments: argparse.Namespace) -> None:
    """The contender's side: a case builds, anything else trains an epoch."""
    warnings.simplefilter("ignore")
    with freed_memory_kept() if kind == "ours" else nullcontext():  # a peer's user would not think of it
        answer(pipe, kind, arguments)


def answer(pipe: Connection, kind: str, arguments: argparse.Namespace) -> None:
    """Until the process is ended."""
    epoch: Callable[[], object] = lambda: None  # noqa: E731
    while True:
        try:
            asked = pipe.recv()
        except EOFError:  # whoever asked is gone
            return
        if isinstance(asked, tuple):
            model, size, threads = asked
            torch.set_num_threads(threads)
            recipe = recipe_of(arguments, size)
            data = load_data(arguments.data, image_size=size, max_images=arguments.batches * recipe.batch_size)
            epoch = our_epoch(model, data, recipe, arguments) if kind == "ours" else peer_epoch(
                kind, model, data, recipe, arguments
            )  # fmt: skip
            epoch()
            pipe.send("ready")
        else:
            clock = time.perf_counter if arguments.clock == "wall" else time.process_time
            start = clock()
            epoch()
            if arguments.device == "cuda":
                torch.cuda.synchronize()
            pipe.send(len(data.train_images) // recipe.batch_size * recipe.batch_size / (clock() - start))


def recipe_of(arguments: argparse.Namespace, size: int) -> Recipe:
    """The recipe for photographs, at that size and never over."""
    recipe = load_recipe(arguments.recipe) if arguments.recipe else default_recipe("photographs")
    return recipe.changed(image_size=size, batch_size=arguments.batch, epochs=NEVER_OVER)


def our_epoch(model: str, data: ImageSet, recipe: Recipe, arguments: argparse.Namespace) -> Callable[[], object]:
    """What `train` does between two rungs."""
    return TrainingSession(preset(f"mobilevit-{model}"), data, recipe, seed=0, device=arguments.device).advance


def peer_epoch(
    kind: str, model: str, data: ImageSet, recipe: Recipe, arguments: argparse.Namespace
) -> Callable[[], object]:
    """A plain loop over the same batches."""
    device = torch.device(arguments.device)
    network, logits = build_timm(model, data) if kind == "timm" else build_transformers(model, data)
    network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    groups = [{"params": decayed}, {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = NEVER_OVER * arguments.batches
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: 0.5 * (1 + math.cos(math.pi * min(1, s / steps))))
    average = None
    if recipe.ema_decay:
        update = torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay)
        average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=update)
    batches = Batches(data, recipe, device)
    generator = torch.Generator().manual_seed(0)

    def epoch() -> None:
        for images, labels in batches.epoch(generator):
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                loss = F.cross_entropy(logits(images), labels, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
            optimiser.step()
            schedule.step()
            if average is not None:
                average.update_parameters(network)
            if device.type == "cpu":
                assert math.isfinite(loss.detach())

    return epoch


def build_transformers(model: str, data: ImageSet) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from transformers import MobileViTConfig, MobileViTForImageClassification

    hidden, neck, ratio = WIDTHS[model]
    config = MobileViTConfig(
        hidden_sizes=hidden, neck_hidden_sizes=neck, expand_ratio=ratio, num_labels=data.num_classes,
        image_size=data.image_size,
    )  # fmt: skip
    network = MobileViTForImageClassification(config)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return network, lambda images: network(images).logits


def build_timm(model: str, data: ImageSet) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    assert timm_imports()
    import timm

    network = timm.create_model(f"mobilevit_{model}", num_classes=data.num_classes)
    return network, network


_declared: list[object] = []  # a declaration ends with the object that made it


def timm_imports() -> bool:
    """Whether timm can be imported, if need be with the operators declared that a torchvision for CUDA lacks here."""
    for again in (False, True):
        try:
            import timm  # noqa: F401
        except ImportError:
            return False
        except RuntimeError:
            if again:
                return False
            declare_torchvision_operators()
        else:
            return True
    return False


def declare_torchvision_operators() -> None:
    """So that timm's imports pass; nothing here calls one."""
    library = torch.library.Library("torchvision", "DEF")
    _declared.append(library)
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in ("qnms", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"):
        library.define(f"{name}(Tensor input) -> Tensor")
        library.define(f"_{name}_backward(Tensor input) -> Tensor")


if __name__ == "__main__":
    main()
