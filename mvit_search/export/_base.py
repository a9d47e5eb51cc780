"""What every exporter takes, gives and needs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mvit_search._files import write_atomically
from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError, WorkError

_PREFIX = "mvit_search"


@dataclass(frozen=True)
class ExportResult:
    """The files written, and what was checked about them (facts and passed checks, ready for JSON)."""

    files: tuple[Path, ...]
    checks: dict[str, object]


class Exporter(Protocol):
    """Writes one destination's files into `out`; see `mvit_search.export.export` for the errors."""

    def __call__(self, config: MobileViTConfig, name: str, out: Path, num_classes: int) -> ExportResult: ...


def export_name(name: str, config: MobileViTConfig) -> str:
    """`first-run/12` -> `mvit_search_first_run_12_1f0c9a`: a Python module's name, a file's and a registry's.

    The prefix keeps it apart from the destination's own models, the first digits of the config's digest from
    another network whose name has the same letters and digits.
    """
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return "_".join(filter(None, (_PREFIX, slug, config.digest()[:6])))


def write_files(out: Path, texts: dict[str, str]) -> tuple[Path, ...]:
    """Write each text under its file name, whole or not at all.

    Raises:
        InputError: `out` cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = tuple(out / file_name for file_name in texts)
        for path, text in zip(paths, texts.values(), strict=True):
            write_atomically(path, text)
    except OSError as error:
        rule = f"cannot be written ({error.strerror})"
        raise InputError("out", str(out), rule, "choose another folder") from error
    return paths


def require_checks(checks: dict[str, object]) -> None:
    """Every check that is a truth value must be true.

    Raises:
        WorkError: naming the failed ones.
    """
    failed = [name for name, value in checks.items() if value is False]
    if failed:
        raise WorkError(f"export: failed check(s) {', '.join(failed)}; nothing was written")
