"""What the engine itself costs per candidate as a run grows, beside plain Optuna with SQLite and with its journal file.

    python benchmarks/search_overhead.py [--quick] [--trials 10000]

Nothing is trained: top-1 is a formula, so that what is left is ask, check of the limits, profile, predicted latency,
tell, store (durably, with the candidate's record), front and result files. NSGA-II, population 20, space `mobilevit`
(33 parameters) inside 6 M parameters, one process. A peer is an Optuna study that asks for the same parameters and is
told the same two values; it checks nothing, profiles nothing and keeps no record. Peers are filled with `add_trials`,
ours by running. Milliseconds are medians over blocks of 20 candidates around each size, and mean nothing but beside
each other.
"""

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import optuna
from optuna.samplers import NSGAIISampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial

from mvit_search.latency import load_target
from mvit_search.profile.cost import params_of
from mvit_search.records import Record, RunFolder
from mvit_search.search import Evaluation, Plan, Progress, RunSettings, Search, Silent, Store, Task
from mvit_search.search.engines import InProcess
from mvit_search.search.ladder import Ladder, Rung, parse_rungs
from mvit_search.search.plan import limits_of
from mvit_search.space import load_space

BLOCK, BLOCKS = 20, 10
SIZES = (1_000, 3_000, 10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 and 250 candidates; under 50 s on two cores")
    parser.add_argument("--trials", type=int, default=SIZES[-1], help="largest size")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open is not None:
        print(json.dumps(opened(arguments.open)))
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    sizes = (200, 250) if arguments.quick else tuple(size for size in SIZES if size < arguments.trials)
    sizes = sizes if arguments.quick else (*sizes, arguments.trials)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        columns = {
            "ours": grown(folder / "full", sizes, halving=False),
            "ours, halving": grown(folder / "halving", sizes, halving=True),
            "Optuna, SQLite": peer(RDBStorage(f"sqlite:///{folder}/peer.db"), sizes, 3 if arguments.quick else BLOCK),
            "Optuna, journal": peer(
                JournalStorage(JournalFileBackend(str(folder / "peer.journal"))), sizes, 3 if arguments.quick else BLOCK
            ),
        }
        facts = reopened(folder / "full")
        start = time.perf_counter()
        optuna.load_study(storage=f"sqlite:///{folder}/peer.db", study_name="peer").get_trials(deepcopy=False)
        peer_open_s = time.perf_counter() - start
    print(f"ms per candidate, medians of {BLOCKS} blocks of {BLOCK}; optuna {optuna.__version__}")
    print(f"{'finished':>10}" + "".join(f"{name:>18}" for name in columns))
    for size in sizes:
        print(f"{size:>10,}" + "".join(f"{column[size]:>18.2f}" for column in columns.values()))
    last = sizes[-1]
    print(f"opening {last:,}: ours {facts['seconds']:.2f} s (imports left out), SQLite {peer_open_s:.2f} s")
    print(f"memory with {last:,} open: {facts['rss_mb']:.0f} MB, torch {'loaded' if facts['torch'] else 'not loaded'}")
    growth = (columns["ours"][last] - columns["ours"][sizes[0]]) / (last - sizes[0]) * 1e3
    print(f"growth of ours: {growth:.2f} ms for each thousand candidates")
    for name in ("SQLite", "journal"):
        ratio = columns[f"Optuna, {name}"][last] / columns["ours"][last]
        print(f"ratio candidate-over-optuna-{name.lower()}-{last}: {ratio:.2f}")
    print(f"ratio opening-over-optuna-sqlite-{last}: {peer_open_s / facts['seconds']:.2f}")


class Formula:
    """Mirrors a trainer: the more parameters the better, with diminishing returns and noise; better with each rung."""

    def evaluate(self, task: Task) -> Evaluation:
        params = params_of(task.config)
        noise = random.Random(f"{task.config.digest()} {task.rung}").gauss(0, 0.01)
        return Evaluation(0.5 + 0.4 * params / (params + 2e6) + noise - 0.1 * (2 - task.rung), 0.0)


class Clock(Silent):
    """Notes when each candidate was begun."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}

    def update(self, progress: Progress, record: Record | None) -> None:
        self.at.setdefault(progress.begun, time.perf_counter())


def plan_of(trials: int, *, halving: bool) -> Plan:
    """A run that trains nothing."""
    settings = RunSettings(
        target="iphone12", budget=6_000_000, trials=trials, time_s=1e9, final_seeds=1,
        fidelity="halving" if halving else "full",
    )  # fmt: skip
    ladder = parse_rungs("1,3,9", settings.eta) if halving else Ladder((Rung(9),))
    space, target = load_space(settings.space), load_target(settings.target)
    return Plan(settings, space, target, limits_of(settings), None, None, ladder=ladder)


def grown(path: Path, sizes: tuple[int, ...], *, halving: bool) -> dict[int, float]:
    """Size -> median ms per candidate around it."""
    clock = Clock()
    run(path, plan_of(sizes[-1], halving=halving), clock)
    found = {}
    for size in sizes:
        last = min(size + BLOCK * BLOCKS // 2, sizes[-1])
        ends = range(last - BLOCK * BLOCKS, last + 1, BLOCK)
        times = [clock.at[end] for end in ends if end in clock.at]
        found[size] = statistics.median((b - a) / BLOCK for a, b in itertools.pairwise(times)) * 1e3
    return found


def run(path: Path, plan: Plan, observer: Silent) -> None:
    folder = RunFolder(path)
    with Store.open(folder, plan.shape, pins=plan.pins()) as store:
        folder.write_run(plan.describe(folder.name))
        Search(plan, store, folder, InProcess(Formula()), observer).run()


def reopened(path: Path) -> dict[str, float]:
    """Seconds and memory of another process that opens the run."""
    command = [sys.executable, __file__, "--open", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    facts: dict[str, float] = json.loads(done.stdout)
    return facts


def opened(path: Path) -> dict[str, float]:
    """Open a finished run and everything that a search needs of it."""
    trials = json.loads((path / "run.json").read_text())["settings"]["trials"]
    plan = plan_of(trials, halving=False)
    start = time.perf_counter()
    with Store.open(RunFolder(path), plan.shape, pins=plan.pins()) as store:
        search = Search(plan, store, RunFolder(path), InProcess(Formula()), Silent())
        search.work.restore(search.reporter)
        seconds = time.perf_counter() - start
        search.work.close()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"seconds": seconds, "rss_mb": rss_mb, "torch": "torch" in sys.modules}


def peer(storage: BaseStorage, sizes: tuple[int, ...], length: int) -> dict[int, float]:
    """The same of an Optuna study, in blocks of so many trials."""
    distributions = load_space("mobilevit").distributions()
    sampler = NSGAIISampler(population_size=20, seed=0)
    study = optuna.create_study(
        storage=storage, study_name="peer", directions=["maximize", "minimize"], sampler=sampler
    )
    rng, found, count = random.Random(0), {}, 0
    space = load_space("mobilevit")
    for size in sizes:
        filling = [
            create_trial(
                params=space.draw(rng), distributions=distributions, values=[rng.random(), 10 * rng.random()],
                system_attrs={"NSGAIISampler:generation": (count + i) // 20},
            )
            for i in range(size - length * 3 - count)
        ]  # fmt: skip
        study.add_trials(filling)
        times = [block(study, distributions, rng, length) for _ in range(3)]
        count = size
        found[size] = statistics.median(times) * 1e3
    return found


def block(
    study: optuna.Study,
    distributions: dict[str, optuna.distributions.BaseDistribution],
    rng: random.Random,
    length: int,
) -> float:
    start = time.perf_counter()
    for _ in range(length):
        trial = study.ask(distributions)
        study.tell(trial, [rng.random(), 10 * rng.random()])
    return (time.perf_counter() - start) / length


if __name__ == "__main__":
    main()
