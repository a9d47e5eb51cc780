"""Everything a search needs, loaded and checked before the first candidate."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.study import StudyDirection

from mvit_search import __version__
from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.data import ImageSet, load_data
from mvit_search.errors import InputError
from mvit_search.latency import Target, load_target
from mvit_search.profile import cost
from mvit_search.proxy import Recipe, default_recipe, load_recipe
from mvit_search.records.objectives import OBJECTIVES, check_objectives
from mvit_search.records.pareto import costs_of
from mvit_search.search.engines import check_engine
from mvit_search.search.ladder import Ladder, Rung, parse_rungs
from mvit_search.search.limits import Limits
from mvit_search.search.proxies import Prescreen, ProxyChoice, parse_prescreen, parse_proxy
from mvit_search.search.replay import Replay, load_replay
from mvit_search.search.rung_data import DataSource, require_climbable
from mvit_search.search.samplers import AUTO, EXHAUSTIVE, Choice, Problem, check_sampler, choose
from mvit_search.search.settings import DEFAULT_IMAGES, RunSettings
from mvit_search.search.storage import without_password
from mvit_search.search.store import StudyShape
from mvit_search.space import SearchSpace, load_space

_ALWAYS_COMPARED = ("mobilevit-xxs", "mobilevit-xs", "mobilevit-s")


class Plan(NamedTuple):
    """Loaded and validated parts of a run. A run that replays a table has no data and no recipe of its own."""

    settings: RunSettings
    space: SearchSpace
    target: Target
    limits: Limits
    data: ImageSet | None
    recipe: Recipe | None
    stand_in: Target | None = None
    proxy: ProxyChoice = ProxyChoice()
    prescreen: Prescreen | None = None
    replay: Replay | None = None
    ladder: Ladder = Ladder((Rung(1),))
    sampler: Choice = Choice("nsga2", "")

    @property
    def shape(self) -> StudyShape:
        """What the study's trials are made of."""
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = tuple(up if OBJECTIVES[key].maximise else down for key in self.settings.objectives)
        return StudyShape(directions, self.space.distributions())

    @property
    def source(self) -> DataSource:
        """What the images are loaded from."""
        settings = self.settings
        return DataSource(settings.data, _images(settings), settings.data_fraction, settings.seed)

    @property
    def engine(self) -> str:
        """Name of the engine: the user's, or what the number of workers asks for."""
        return self.settings.engine or ("pool" if (self.settings.workers or 1) > 1 else "in-process")

    def problem(self, population: int) -> Problem:
        """What the run asks of its sampler."""
        settings = self.settings
        costs = None if self.target.measured and "latency_ms" in settings.objectives else self._costs
        return Problem(self.shape.distributions, len(settings.objectives), settings.trials, population, costs)

    def _costs(self, params: Mapping[str, Any]) -> tuple[float, ...] | None:
        """What a candidate costs, in the order of a front's objectives; None over a limit."""
        config, classes = self.space.config(params), self.settings.num_classes
        if self.excess(config):
            return None
        known = cost(config, classes)._asdict()
        if "latency_ms" in self.settings.objectives:
            known["latency_ms"] = self.target.latency(config, classes).ms
        return tuple(float(known[key]) for key in costs_of(self.settings.objectives))

    def excess(self, config: MobileViTConfig) -> dict[str, float]:
        """Limits that the candidate breaks, as far as that shows before anything is built; see `Limits.excess`."""
        if self.limits.latency_ms is None or self.target.measured:
            return self.limits.excess(config)
        return self.limits.excess(config, self.target.latency(config, self.settings.num_classes).ms)

    def pins(self) -> dict[str, Any]:
        """What a run is tied to: carrying it on with anything else here would mix results that do not compare."""
        settings = self.settings
        return {
            "space": self.space.digest()[:12],
            "target": self.target.calibration,
            "proxy": f"table {self.replay.digest[:12]}" if self.replay else str(self.proxy),
            "prescreen": self.settings.prescreen,
            "data": self.data.digest[:12] if self.data else None,
            "recipe": self.recipe.digest()[:12] if self.recipe and self.proxy.trains else None,
            "objectives": list(settings.objectives),
            "fidelity": self.ladder.key(self.ladder.top) if self.proxy.kind != "zero-cost" else None,
            "eta": self.ladder.eta if self.ladder.top else None,
            "budget": settings.budget,
            "max_macs": settings.max_macs,
            "max_memory_bytes": settings.max_memory_bytes,
            "max_weight_bytes": settings.max_weight_bytes,
            "max_latency_ms": settings.max_latency_ms,
            "min_top1": settings.min_top1,
            "num_classes": settings.num_classes,
            "sampler": self.sampler.name,
            "seed": settings.seed,
            "final_seeds": settings.final_seeds,
            "device": settings.device,
            "threads": settings.threads,
        }

    def presets(self) -> dict[str, MobileViTConfig]:
        """The published networks that a run is compared with, at the space's largest resolution.

        MobileViT-XXS, XS and S always; of the other families what lies inside the space, for each costs trainings.
        None whose strides need larger images than the space has.
        """
        size = self.space.image_size_max
        fitting = {name: config for name, config in PRESETS.items() if config.total_stride <= min(size)}
        sized = {name: config.with_image_size(*size) for name, config in fitting.items()}
        return {name: config for name, config in sized.items() if name in _ALWAYS_COMPARED or config in self.space}

    def reference(self) -> MobileViTConfig:
        """MobileViT-S at the space's largest resolution, or at the smallest that its strides allow."""
        largest = PRESETS["mobilevit-s"]
        height, width = (max(side, largest.total_stride) for side in self.space.image_size_max)
        return largest.with_image_size(height, width)

    def reference_costs(self) -> dict[str, float]:
        """The corner of the hypervolume's box: twice what MobileViT-S costs, so that all worth having lies inside."""
        reference, num_classes = self.reference(), self.settings.num_classes
        costs = cost(reference, num_classes)
        latency_ms = self.target.latency(reference, num_classes).ms
        known = {
            "latency_ms": latency_ms, "params": costs.params, "macs": costs.macs, "weight_bytes": costs.weight_bytes,
            "peak_activation_bytes": costs.peak_activation_bytes,
        }  # fmt: skip
        return {key: 2.0 * known[key] for key in self.settings.objectives if key != "top1"}

    def _written_settings(self) -> dict[str, Any]:
        settings = self.settings.model_dump(mode="json")
        if self.settings.storage is not None:
            settings["storage"] = without_password(self.settings.storage)
        return settings

    def describe(self, run: str) -> dict[str, Any]:
        """The content of `run.json`."""
        return {
            "run": run,
            "settings": self._written_settings(),
            "pins": self.pins(),
            "space": {
                "name": self.space.name,
                "digest": self.space.digest(),
                "candidates": self.space.size(),
            },
            "target": {
                "name": self.target.name,
                "measured": self.target.measured,
                "calibration": self.target.calibration,
            },
            "proxy": str(self.proxy),
            "data": _data_facts(self.data) if self.data else None,
            "recipe": self.recipe.model_dump(mode="json") if self.recipe and self.proxy.trains else None,
            **_environment(),
        }


def prepare(settings: RunSettings) -> Plan:
    """Load and check every part; the cheap checks first, so that a typo is told before data is read.

    Raises:
        InputError: for any part that is unknown, malformed or contradictory.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_objectives(settings.objectives)
    if settings.engine is not None:
        check_engine(settings.engine)
    proxy = parse_proxy(settings.proxy)
    prescreen = parse_prescreen(settings.prescreen) if settings.prescreen else None
    _check_meaning(settings, proxy)
    space = load_space(settings.space)
    target = load_target(settings.target)
    stand_in = _stand_in(settings, target)
    sampler = _sampler(settings, space)
    check_device(settings.device, settings.threads)
    limits = limits_of(settings)
    limits.check_reachable(space, None if target.measured else target)
    if proxy.kind == "table":
        replay = load_replay(
            proxy.argument, space, limits, seed=settings.seed, seeds=settings.final_seeds,
            halving=settings.fidelity == "halving", eta=settings.eta,
            rungs=parse_rungs(settings.rungs, settings.eta) if settings.rungs else None,
            target=None if target.measured else target,
        )  # fmt: skip
        return Plan(settings, space, target, limits, None, None, stand_in, proxy, None, replay, replay.ladder, sampler)
    recipe = _recipe(settings)
    ladder = ladder_of(settings, recipe) if proxy.trains else Ladder((Rung(0),))
    data = load_data(
        settings.data, image_size=recipe.image_size, max_images=_images(settings), fraction=settings.data_fraction,
        seed=settings.seed,
    )  # fmt: skip
    if proxy.trains:
        from mvit_search.proxy.training import require_trainable  # torch: a table, or a score, needs none here

        require_trainable(data, recipe)
        require_climbable(data, recipe, ladder)
    return Plan(settings, space, target, limits, data, recipe, stand_in, proxy, prescreen, None, ladder, sampler)


def _sampler(settings: RunSettings, space: SearchSpace) -> Choice:
    """The settings' sampler, or what `auto` comes to."""
    chosen = Choice(settings.sampler, "")
    if settings.sampler in EXHAUSTIVE and settings.prescreen is not None:
        # What a pool passes over would never be proposed again.
        raise InputError(
            "--prescreen", settings.prescreen, f"means nothing with --sampler {settings.sampler}", "leave it out"
        )
    if settings.sampler == AUTO:
        chosen = choose(settings.trials, space.size(), len(settings.objectives))
    problem = Problem(space.distributions(), len(settings.objectives), settings.trials, 1)
    check_sampler(chosen.name, problem)
    return chosen


def limits_of(settings: RunSettings) -> Limits:
    """The hard limits that the settings name."""
    return Limits(
        settings.budget, settings.num_classes, macs=settings.max_macs,
        peak_activation_bytes=settings.max_memory_bytes, weight_bytes=settings.max_weight_bytes,
        latency_ms=settings.max_latency_ms, min_top1=settings.min_top1,
    )  # fmt: skip


def ladder_of(settings: RunSettings, recipe: Recipe) -> Ladder:
    """The run's fidelities. Raises InputError for rungs that the recipe does not allow."""
    if settings.fidelity == "full":
        if settings.rungs is not None:
            raise InputError("--rungs", settings.rungs, "means nothing with --fidelity full", "give --fidelity halving")
        return Ladder.full(recipe)
    ladder = parse_rungs(settings.rungs, settings.eta) if settings.rungs else Ladder.halving(recipe, settings.eta)
    for rung in range(len(ladder.rungs)):
        ladder.recipe_of(rung, recipe)
    return ladder


def _check_meaning(settings: RunSettings, proxy: ProxyChoice) -> None:
    """Refuse settings that a run which trains nothing would pass over in silence."""
    given: dict[str, object] = {"--epochs": settings.epochs, "--prescreen": settings.prescreen}
    if proxy.scores:
        given |= {"--rungs": settings.rungs, "--fidelity": "halving" if settings.fidelity == "halving" else None}
        given |= {"--min-top1": settings.min_top1}
    if proxy.kind == "table":
        data = None if settings.data == RunSettings.model_fields["data"].default else settings.data
        given |= {"--data": data, "--images": settings.images, "--data-fraction": settings.data_fraction}
        given |= {"--proxy-size": settings.proxy_size, "--recipe": settings.recipe}
    for option, value in given.items():
        if value is not None and not proxy.trains:
            proxied = f"--table {proxy.argument}" if proxy.kind == "table" else f"--proxy {proxy}"
            raise InputError(option, value, f"means nothing with {proxied}: nothing is trained", "leave it out")


def _data_facts(data: ImageSet) -> dict[str, Any]:
    return {
        "name": data.name,
        "digest": data.digest,
        "source": data.source,
        "image_size": data.image_size,
        "classes": len(data.class_names),
        "train_images": len(data.train_images),
        "held_out_images": len(data.val_images),
    }


def _stand_in(settings: RunSettings, target: Target) -> Target | None:
    """What may predict while the target does not answer."""
    if settings.stand_in is None:
        return None
    stand_in = load_target(settings.stand_in)
    if not target.measured:
        raise InputError("--allow-predicted", None, f"the target {target.name} is predicted anyway", "leave it out")
    if stand_in.measured:
        raise InputError("--stand-in", settings.stand_in, "is not predicted", "name one that is, for example iphone12")
    return stand_in


def _images(settings: RunSettings) -> int | None:
    """Most training images; so that a proxy stays a proxy on a large set, unless the user says how many."""
    if settings.images is not None or settings.data_fraction is not None or settings.data == "digits":
        return settings.images
    return DEFAULT_IMAGES


def _recipe(settings: RunSettings) -> Recipe:
    """The recipe of the settings' file, or the data's default one, with what the settings override."""
    recipe = load_recipe(Path(settings.recipe)) if settings.recipe else default_recipe(settings.data)
    changes = {"epochs": settings.epochs, "image_size": settings.proxy_size}
    return recipe.changed(**{name: value for name, value in changes.items() if value is not None})


def check_device(name: str, threads: int) -> None:
    """Raises InputError for a device that is not here, or more threads than four for each core."""
    most = 4 * (os.cpu_count() or 1)
    if threads > most:
        raise InputError("--threads", threads, f"must be at most {most}, four for each of this machine's cores")
    if name == "cpu":
        return  # always here, and a run that only looks values up need not load torch to hear it
    import torch

    try:
        if torch.device(name).type not in ("cpu", "cuda", "mps"):
            raise InputError("--device", name, "must be cpu, cuda, cuda:N or mps")
        torch.ones(1, device=name).add(1).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        # torch says "not compiled with CUDA" by assertion.
        raise InputError("--device", name, "is not available here", "cpu always is") from None


def _environment() -> dict[str, Any]:
    """What the run was made with and on."""
    packages = ("torch", "optuna", "numpy", "pydantic")
    return {
        "versions": {
            "mvit-search": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Commit of the checkout this package runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
