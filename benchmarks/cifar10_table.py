"""The project's tabular benchmark: MobileViTs of the default space trained on CIFAR-10, scored at every rung.

Candidates are drawn evenly over parameters and latency inside 6 M, presets first. Each is trained to a long schedule
that is scored on its way, and to short complete schedules, and gets its zero-cost scores. Rows go to OUT/table.csv as
they come; the same command again carries on, so chunks may be of any length. `--setting gpu`: 64 px, all 50,000 images,
20 epochs, 10,000 test images, several candidates at once on one device. `--setting cpu`: 32 px, 5,000 images,
12 epochs, 4,000 test images.

    python benchmarks/cifar10_table.py --data FOLDER_OR_ARCHIVE --out DIR [--setting gpu --device cuda] [--time 9m]

`--data` is a CIFAR-10 that `mvit-search run --data` understands, for example an image folder of 50,000 and 10,000.
Without it, `--quick` uses the built-in digits to show that it works. Ends with
`ratio rank-correlation-cheapest-schedule-over-params`: Kendall tau of the first rung with the end of the long
schedule, over that of the parameter count.
"""

import argparse
import tempfile
from pathlib import Path

from scipy.stats import kendalltau

from mvit_search._quantities import parse_seconds
from mvit_search.latency import load_target
from mvit_search.proxy import default_recipe
from mvit_search.proxy.zero_cost import NAMES
from mvit_search.ranking.candidates import Candidate, choose_candidates
from mvit_search.ranking.fidelity import Fidelity, fidelity, shortened
from mvit_search.ranking.runner import Progress, default_workers, jobs, run_jobs
from mvit_search.ranking.worker import Job, WorkerSettings
from mvit_search.records.table import TableRow, read_table
from mvit_search.space import load_space

BUDGET, SMALLEST = 6_000_000, 500_000


def main() -> None:
    arguments = parse_arguments()
    if arguments.quick:
        arguments.data, arguments.setting, arguments.seeds = arguments.data or "digits", "quick", 1
    ways, held_out, loaded = SETTINGS[arguments.setting]()
    count = arguments.candidates or DEFAULT_COUNT[arguments.setting]
    candidates = choose_candidates(load_space("mobilevit"), load_target("iphone12"), BUDGET, count, smallest=SMALLEST)
    settings = WorkerSettings(arguments.data, loaded, held_out, device=arguments.device)
    workers = arguments.workers or default_workers(arguments.device)
    wanted = jobs(candidates, ways[:2]) + jobs(candidates, ways[:2], arguments.seeds, arguments.seeded)
    scores = () if arguments.quick else (name for name in NAMES if name not in ("params", "macs"))
    wanted += [Job(candidate, 0, ways[0], name) for name in scores for candidate in candidates]
    wanted = list(dict.fromkeys(wanted + jobs(candidates, ways)))
    print(f"{len(candidates)} candidates, {len(wanted)} trainings, {workers} at once on {arguments.device}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        seconds = parse_seconds(arguments.time, "--time") if arguments.time else None
        table = run_jobs(wanted, settings, out, workers=workers, seconds=seconds, watch=tell)
        report(read_table(table), ways[0], candidates)


def gpu() -> tuple[list[Fidelity], int | None, int | None]:
    """64 px, all images; a ladder of rungs of one long schedule, and one of complete schedules."""
    changes = {"image_size": 64, "epochs": 20, "batch_size": 256, "learning_rate": 4e-3, "precision": "bfloat16"}
    recipe = default_recipe("cifar10").changed(**changes)
    ways = [fidelity(recipe, 50_000, (1, 2, 3, 4, 6, 8, 12, 16))]
    ways += [fidelity(shortened(recipe, epochs), 50_000) for epochs in (1, 2, 4, 8)]
    return ways, None, None


def cpu() -> tuple[list[Fidelity], int | None, int | None]:
    """The reduced setting: a hundredth of the work, for two cores and an hour or two."""
    recipe = default_recipe("cifar10").changed(epochs=12)
    ways = [fidelity(recipe, 5_000, (1, 2, 4, 6, 8))]
    ways += [fidelity(shortened(recipe, epochs), 5_000) for epochs in (2, 1, 4)]
    ways.append(fidelity(recipe, 1_250, (2, 4)))
    ways.append(fidelity(shortened(recipe.changed(image_size=16), 4), 5_000))
    return ways, 4_000, None


def quick() -> tuple[list[Fidelity], int | None, int | None]:
    recipe = default_recipe("digits").changed(epochs=4)
    return [fidelity(recipe, 448, (1, 2)), fidelity(shortened(recipe, 2), 448)], 400, None


SETTINGS = {"gpu": gpu, "cpu": cpu, "quick": quick}
DEFAULT_COUNT = {"gpu": 300, "cpu": 27, "quick": 5}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 candidates on the built-in digits: under 50 s")
    parser.add_argument("--data", help="CIFAR-10, as `mvit-search run --data` takes it")
    parser.add_argument("--out", type=Path, help="folder of table.csv (default: a temporary one)")
    parser.add_argument("--setting", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--candidates", type=int, help="how many, presets included (default: 27 on a CPU, 300 on a GPU)"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="seeds of the first --seeded candidates, first two schedules (default 3)"
    )
    parser.add_argument("--seeded", type=int, default=6, help="how many candidates get several seeds (default 6)")
    parser.add_argument("--workers", type=int, help="trainings at once (default: one a core, 4 on a GPU)")
    parser.add_argument("--time", help="end of this chunk, for example 9m")
    arguments = parser.parse_args()
    if not (arguments.data or arguments.quick):
        parser.error("--data is needed: an image folder or archive of CIFAR-10")
    return arguments


def tell(progress: Progress) -> None:
    row = progress.row
    if row is None:
        return
    value = f"top-1 {100 * row.top1:.1f} %" if row.top1 is not None else f"score {row.score:.4g}"
    shown = row.error or value
    who = row.name or f"{row.digest[:8]} ({row.params / 1e6:.2f} M)"
    print(
        f"{progress.done}/{progress.total} {row.fidelity} seed {row.seed} {who}: epoch {row.epoch}, {shown}", flush=True
    )


def report(rows: tuple[TableRow, ...], long: Fidelity, candidates: tuple[Candidate, ...]) -> None:
    """Every rung and schedule against the end of the long schedule, seed 0."""
    by_way: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        if row.seed == 0 and row.top1 is not None:
            by_way.setdefault((row.fidelity, row.epoch), {})[row.digest] = row.top1
    final = by_way.get((long.name, long.recipe.epochs), {})
    print(f"\n{len(final)} of {len(candidates)} candidates have finished the long schedule, {long.name}")
    if len(final) < 4:
        return
    params = {candidate.config.digest(): float(candidate.params) for candidate in candidates}
    baseline = tau(params, final)
    print(f"{'schedule':<34}{'epoch':>6}{'candidates':>12}{'Kendall tau':>13}")
    for (name, epoch), scores in sorted(by_way.items()):
        print(f"{name:<34}{epoch:>6}{len(scores):>12}{tau(scores, final):>13.2f}")
    print(f"{'parameters':<34}{'':>6}{len(final):>12}{baseline:>13.2f}")
    first = tau(by_way[long.name, long.rungs[0]], final)
    print(
        f"ratio rank-correlation-cheapest-schedule-over-params: {max(0.0, first / baseline) if baseline else 0.0:.2f}"
    )


def tau(scores: dict[str, float], final: dict[str, float]) -> float:
    shared = [digest for digest in scores if digest in final]
    return float(kendalltau([scores[d] for d in shared], [final[d] for d in shared]).statistic)


if __name__ == "__main__":
    main()
