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


@dataclass(frozen=True)
class ExportOptions:
    """What some destinations can be told beside the network; None is the destination's default.

    Attributes:
        layout, deployment_target, input: of `coreml`, as `latency.coreml.ConversionSettings` says.
    """

    layout: str | None = None
    deployment_target: str | None = None
    input: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Those that are not left to the destination."""
        return {field: value for field, value in vars(self).items() if value is not None}


class Exporter(Protocol):
    """Writes one destination's files into `out`; see `mvit_search.export.export` for the errors."""

    def __call__(
        self, config: MobileViTConfig, name: str, out: Path, num_classes: int, options: ExportOptions
    ) -> ExportResult: ...


def export_name(name: str, config: MobileViTConfig) -> str:
    """`first-run/12` -> `mvit_search_first_run_12_1f0c9a`: a Python module's name, a file's and a registry's.

    The prefix keeps it apart from the destination's own models, the first digits of the config's digest from
    another network whose name has the same letters and digits.
    """
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return "_".join(filter(None, (_PREFIX, slug, config.digest()[:6])))


def refuse_options(options: ExportOptions, destination: str) -> None:
    """For a destination that has none.

    Raises:
        InputError: naming the first option that was given.
    """
    for field, value in options.given.items():
        rule = f"{destination} has no such option"
        raise InputError(field, value, rule, "leave it out, or export to coreml")


def make_folder(out: Path) -> None:
    """Make `out` where it is missing.

    Raises:
        InputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_written(out, error) from error


def write_files(out: Path, texts: dict[str, str]) -> tuple[Path, ...]:
    """Write each text under its file name, whole or not at all.

    Raises:
        InputError: `out` cannot be made or written.
    """
    make_folder(out)
    try:
        paths = tuple(out / file_name for file_name in texts)
        for path, text in zip(paths, texts.values(), strict=True):
            write_atomically(path, text)
    except OSError as error:
        raise _cannot_be_written(out, error) from error
    return paths


def _cannot_be_written(out: Path, error: OSError) -> InputError:
    return InputError("out", str(out), f"cannot be written ({error.strerror})", "choose another folder")


def require_checks(checks: dict[str, object]) -> None:
    """Every check that is a truth value must be true.

    Raises:
        WorkError: naming the failed ones.
    """
    failed = [name for name, value in checks.items() if value is False]
    if failed:
        raise WorkError(f"export: failed check(s) {', '.join(failed)}; nothing was written")
