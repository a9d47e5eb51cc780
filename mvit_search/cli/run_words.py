"""What `run` says of itself: how it was begun, for its log; how it ended; how to carry it on."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvit_search.records import RunFolder
    from mvit_search.search import RunSettings


def begun(settings: "RunSettings", *, carried_on: bool) -> str:
    """The log's line of a start: what differs from the defaults. Passwords in addresses are left out."""
    from mvit_search import __version__

    given = settings.model_dump(exclude_defaults=True)
    said = ", ".join(f"{key} {_setting(value)}" for key, value in given.items())
    return f"{'carried on' if carried_on else 'begun'} by mvit-search {__version__}: {said}"


def _setting(value: object) -> str:
    words = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"\?.*", "?...", re.sub(r"//[^/]*@", "//***@", words)) if "://" in words else words


def carry_on(folder: "RunFolder") -> str:
    """The command that goes on with a run."""
    words = ("mvit-search", "run", "--resume", "--results-dir", str(folder.path.parent), "--name", folder.name)
    storage = folder.read_run().get("settings", {}).get("storage") or ""
    return shlex.join(words) + (" --storage URL (the same, with its password)" if "***" in storage else "")


def ended(document: dict[str, Any]) -> str:
    """How a run ended, in a line."""
    replayed = document["proxy"].startswith("table:")
    words = {
        "trials": f"All candidates {_done(document)}",
        "time": "Time limit reached (carry on with --resume and a longer --time)",
        "space exhausted": "Nothing new left in the space" + (", as far as the table goes" if replayed else ""),
        "target unavailable": "Time limit reached while the measurement server did not answer (carry on with --resume)",
    }
    return f"{words[document['ended_by']]}: {', '.join(_counts(document))}."


def closing(document: dict[str, Any], report: Path, given: dict[str, Any]) -> str:
    """What the run did, and what to do with it."""
    reference = shlex.quote(document["directory"] + "/best")
    return "\n".join([
        ended(document), *_trainings(document, given), *_replay(document),
        f"Report: {report}", f"Export a point: mvit-search export {reference} --to corenet --out DIR",
    ])  # fmt: skip


def _done(document: dict[str, Any]) -> str:
    kind = document["proxy"].partition(":")[0]
    return {"zero-cost": "scored", "table": "replayed"}.get(kind, "trained")


def _counts(document: dict[str, Any]) -> list[str]:
    done = _done(document)
    full = document["scored"] if done == "scored" else document["trained"]
    halving = document["fidelity"] == "halving"
    counts = [f"{full} {done} at full fidelity" if halving else f"{full} {done}"]
    if halving:
        counts.append(f"{document['stopped']} stopped at lower rungs")
    reasons = ", ".join(f"{count} {why}" for why, count in document["failures"].items())
    counts.append(f"{document['failed']} failed" + (f" ({reasons})" if reasons else ""))
    counts.append(f"{document['rejected']} over budget")
    if document.get("prescreened"):
        counts.append(f"{document['prescreened']} prescreened away")
    return [*counts, f"{document['duplicates']} repeated"]


def _trainings(document: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """How much was trained, and how much was known."""
    if _done(document) != "trained":
        return []
    new, remembered = document["trainings"], document["remembered"]
    trainings = f"{new} training{'' if new == 1 else 's'}"
    if not remembered:
        return [f"{trainings}, none known from earlier runs."]
    if new:
        return [f"{trainings}; {remembered} more known from earlier runs, not repeated."]
    ways = " and ".join(["with --no-cache", *(["without --from"] if given.get("from_run") else [])])
    return [
        f"Nothing was trained anew: all {remembered} trainings were known from earlier runs. To train them again give "
        f"the same command {ways}, under another --name."
    ]


def _replay(document: dict[str, Any]) -> list[str]:
    """How far going through an older run's events again came to the same."""
    if "replay" not in document:
        return []
    replay = document["replay"]
    return [f"Replay of {replay['of']}: {replay['same']} of {replay['valuations']} valuations came to the same."]
