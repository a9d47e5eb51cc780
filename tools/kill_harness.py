"""Kill searches at awkward moments, carry them on, and compare with one that was left alone.

python tools/kill_harness.py             every kind of write, before, in and after it, and random moments: 10 to 20 min
python tools/kill_harness.py --quick     a dozen kills

Runs are `mvit-search run` on a small task. Each is killed again and again with SIGKILL and carried on with the same
command until it ends. What must hold, and is checked here from the files and a log of trainings (docs/crash-safety.md):

- a finished valuation is in the study ever after, with the same value;
- nothing that was finished is trained again;
- no file in the folder is half written;
- front and candidates in the end are those of the run that was left alone.

The process forks for each session, so that only the first imports torch; a session is the command's own `main`.
"""

import argparse
import contextlib
import importlib
import os
import random
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, NamedTuple

from killing import Bench, Kill
from run_files import Valuation, damaged, finished, lines, outcome, trained

COMMON = ("--budget", "2M", "--target", "iphone12", "--images", "64", "--proxy-size", "32", "--trials", "8",
          "--final-seeds", "2", "--time", "1h", "--no-cache")  # fmt: skip
FIDELITIES = {
    "full": ("--fidelity", "full", "--epochs", "1"),
    "halving": ("--fidelity", "halving", "--epochs", "3", "--eta", "2"),
}


class Setting(NamedTuple):
    """What is run."""

    fidelity: str
    sampler: str
    storage: str = "file"

    def __str__(self) -> str:
        return f"{self.fidelity}/{self.sampler}/{self.storage}"

    def command(self) -> list[str]:
        storage = ["--storage", "sqlite:///HERE/study.db"] if self.storage == "sqlite" else []
        return [*COMMON, *FIDELITIES[self.fidelity], "--sampler", self.sampler, *storage]


SETTINGS = (
    Setting("full", "nsga2"),
    Setting("full", "tpe"),
    Setting("halving", "nsga2"),
    Setting("halving", "tpe"),
    Setting("halving", "nsga2", "sqlite"),
)
QUICK = (Setting("full", "nsga2", "sqlite"), Setting("halving", "tpe"))
QUICK_KILLS = (
    Kill("write:study.journal", 4, "half"),
    Kill("do_commit:database", 4, "before"),
    Kill("replace:checkpoint", 2, "after"),
    Kill("replace:front.json", 2, "before"),
    Kill("ask:sampler", 1, "before"),
    Kill("fsync:study.journal", 3, "after"),
    Kill("do_commit:database", 3, "after"),
)
"""In the order in which a run of eight candidates comes to them."""


# One run, killed until it ends.


class Figures(NamedTuple):
    """Of one chain of sessions.

    Attributes:
        kills: each, and what was going on.
        cut: trainings that a kill cut short.
        twice: trainings that ended twice, as a kill came between an end and its record.
    """

    setting: Setting
    kills: list[tuple[str, str]]
    valuations: int
    cut: int
    twice: int
    seconds: float


def chain(setting: Setting, bench: Bench, kills: deque[Kill], expected: dict[str, Any]) -> Figures:
    """Carry a run on through kills until it ends by itself; raises AssertionError at the first thing that is wrong.

    A kill that did not come to pass, as the run was over before, is put back for the next run.
    """
    start, code = time.monotonic(), None
    happened: list[tuple[str, str]] = []
    while code is None:
        kill = kills.popleft() if kills else None
        before, line = finished(bench.run), len(lines(bench.trace))
        code = bench.session(kill).code
        where = f"{setting}, kill {len(happened)} ({kill})"
        after = finished(bench.run)
        lost = {key: value for key, value in before.items() if key not in after or after[key] != value}
        assert not lost, f"{where}: finished valuations lost or changed: {lost}"
        begun = trained(bench.trace, line)
        known = {_as_trained(key) for key in before}
        again = [training for training in begun if training[0] == "begin" and training[1:] in known]
        assert not again, f"{where}: trained again: {again}"
        assert not (bad := damaged(bench.run, at_rest=code is not None)), f"{where}: {bad}"
        if code is None:
            happened.append((str(kill), _phase(kill, begun)))
        elif kill is not None and happened:
            kills.appendleft(kill)
    assert code == 0, f"{setting}: exit code {code}: {bench.said()}"
    found = outcome(bench.run)
    assert found["front"] == expected["front"], f"{setting}: another front after {happened}"
    assert found["records"] == expected["records"], f"{setting}: other records after {happened}"
    assert found["trials"] == expected["trials"], f"{setting}: other trials after {happened}"
    assert all(state != "RUNNING" for _, state, _ in found["trials"]), f"{setting}: a trial was left behind"
    counts = Counter(trained(bench.trace))
    cut = sum(n - counts["end", digest, seed] for (kind, digest, seed), n in counts.items() if kind == "begin")
    twice = sum(n - 1 for (kind, _, _), n in counts.items() if kind == "end")
    assert cut + twice <= len(happened), f"{setting}: {cut} + {twice} trainings done again after {happened}"
    return Figures(setting, happened, len(finished(bench.run)), cut, twice, time.monotonic() - start)


def _as_trained(valuation: Valuation) -> tuple[str, int]:
    """Digest, and the seed that the training was given."""
    from mvit_search.search.evaluator import rung_seed

    digest, seed, rung = valuation
    return digest, rung_seed(seed, rung)


_PHASES = (("sampler", "sampling"), ("checkpoint", "checkpointing"), ("study", "storing"), ("database", "storing"))


def _phase(kill: Kill | None, begun: list[tuple[str, str, int]]) -> str:
    if kill is not None and kill.label:
        for part, phase in _PHASES:
            if part in kill.label:
                return phase
        return "writing"
    opened = Counter(kind for kind, *_ in begun)
    return "training" if opened["begin"] > opened["end"] else "elsewhere"


def left_alone(setting: Setting, bench: Bench) -> tuple[dict[str, Any], Counter[str], float]:
    """What the run comes to without kills, its calls by kind, and how long it took."""
    session = bench.session(None)
    assert session.code == 0, f"{setting}: exit code {session.code}: {bench.said()}"
    assert not (bad := damaged(bench.run, at_rest=True)), f"{setting}, left alone: {bad}"
    trainings = Counter(training for training in trained(bench.trace) if training[0] == "begin")
    assert max(trainings.values()) == 1, f"{setting}, left alone: trained twice"
    for name in bench.modules.read_text().split():
        # What a session imports on its way, the next ones find in memory. Names are known to be importable.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return outcome(bench.run), Counter(bench.seen.read_text().split()), session.seconds


def planned(calls: Counter[str], chance: random.Random) -> list[Kill]:
    """A kill at each kind of call, before and after it, and half-way through what is written."""
    kills = []
    for label, count in sorted(calls.items()):
        ways = ("before", "after", "half") if label.startswith("write:") else ("before", "after")
        # Early in a session: each is to come a little farther, and not to the end.
        kills += [Kill(label, chance.randint(1, min(3, count)), when) for when in ways]
    chance.shuffle(kills)
    return kills


def moments(seconds: float, count: int, chance: random.Random) -> list[Kill]:
    """Kills by the clock, spread from the first instant of a session to a fifth of a whole run."""
    return [Kill(seconds=chance.uniform(0.01, seconds / 5)) for _ in range(count)]


def harness(settings: tuple[Setting, ...], folder: Path, seed: int, *, quick: bool) -> list[Figures]:
    """Every chain of every setting."""
    chance, results = random.Random(seed), []
    for setting in settings:
        name = str(setting).replace("/", "-")
        expected, calls, seconds = left_alone(setting, Bench(folder / name / "alone", setting.command()))
        print(f"{setting}: left alone {seconds:.1f} s, {sum(calls.values())} calls of {len(calls)} kinds", flush=True)
        kills = [kill for kill in QUICK_KILLS if kill.label in calls]
        if not quick:
            kills = planned(calls, chance) + moments(seconds, 10, chance)
            chance.shuffle(kills)
        left, runs = deque(kills + moments(seconds, 1, chance)), 0
        while left:
            bench = Bench(folder / name / str(runs), setting.command())
            figures = chain(setting, bench, left, expected)
            results.append(figures)
            runs += 1
            words = f"{len(figures.kills)} kills, {figures.valuations} valuations, {figures.seconds:.1f} s"
            print(f"{setting}: {words}; {len(left)} kills ahead", flush=True)
    return results


def table(results: list[Figures]) -> str:
    """By setting, and by what was going on."""
    rows = [
        "| run | kills | valuations | cut short | trained twice | stored and trained again | front, records, trials |"
    ]
    rows += ["|---|---|---|---|---|---|---|"]
    for setting in dict.fromkeys(figures.setting for figures in results):
        mine = [figures for figures in results if figures.setting == setting]
        kills, cut, twice = (sum(n) for n in zip(*((len(f.kills), f.cut, f.twice) for f in mine), strict=True))
        rows.append(f"| {setting} | {kills} in {len(mine)} runs | {mine[0].valuations} | {cut} | {twice} | 0 | equal |")
    phases = Counter(phase for figures in results for _, phase in figures.kills)
    rows += ["", "| while | kills |", "|---|---|", *(f"| {phase} | {n} |" for phase, n in phases.most_common())]
    rows += ["", f"kills: {sum(phases.values())}"]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two settings, a dozen kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="leave the runs in this folder")
    given = parser.parse_args()
    # Inherited by every session: one thread each, or processes on all cores at once would wait for one another.
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        results = harness(QUICK if given.quick else SETTINGS, folder, given.seed, quick=given.quick)
    print(table(results))


if __name__ == "__main__":
    main()
