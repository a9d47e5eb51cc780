"""From the options of `run` to settings and a folder."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvit_search.records import RunFolder


def given_settings(
    *, budget: str | None, time: str | None, patience: str | None, allow_predicted: bool, table: str | None,
    max_latency: str | None, max_macs: str | None, max_memory: str | None, max_weights: str | None,
    **others: Any,
) -> dict[str, Any]:  # fmt: skip
    """The settings that the user gave, parsed."""
    from mvit_search._quantities import parse_bytes, parse_count, parse_milliseconds, parse_seconds
    from mvit_search.errors import InputError

    given = {key: value for key, value in others.items() if value is not None}
    quantities = (
        ("budget", budget, parse_count, "--budget"),
        ("time_s", time, parse_seconds, "--time"),
        ("patience_s", patience, parse_seconds, "--patience"),
        ("max_latency_ms", max_latency, parse_milliseconds, "--max-latency"),
        ("max_macs", max_macs, parse_count, "--max-macs"),
        ("max_memory_bytes", max_memory, parse_bytes, "--max-memory"),
        ("max_weight_bytes", max_weights, parse_bytes, "--max-weights"),
    )
    given |= {key: parse(text, option) for key, text, parse, option in quantities if text is not None}
    if "eta" in given and given.get("fidelity") != "halving":
        raise InputError("--eta", given["eta"], "means nothing without rungs", "give --fidelity halving")
    if given.get("engine") == "in-process" and given.get("workers", 1) > 1:
        raise InputError("--workers", given["workers"], "means nothing with --engine in-process", "leave --engine out")
    if "ray_address" in given:
        given.setdefault("engine", "ray")
    if "objectives" in given:
        from mvit_search.records import check_objectives

        given["objectives"] = check_objectives(given["objectives"])
    if table is not None:
        if "proxy" in given:
            raise InputError("--table", table, "is a proxy of its own", "leave --proxy out")
        given["proxy"] = f"table:{table}"
    if allow_predicted:
        from mvit_search.search.settings import DEFAULT_STAND_IN

        given.setdefault("stand_in", DEFAULT_STAND_IN)
    return given


_LIMITS = ("max_latency_ms", "max_macs", "max_memory_bytes", "max_weight_bytes", "min_top1")


def run_folder(given: dict[str, Any], results_dir: Path, name: str | None, resume: bool) -> "RunFolder":
    """The run's folder; one set of settings makes one name, so that the same command again carries on."""
    from mvit_search._quantities import format_count
    from mvit_search.errors import InputError, UnknownNameError
    from mvit_search.records import RunFolder, run_names

    if name is None and "replay_run" in given:
        # Of a folder that was renamed too, so that `--name` can carry it on.
        name = f"{_as_name(Path(given['replay_run']).resolve().name)[:93].lstrip('._-') or 'run'}-replay"
    if resume and name is None and not {"budget", "target"} <= given.keys():
        raise InputError(
            "--name", None, "is required with --resume", "the name of the run's folder, or its settings again"
        )
    if not (name and resume):
        for required, example in (("budget", "--budget 6M"), ("target", "--target iphone12")):
            if required not in given:
                raise InputError(f"--{required}", None, "is required", f"for example {example}")
    if name is None:
        # A server's address without `http://`: `2M-192.168.1.20_8765`.
        parts = [format_count(given["budget"]).replace(".00", ""), given["target"].rpartition("://")[2].rstrip("/")]
        words = ("space", "data", "proxy", "prescreen", "sampler", "fidelity")
        parts += [Path(given[key]).name.removesuffix(".yaml") for key in words if key in given]
        parts += [key for key in given.get("objectives", ()) if key not in ("top1", "latency_ms")]
        parts += [f"{key}-{given[key]:g}" for key in _LIMITS if key in given]
        parts += [f"seed{given['seed']}"] if "seed" in given else []
        name = _as_name("-".join(parts))[:100]
    elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError("--name", name, "must be letters, digits, '.', '_' and '-' alone, at most 100")
    folder = RunFolder(results_dir / name)
    if resume and not folder.exists():
        raise UnknownNameError("run", name, run_names(results_dir))
    return folder


def _as_name(words: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", words)


def replayed_settings(run: str, results_dir: Path) -> dict[str, Any]:
    """What a run was made with, for going through its events again: all trained, nothing taken from the cache."""
    from mvit_search.records import find_run

    settings = settings_of(find_run(run, results_dir))
    kept = {key: value for key, value in settings.items() if key not in ("engine", "workers", "ray_address", "storage")}
    return {**kept, "cache": False}


def settings_of(folder: "RunFolder") -> dict[str, Any]:
    """What the run was begun with."""
    from mvit_search.errors import InputError

    settings = folder.read_run().get("settings")
    if not isinstance(settings, dict):
        raise InputError("run", str(folder.run_file), "holds no settings", "give them again, without --resume")
    return settings


def resumed_settings(folder: "RunFolder", given: dict[str, Any]) -> dict[str, Any]:
    """What the run was begun with, and over it what is given now."""
    from mvit_search.errors import InputError

    settings = {**settings_of(folder), **given}
    if "***" in (settings.get("storage") or ""):
        rule = "was kept without its password"
        raise InputError("--storage", settings["storage"], rule, "give the whole URL again, or use a password file")
    return settings
