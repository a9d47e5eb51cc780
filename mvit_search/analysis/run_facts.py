"""`run.json` and the front document in words: what was run, how to run it again, what the numbers are worth."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mvit_search._quantities import format_count
from mvit_search.analysis.comparison import seed_spread
from mvit_search.analysis.front_document import CUT_SHORT, FrontDocument, display_target
from mvit_search.analysis.proxy_words import difference_text, proxy_words
from mvit_search.analysis.tables import latency_source

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
    "recipe": "recipe", "patience_s": "patience",
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
        Fact("Candidates", _counts(document)),
        Fact("Sampler and seed", _sampler(_part(run, "settings"), proxy_words(document).done)),
        Fact("Versions", _pairs(_part(run, "versions"))),
        Fact("Machine", _pairs(_part(run, "machine"))),
        Fact("Code revision", str(run.get("git_revision") or "")),
    )
    return tuple(fact for fact in facts if fact.text)


def reproduce_command(run: Mapping[str, Any], name: str, results_dir: Path = _RESULTS_DIR) -> str:
    """The command line that starts the same run again under `name`."""
    settings = _part(run, "settings")
    parts = ["mvit-search", "run"]
    for key, flag in _FLAGS.items():
        # Patience without a stand-in is a default that changes nothing, and so is training.
        idle = (key == "patience_s" and not settings.get("stand_in")) or settings.get(key) == "training"
        if settings.get(key) is not None and not idle:
            parts += [f"--{flag}", _flag_value(key, settings[key])]
    if results_dir != _RESULTS_DIR:
        parts += ["--results-dir", str(results_dir)]
    return shlex.join([*parts, "--name", name])


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
    spread, words = seed_spread(document), proxy_words(document)
    scores = words.done == "scored"
    one, many, lucky = ("score", "scores", "scores") if scores else ("accuracy", "trainings", "accuracies")
    noise, seed = ("the first weights", "seed") if scores else ("training", "training seed")
    return (
        _latency_limit(document),
        words.limit,
        f"Every {one} comes from one {seed} so far, so no difference can be told from the noise of {noise}."
        if spread is None
        else f"Two {many} of the same network differ by about {difference_text(document, spread)} here (seed spread:"
        " standard deviation of such a difference, pooled over all rows with several seeds). Differences up to that"
        " are called indistinguishable; one somewhat larger is still no proof.",
        f"The front is chosen from many candidates by the same figures that it shows, so its {lucky} lean to the"
        " lucky side. Train a pick in full before relying on it.",
        "MACs count one multiply-add as one; papers print the same figure as FLOPs. Peak activations are computed"
        " from the operator table for fp16 and one image, without a runtime's scratch space.",
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
    return f"{value:g}s" if key in ("time_s", "patience_s") and isinstance(value, (int, float)) else str(value)


def _part(run: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = run.get(key)
    return part if isinstance(part, Mapping) else {}
