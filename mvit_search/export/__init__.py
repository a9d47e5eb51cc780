"""Where a candidate goes: one file per destination, each named once in `EXPORTERS`."""

from pathlib import Path

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.export import coreml, corenet
from mvit_search.export._base import Exporter, ExportOptions, ExportResult

EXPORTERS: dict[str, Exporter] = {
    "corenet": corenet.export,
    "coreml": coreml.export,
}
"""Destination name -> what writes its files."""

__all__ = ["EXPORTERS", "ExportOptions", "ExportResult", "Exporter", "export", "exporter_names"]


def exporter_names() -> tuple[str, ...]:
    """The destinations that `export` knows."""
    return tuple(EXPORTERS)


def export(
    config: MobileViTConfig, name: str, to: str, out: Path, *,
    num_classes: int = 1000, options: ExportOptions | None = None,
) -> ExportResult:  # fmt: skip
    """Write `config`, called `name`, for the destination `to` into the folder `out` (made if missing).

    Files of the same name are replaced, each as a whole.

    Raises:
        UnknownNameError: no such destination.
        InputError: the destination cannot say this network or has no such option, or `out` cannot be written.
        WorkError: what would be written does not say what it should.
    """
    if to not in EXPORTERS:
        raise UnknownNameError("export destination", to, EXPORTERS)
    if num_classes < 1:
        raise InputError("num_classes", num_classes, "must be at least 1")
    return EXPORTERS[to](config, name, out, num_classes, options or ExportOptions())
