"""`run.json` and the front document in words: what was run, how to run it again, what the numbers are worth."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mvit_search._quantities import format_count
from mvit_search.analysis.comparison import seed_noise
from mvit_search.analysis.front_document import CUT_SHORT, FrontDocument, display_target
from mvit_search.analysis.objective_words import COSTS, costs, listed
from mvit_search.analysis.proxy_words import difference_text, proxy_words
from mvit_search.analysis.tables import latency_source
from mvit_search.records import DEFAULT_OBJECTIVES, SeedNoise

_RESULTS_DIR = Path("results")
"""Where a run goes, and is looked for, without `--results-dir`."""

STATES = {
    "running": "still running", "finished": "finished", "stopped": "stopped before its end",
    "failed": "ended by an error", CUT_SHORT: "cut short",
}  # fmt: skip
# The flag of each setting; one that is None was left to its default.
_FLAGS = {
    "budget": "budget", "target": "target", "space": "space", "data": "data", "trials": "trials", "time_s": "time",
    "seed": "seed", "sampler": "sampler", "final_seeds": "final-seeds", "num_classes": "num-classes",
    "images": "images", "epochs": "epochs", "proxy_size": "proxy-size", "device": "device", "threads": "threads",
    "proxy": "proxy", "prescreen": "prescreen", "data_fraction": "data-fraction", "stand_in": "stand-in",
    "recipe": "recipe", "patience_s": "patience", "objectives": "objective", "max_macs": "max-macs",
    "max_memory_bytes": "max-memory", "max_weight_bytes": "max-weights", "max_latency_ms": "max-latency",
    "min_top1": "min-top1", "fidelity": "fidelity", "rungs": "rungs", "eta": "eta", "engine": "engine",
    "workers": "workers", "finals": "finals", "ray_address": "ray-address", "storage": "storage", "from_run": "from",
    "configs_from": "configs-from", "replay_run": "replay",
}  # fmt: skip


class Fact(NamedTuple):
    """A label and what stands beside it."""

    label: str
    text: str


def run_facts(run: Mapping[str, Any], document: FrontDocument) -> tuple[Fact, ...]:
    """What was run. A fact that `run.json` does not hold is left out, not guessed."""
    facts = (
        Fact("Budget", _budget(run, document)),
        Fact("Target", _target(document)),
        Fact("Latency", latency_source(document) if document.latency_sources else ""),
        Fact("Search space", _space(_part(run, "space"))),
        Fact("Data", _data(_part(run, "data"))),
        Fact("Proxy", "" if document.proxy == "training" else f"{document.proxy}: {proxy_words(document).origin}"),
        Fact("Proxy training", _pairs(_part(run, "recipe"))),
        *search_facts(document),
        Fact("Candidates", _counts(document)),
        Fact("Sampler and seed", _sampler(_part(run, "settings"), proxy_words(document).done)),
        Fact("Versions", _pairs(_part(run, "versions"))),
        Fact("Machine", _pairs(_part(run, "machine"))),
        Fact("Code revision", str(run.get("git_revision") or "")),
    )
    return tuple(fact for fact in facts if fact.text)


def search_facts(document: FrontDocument) -> tuple[Fact, ...]:
    """What the search weighed, kept to and stopped, as far as it did more than weigh top-1 against latency."""
    facts = (
        Fact("Objectives", _objectives(document)),
        Fact("Other limits", _other_limits(document)),
        Fact("Fidelities", _fidelities(document)),
    )
    return tuple(fact for fact in facts if fact.text)


def reproduce_command(run: Mapping[str, Any], name: str, results_dir: Path = _RESULTS_DIR) -> str:
    """The command line that starts the same run again under `name`."""
    settings = _part(run, "settings")
    parts = ["mvit-search", "run"]
    for key, flag in _FLAGS.items():
        if settings.get(key) is not None and not _is_idle(key, settings):
            values = settings[key] if isinstance(settings[key], (list, tuple)) else [settings[key]]
            for value in values:
                parts += [f"--{flag}", _flag_value(key, value)]
    if settings.get("cache") is False:
        parts.append("--no-cache")
    if results_dir != _RESULTS_DIR:
        parts += ["--results-dir", str(results_dir)]
    return shlex.join([*parts, "--name", name])


def _is_idle(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting is a default that changes nothing and would only lengthen the command."""
    return {
        "patience_s": not settings.get("stand_in"),
        "proxy": settings.get("proxy") == "training",
        "objectives": settings.get("objectives") == list(DEFAULT_OBJECTIVES),
        "fidelity": settings.get("fidelity") == "full",
        "eta": settings.get("fidelity") != "halving",
    }.get(key, False)


def resume_command(results_dir: Path, name: str) -> str:
    """The command line that carries on a run."""
    return shlex.join(["mvit-search", "run", "--resume", "--results-dir", str(results_dir), "--name", name])


def export_command(reference: str) -> str:
    """The command line that exports a candidate: `results/demo/best`, a preset's name."""
    return shlex.join(["mvit-search", "export", reference, "--to", "corenet", "--out", "exported"])


def how_it_ended(document: FrontDocument) -> str:
    """What to say of a run that can be carried on, before the command for it; nothing if it went to its end."""
    return {
        "stopped": "The run was stopped before its end; carry on with:",
        "failed": "The run ended with an error; nothing finished is lost. Once its cause is gone, carry on with:",
        CUT_SHORT: "The run was cut short; carry on with:",
    }.get(document.state, "")


def limits_of_the_numbers(document: FrontDocument) -> tuple[str, ...]:
    """What a reader must not conclude, one sentence or two each."""
    noise, words = seed_noise(document), proxy_words(document)
    scores = words.done == "scored"
    one, lucky = ("score", "scores") if scores else ("accuracy", "accuracies")
    source, seed = ("the first weights", "seed") if scores else ("training", "training seed")
    return (
        _latency_limit(document),
        words.limit,
        *_stopped_limit(document),
        f"Every {one} comes from one {seed} so far, so no difference can be told from the noise of {source}."
        if noise is None
        else _noise_words(document, noise),
        f"The front is chosen from many candidates by the same figures that it shows, so its {lucky} lean to the"
        " lucky side. Train a pick in full before relying on it.",
        "MACs count one multiply-add as one; papers print the same figure as FLOPs. Peak activations are computed"
        " from the operator table for fp16 and one image, without a runtime's scratch space.",
    )


def _noise_words(document: FrontDocument, noise: SeedNoise) -> str:
    many = "scores" if proxy_words(document).done == "scored" else "trainings"
    seeds = max(len(point.value_by_seed) for point in (*document.front, *document.baselines))
    return (
        f"Two {many} of the same network differ by about {difference_text(document, math.sqrt(2) * noise.std)} here"
        " (standard deviation of such a difference, pooled over all rows with several seeds). Seed noise is what the"
        f" means of two equal networks stay within 19 times of 20, by Student's t: with {seeds} seeds each"
        f" {difference_text(document, noise.margin(seeds, seeds))}. Differences up to that are called"
        " indistinguishable; one somewhat larger is still no proof, for many are looked at."
    )


def _stopped_limit(document: FrontDocument) -> tuple[str, ...]:
    if not document.stopped:
        return ()
    return (
        f"{document.stopped} candidates were stopped at a lower rung. Their top-1 comes from a shorter training: it is"
        " drawn hollow, is never on the front, and does not compare with the others.",
    )


def _latency_limit(document: FrontDocument) -> str:
    if document.latency_word == "measured":
        return "Latency was measured; the interval is the 10th to the 90th percentile of the runs on that machine."
    if document.latency_word == "predicted":
        return (
            "Latency is predicted from a model fitted to published measurements; nothing was run on the device. The"
            " interval is the predictor's own 10th to 90th percentile. Intervals that overlap do not settle which"
            f" network is faster.{_extrapolated(document)}"
        )
    return (
        "Some latencies were measured and some predicted; each row says which. A prediction beside a measurement does"
        " not settle which network is faster."
    )


def _extrapolated(document: FrontDocument) -> str:
    if not any("extrapolated" in source for source in document.latency_sources):
        return ""
    return " Some inputs have a size that the predictor never saw: how wrong it is there is unknown, interval or not."


def _budget(run: Mapping[str, Any], document: FrontDocument) -> str:
    if document.budget is None:
        return ""
    classes = _part(run, "settings").get("num_classes")
    counted = f", counted with {classes} classes" if classes else ""
    return f"at most {format_count(document.budget)} parameters{counted}"


def _objectives(document: FrontDocument) -> str:
    """Only where they are not what every run had."""
    if costs(document) == ("latency_ms",):
        return ""
    return listed([proxy_words(document).column, *(f"least {COSTS[key].noun}" for key in costs(document))])


def _other_limits(document: FrontDocument) -> str:
    given = {key: most for key, most in document.limits.items() if most is not None}
    named = {"latency_ms": " latency", "weight_bytes": " weights", "peak_activation_bytes": " peak activations"}
    costed = [key for key in COSTS if key in given and key != "params"]  # the budget has its own line
    parts = [f"at most {COSTS[key].text(given[key])}{named.get(key, '')}" for key in costed]
    parts += [f"at least {100 * given['min_top1']:.1f} % top-1"] if "min_top1" in given else []
    return ", ".join(parts)


def _fidelities(document: FrontDocument) -> str:
    if document.rungs < 2:
        return ""
    # A rung reads EPOCHS, EPOCHS@SIDE or EPOCHS@SIDE:SHARE.
    went_on = f"; about one of {document.eta} candidates goes on to the next rung" if document.eta else ""
    stopped = f"; {document.stopped} were stopped before the last" if document.stopped else ""
    return f"successive halving over rungs of {', '.join(document.ladder)} epochs{went_on}{stopped}"


def _target(document: FrontDocument) -> str:
    if not document.target:
        return ""
    return f"{display_target(document.target)}, latency {document.latency_word or 'not known'}"


def _space(space: Mapping[str, Any]) -> str:
    if "name" not in space:
        return ""
    candidates, size = space.get("candidates"), ""
    if isinstance(candidates, (int, float)) and 0 <= candidates < 1e300:
        size = f", {candidates:{',.0f' if candidates < 10**6 else '.3g'}} candidates"
    return f"{space['name']}{size}" + (f", digest {str(space['digest'])[:12]}" if "digest" in space else "")


def _data(data: Mapping[str, Any]) -> str:
    parts = [str(data["name"])] if "name" in data else []
    counted = (("classes", "classes"), ("train_images", "training images"), ("held_out_images", "held-out images"))
    parts += [f"{data[key]:,} {word}" for key, word in counted if isinstance(data.get(key), int)]
    parts += [f"{data[key]}" for key in ("source",) if data.get(key)]
    parts += [f"digest {str(data['digest'])[:12]}"] if data.get("digest") else []
    return ", ".join(parts)


def _counts(document: FrontDocument) -> str:
    text = (
        f"{document.evaluated} {proxy_words(document).done}, {document.failed} failed; {document.rejected} proposals"
        f" over a limit and {document.duplicates} duplicates cost no training;"
        f" {STATES.get(document.state, document.state)}"
    )
    if document.failures:
        text += "; failures: " + ", ".join(f"{count} {reason}" for reason, count in document.failures.items())
    if document.remembered:
        text += f"; {document.remembered} trainings were taken over from earlier runs"
    if document.prescreened:
        text += f"; {document.prescreened} were scored and not chosen for training"
    return f"{text} (ended by: {document.ended_by})" if document.ended_by else text


def _sampler(settings: Mapping[str, Any], done: str) -> str:
    parts = [str(settings["sampler"])] if settings.get("sampler") else []
    parts += [f"search seed {settings['seed']}"] if settings.get("seed") is not None else []
    parts += [f"front {done} with {settings['final_seeds']} seeds each"] if settings.get("final_seeds") else []
    return ", ".join(parts)


def _pairs(part: Mapping[str, Any]) -> str:
    """Plain values only; `batch_size` reads `batch size`."""
    return ", ".join(
        f"{str(key).replace('_', ' ')} {_plain(value)}"
        for key, value in part.items()
        if value is not None and not isinstance(value, Mapping)
    )


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " / ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flag_value(key: str, value: object) -> str:
    units = {"time_s": "s", "patience_s": "s", "max_latency_ms": "ms"}
    return f"{value:g}{units[key]}" if key in units and isinstance(value, (int, float)) else str(value)


def _part(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = run.get(key)
    return part if isinstance(part, Mapping) else {}
