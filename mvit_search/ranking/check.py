"""A proxy check: from settings to the table of trainings that the statistics are drawn from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mvit_search._files import write_atomically
from mvit_search.data import load_data
from mvit_search.errors import ConflictError, InputError
from mvit_search.latency import load_target
from mvit_search.proxy import Recipe, default_recipe
from mvit_search.proxy.zero_cost import NAMES
from mvit_search.ranking.candidates import choose_candidates
from mvit_search.ranking.fidelity import ladders
from mvit_search.ranking.runner import Watch, default_workers, jobs, run_jobs
from mvit_search.ranking.worker import Job, WorkerSettings
from mvit_search.search.limits import Limits
from mvit_search.space import load_space

LONG = 8
"""The long schedule has so many times the epochs of the data's default recipe, unless the settings say otherwise."""
FEWEST_CANDIDATES = 5
_FREE = ("candidates", "seeds", "seeded")
"""What a check may be carried on with a different value of: it only adds trainings."""


@dataclass(frozen=True)
class CheckSettings:
    """What is trained for a check.

    Attributes:
        space, target, data: names or paths.
        budget: most parameters of a candidate, with 1000 classes.
        smallest: fewest parameters of a drawn one.
        candidates: how many, the presets inside the budget included.
        epochs: of the long schedule; None: eight times the recipe's.
        image_size: in pixels; None: the recipe's.
        images: training images; None: all.
        held_out: images that every training is scored on; None: all.
        seeds: seeds of the long schedule for the first `seeded` candidates (0: for all).
        zero_cost: scores that are computed too.
    """

    data: str = "digits"
    space: str = "mobilevit"
    target: str = "iphone12"
    budget: int = 6_000_000
    smallest: int = 500_000
    candidates: int = 24
    epochs: int | None = None
    image_size: int | None = None
    images: int | None = None
    held_out: int | None = None
    seeds: int = 3
    seeded: int = 8
    zero_cost: tuple[str, ...] = tuple(name for name in NAMES if name not in ("params", "macs"))
    device: str = "cpu"
    threads: int = 1

    def recipe(self) -> Recipe:
        """The long schedule's.

        Raises:
            InputError: epochs or resolution that no recipe can have.
        """
        default = default_recipe(self.data)
        epochs = LONG * default.epochs if self.epochs is None else self.epochs
        changes = {"epochs": epochs, "image_size": self.image_size}
        return default.changed(**{name: value for name, value in changes.items() if value is not None})


def run_check(
    settings: CheckSettings, folder: Path, *, workers: int | None = None, seconds: float | None = None,
    watch: Watch | None = None,
) -> Path:  # fmt: skip
    """Train what the folder does not hold yet, until all is there or the time is up; returns the table.

    Zero-cost scores come first, then the long schedule of every candidate, further seeds of it, and the cheaper
    schedules. The same settings again carry on; more candidates or seeds only add to what is there.

    Raises:
        InputError: settings that cannot be met.
        ConflictError: the folder holds a check of other settings; says what differs.
    """
    content = _pinned(settings, folder / "check.json")
    wanted, worker = plan_check(settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "check.json", json.dumps(content, indent=2) + "\n")
    workers = workers or default_workers(settings.device, settings.threads)
    return run_jobs(wanted, worker, folder, workers=workers, seconds=seconds, watch=watch)


def plan_check(settings: CheckSettings) -> tuple[list[Job], WorkerSettings]:
    """Every training of a check, in order; loads the data once, so that what is wrong with it is told now.

    Raises:
        InputError: as `run_check`.
    """
    from mvit_search.proxy.training import require_trainable
    from mvit_search.search.plan import check_device

    if settings.candidates < FEWEST_CANDIDATES:
        rule = f"must be at least {FEWEST_CANDIDATES}: fewer have no order to speak of"
        raise InputError("--candidates", settings.candidates, rule)
    if settings.seeds < 1:
        raise InputError("--seeds", settings.seeds, "must be at least 1")
    space, target, recipe = load_space(settings.space), load_target(settings.target), settings.recipe()
    check_device(settings.device, settings.threads)
    Limits(settings.budget, 1000).check_reachable(space)
    if settings.smallest >= settings.budget:
        rule = f"must be below the budget ({settings.budget})"
        raise InputError("--smallest", settings.smallest, rule, "lower it, or raise --budget")
    if target.measured:
        rule = "is measured, and candidates are chosen by the latency of thousands"
        raise InputError("--target", settings.target, rule, "name a predicted one, for example iphone12")
    data = load_data(settings.data, image_size=recipe.image_size, max_images=settings.images)
    if settings.held_out is not None and settings.held_out < data.num_classes:
        rule = f"must be at least the number of classes ({data.num_classes})"
        raise InputError("--held-out", settings.held_out, rule, "raise --held-out")
    require_trainable(data, recipe)
    candidates = choose_candidates(space, target, settings.budget, settings.candidates, smallest=settings.smallest)
    if len(candidates) < FEWEST_CANDIDATES:
        rule = f"space {space.name} has {len(candidates)} candidates inside"
        raise InputError("--budget", settings.budget, rule, f"at least {FEWEST_CANDIDATES} are needed")
    ways = ladders(recipe, len(data.train_images), data.num_classes)
    scores = [Job(candidate, 0, ways[0], name) for name in settings.zero_cost for candidate in candidates]
    long = jobs(candidates, ways[:1]) + jobs(candidates, ways[:1], settings.seeds, settings.seeded)
    wanted = list(dict.fromkeys([*scores, *long, *jobs(candidates, ways)]))
    worker = WorkerSettings(
        settings.data, settings.images, settings.held_out, device=settings.device, threads=settings.threads
    )
    return wanted, worker


def _pinned(settings: CheckSettings, path: Path) -> dict[str, Any]:
    """The settings as they are written down, held against those that the folder was begun with, if it was."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    content["recipe"] = settings.recipe().digest()[:12]
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            different = [key for key in content if key not in _FREE and known[key] != content[key]]
        except (ValueError, KeyError, TypeError, OSError):
            rule = "is not the settings of a check"
            raise InputError("folder", str(path), rule, "name another folder, or mend it") from None
        if different:
            shown = ", ".join(f"{key} ({known[key]} there, {content[key]} now)" for key in different)
            raise ConflictError("folder", str(path.parent), f"belongs to another check: {shown}", "name another folder")
    return content
