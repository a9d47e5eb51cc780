"""What keeping a trial costs, and opening a run: our journal and databases against Optuna's own storages.

    python benchmarks/search_storage.py [--quick] [--postgresql URL]

A trial has the 33 parameters of the space mobilevit and a record of about 2 KB. Ours writes it twice: when it begins,
and, with its record, when it ends. Optuna's storages are used as Optuna uses them: ask, a parameter at a time, the
record as an attribute, tell; with a sampler that only draws. Every storage waits for the disk as it is set up to.
Each is filled to a size, then opened by a new process's means, and timed over the next trials.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mvit_search.search.storage import Backing, open_backing
from mvit_search.space import load_space

STUDY = "benchmark"
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
OURS, OPTUNAS = "ours", "Optuna's"


class Figures(NamedTuple):
    """Medians, by the clock and of this process's CPU: of a trial, of an opening; and bytes a trial."""

    write_ms: float
    write_cpu_ms: float
    open_ms: float
    open_cpu_ms: float
    bytes_a_trial: float | None


class Stopwatch:
    """Spans of time, by the clock and of this process's CPU."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._start = (0.0, 0.0)

    def start(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self._spans.append((time.perf_counter() - self._start[0], time.process_time() - self._start[1]))

    def medians_ms(self) -> tuple[float, float]:
        clock, cpu = zip(*self._spans, strict=True)
        return 1e3 * statistics.median(clock), 1e3 * statistics.median(cpu)


class Place(NamedTuple):
    """A study somewhere."""

    name: str
    folder: Path
    url: str | None

    def open(self, distributions: dict[str, BaseDistribution]) -> Backing:
        return open_backing(self.folder, self.url, STUDY, DIRECTIONS, distributions)

    def optuna(self) -> BaseStorage:
        if self.url is None:
            return JournalStorage(JournalFileBackend(str(self.folder / "study.journal")))
        return RDBStorage(self.url, engine_kwargs={"connect_args": {"timeout": 60}})

    def bytes_a_trial(self, trials: int) -> float | None:
        files = [file.stat().st_size for file in self.folder.glob("study.*")]
        return sum(files) / trials if files else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 and 1,000 trials instead of up to 10,000")
    parser.add_argument("--postgresql", metavar="URL", help="of an empty database, to be measured as well")
    arguments = parser.parse_args()
    sizes = (300, 1_000) if arguments.quick else (1_000, 3_000, 10_000)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        results = dict(measure(Path(temporary), arguments.postgresql, sizes))
    print(f"Optuna {optuna.__version__}, SQLAlchemy {sqlalchemy.__version__}; 33 parameters, a record of 2 KB; medians")
    columns = ("trials", "ms a trial", "of it CPU", "ms to open", "of it CPU", "KB a trial")
    print(f"{'storage':<28}" + "".join(f"{column:>12}" for column in columns))
    for (name, who, size), figures in sorted(results.items(), key=lambda item: (item[0][:2], item[0][2])):
        volume = "" if figures.bytes_a_trial is None else f"{figures.bytes_a_trial / 1e3:.1f}"
        times = "".join(f"{value:>12.1f}" for value in figures[:4])
        print(f"{name + ', ' + who:<28}{size:>12}{times}{volume:>12}")
    largest = sizes[-1]
    journal = results["journal", OURS, largest]
    for name, who in sorted({key[:2] for key in results} - {("journal", OURS)}):
        other, words = results[name, who, largest], f"{who} {name}".lower().replace("'", "").replace(" ", "-")
        print(f"ratio journal-vs-{words}-a-trial: {other.write_ms / journal.write_ms:.3g}")
        print(f"ratio journal-vs-{words}-cpu-a-trial: {other.write_cpu_ms / journal.write_cpu_ms:.3g}")
        print(f"ratio journal-vs-{words}-opening: {other.open_ms / journal.open_ms:.3g}")
        print(f"ratio journal-vs-{words}-cpu-opening: {other.open_cpu_ms / journal.open_cpu_ms:.3g}")
    growth = journal.write_ms / results["journal", OURS, sizes[0]].write_ms
    print(f"ratio journal-a-trial-at-{largest}-vs-{sizes[0]}: {growth:.3g}")


def measure(
    temporary: Path, postgresql: str | None, sizes: tuple[int, ...]
) -> Iterator[tuple[tuple[str, str, int], Figures]]:
    distributions, rng = load_space("mobilevit").distributions(), random.Random(0)
    folders = {name: temporary / name for name in ("journal", "sqlite", "postgresql")}
    for folder in folders.values():
        folder.mkdir()
    places = [
        Place("journal", folders["journal"], None),
        Place("SQLite", folders["sqlite"], f"sqlite:///{folders['sqlite']}/study.db"),
        *([Place("PostgreSQL", folders["postgresql"], postgresql)] if postgresql else []),
    ]
    for place in places:
        for size in sizes:
            fill(place, size, distributions, rng)
            volume = place.bytes_a_trial(size)
            if place.name != "PostgreSQL":
                yield (place.name, OPTUNAS, size), measure_optuna(copied(place), distributions, rng)
            yield (place.name, OURS, size), measure_ours(place, distributions, rng)._replace(bytes_a_trial=volume)


def fill(place: Place, size: int, distributions: dict[str, BaseDistribution], rng: random.Random) -> None:
    """Grow the study to `size` finished trials, many at a time."""
    with closing(place.open(distributions)) as backing:
        filled = len(backing.load().trials)
        for first in range(filled, size, 250):
            with backing.transaction():
                for number in range(first, min(size, first + 250)):
                    one = trial(number, distributions, rng)
                    one.state, one.values, one.datetime_complete = TrialState.COMPLETE, [0.5, 1.0], datetime.now()
                    backing.create_trial(one)
                    backing.set_user_attrs({f"candidate:{number}": record(number, rng)})


def measure_ours(place: Place, distributions: dict[str, BaseDistribution], rng: random.Random) -> Figures:
    openings, writes = Stopwatch(), Stopwatch()
    for _ in range(3):
        openings.start()
        with closing(place.open(distributions)) as backing:
            number = len(backing.load().trials)
            openings.stop()
            for each in range(number, number + 30):
                one, its_record = trial(each, distributions, rng), record(each, rng)
                writes.start()
                backing.create_trial(one)
                with backing.transaction():
                    backing.set_user_attrs({f"candidate:{each}": its_record})
                    backing.finish_trial(each, TrialState.COMPLETE, (0.5, 1.0))
                writes.stop()
    return Figures(*writes.medians_ms(), *openings.medians_ms(), None)


def measure_optuna(place: Place, distributions: dict[str, BaseDistribution], rng: random.Random) -> Figures:
    openings, writes = Stopwatch(), Stopwatch()
    for _ in range(2):
        openings.start()
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.load_study(study_name=STUDY, storage=place.optuna(), sampler=sampler)
        number = len(study.get_trials(deepcopy=False))
        study.user_attrs  # noqa: B018
        openings.stop()
        for each in range(number, number + 8):
            its_record = record(each, rng)
            writes.start()
            asked = study.ask(distributions)
            study.set_user_attr(f"candidate:{each}", its_record)
            study.tell(asked, (0.5, 1.0))
            writes.stop()
    shutil.rmtree(place.folder)
    return Figures(*writes.medians_ms(), *openings.medians_ms(), None)


def copied(place: Place) -> Place:
    """The same study elsewhere, for another to write to. A closed SQLite database is one file."""
    folder = place.folder.with_name(f"{place.folder.name}-copy")
    shutil.copytree(place.folder, folder)
    return Place(place.name, folder, place.url and f"sqlite:///{folder}/study.db")


def trial(number: int, distributions: dict[str, BaseDistribution], rng: random.Random) -> FrozenTrial:
    params = {name: drawn(distribution, rng) for name, distribution in distributions.items()}
    return FrozenTrial(
        number=number, trial_id=number, state=TrialState.RUNNING, value=None, datetime_start=datetime.now(),
        datetime_complete=None, params=params, distributions=distributions, user_attrs={"rung": 0}, system_attrs={},
        intermediate_values={},
    )  # fmt: skip


def drawn(distribution: BaseDistribution, rng: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution)
    return rng.randrange(distribution.low, distribution.high + 1, distribution.step)


def record(number: int, rng: random.Random) -> dict[str, Any]:
    """As large as a candidate's: about 2 KB as JSON."""
    config = {f"field_{index}": rng.randrange(512) for index in range(60)}
    return {"number": number, "config": config, "figures": [rng.random() for _ in range(45)]}


if __name__ == "__main__":
    main()
