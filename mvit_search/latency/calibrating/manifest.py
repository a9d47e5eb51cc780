"""A plan as a folder: the networks as a runtime's files, and a manifest that says what each is.

The folder goes to the machine with the device, and is somebody else's file there: nothing of the manifest is opened
before it is known to lie inside the folder, and to be what the manifest says.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mvit_search import __version__
from mvit_search._files import write_atomically
from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.config import known_fields, validation_input_error
from mvit_search.errors import ConflictError, InputError
from mvit_search.latency import LocalRuntime, load_runtime
from mvit_search.latency.apple.iphone import IPhoneRuntime
from mvit_search.latency.apple.mac import MacRuntime
from mvit_search.latency.calibrating.results_table import Network
from mvit_search.latency.remote.packing import digest_of

MANIFEST_NAME = "manifest.json"
LAYOUTS = ("paper", "ane")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_WRITTEN_BY = "write it with `mvit-search measure --plan N --out DIR`"

Text = Annotated[str, Field(min_length=1, max_length=200)]
Classes = Annotated[int, Field(ge=1, le=1_000_000)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class PlannedFile(_Frozen):
    """One network of a plan.

    Attributes:
        file: name of its file (a folder, for a package) beside the manifest.
        name: for people.
        digest, config, num_classes: the network.
        suffix: of the file; says which runtimes can run it.
        sha256: of the file's content, as `packing.digest_of` gives it.
        predicted_ms: by the plan's target.
    """

    file: str
    name: Text
    digest: str
    config: MobileViTConfig
    num_classes: Classes
    suffix: Annotated[str, Field(pattern=r"^\.[a-z]{1,12}$")]
    sha256: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    predicted_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not _FILE_NAME.fullmatch(self.file) or not self.file.endswith(self.suffix):
            raise ValueError(
                f"file {self.file[:80]!r} must be a plain name inside the manifest's folder, with the suffix"
            )
        if self.config.digest() != self.digest:
            raise ValueError(f"digest {self.digest[:12]!r} must be its config's, {self.config.digest()[:12]!r}")
        return self


class Wanted(_Frozen):
    """How the networks are to be measured: the runtime with its compute units, and the layout that was converted."""

    runtime: Text
    layout: Literal["paper", "ane"]


class Manifest(_Frozen):
    """What a plan's folder holds.

    Attributes:
        format: version of this form.
        written_by: version of mvit-search.
        target: calibration of the target that the plan is for.
        space, seed: what the candidates were drawn from.
        wanted: how to measure.
        files: the networks, the most informative first.
    """

    format: Literal[1]
    written_by: Text
    target: Text
    space: Text
    seed: int
    wanted: Wanted
    files: Annotated[tuple[PlannedFile, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_no_duplicates(self) -> Self:
        for key in ("file", "digest"):
            values = [getattr(file, key) for file in self.files]
            if len(set(values)) < len(values):
                raise ValueError(f"two files have the same {key}")
        return self


class Planned(_Frozen):
    """A network to write, with what the plan's target predicts."""

    name: str
    config: MobileViTConfig
    predicted_ms: float


def runtime_for(name: str, layout: str) -> LocalRuntime:
    """The runtime of that name, which converts in that layout.

    Raises:
        UnknownNameError: no such runtime.
        InputError: no such layout, or the runtime has none to choose.
    """
    runtime = load_runtime(name)
    if layout not in LAYOUTS:
        raise InputError("--layout", layout, f"must be one of {', '.join(LAYOUTS)}")
    if layout == "paper":
        return runtime
    if not isinstance(runtime, (MacRuntime, IPhoneRuntime)):
        raise InputError("--layout", layout, f"is of Core ML programs, and {name} runs none", "leave it out")
    return replace(runtime, conversion=replace(runtime.conversion, layout="ane"))


def write_plan(
    planned: Sequence[Planned], runtime: LocalRuntime, folder: Path, *, num_classes: int,
    layout: str, target: str, space: str, seed: int, told: Callable[[Path], None],
) -> Manifest:  # fmt: skip
    """Write the networks and, when they are all there, the manifest. `told` hears of every file.

    Raises:
        ConflictError: the folder holds a plan already.
        InputError, WorkError: the folder cannot be written, or as `Runtime.write`.
    """
    require_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", str(folder), f"cannot be made ({error.strerror})") from None
    files = []
    for place, network in enumerate(planned, start=1):
        path = folder / f"{place:02d}-{network.name}{runtime.suffix}"
        runtime.write(network.config, num_classes, path)
        files.append(_planned_file(network, num_classes, path, runtime.suffix))
        told(path)
    manifest = Manifest(
        format=1, written_by=__version__, target=target, space=space, seed=seed,
        wanted=Wanted.model_validate({"runtime": runtime.name, "layout": layout}), files=tuple(files),
    )  # fmt: skip
    document = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_atomically(folder / MANIFEST_NAME, document + "\n")
    return manifest


def require_new(folder: Path) -> None:
    """Raises ConflictError if the folder holds a plan already."""
    if (folder / MANIFEST_NAME).exists():
        raise ConflictError("--out", str(folder), "holds a plan already", "choose another folder")


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest.

    Raises:
        InputError: it cannot be read, is no JSON, or breaks a rule; names the field.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(str(path), None, f"cannot be read ({error.strerror})", _WRITTEN_BY) from None
    except ValidationError as error:
        raise validation_input_error(error, path.name, known_fields(Manifest, PlannedFile, Wanted)) from None


def checked_artifact(file: PlannedFile, folder: Path) -> Path:
    """Where the network's file is, once it is known to be the one that the manifest means.

    Raises:
        InputError: it is not there, leads out of the folder, or has another content; names it.
    """
    path = folder / file.file
    if not path.exists():
        raise InputError(file.file, None, f"is not in {folder}", "copy the whole folder of the plan")
    if any(part.is_symlink() for part in (path, *path.rglob("*"))):
        raise InputError(file.file, None, "leads out of its folder by a link", "copy the folder itself")
    if digest_of(path) != file.sha256:
        raise InputError(file.file, None, "is not the file that the plan wrote (its sha256 differs)", "copy it anew")
    return path


def network_of(file: PlannedFile, manifest: Manifest) -> Network:
    """The network of a file, as a row of results says it."""
    return Network(file.name, file.config, file.num_classes, manifest.wanted.layout)


def _planned_file(network: Planned, num_classes: int, path: Path, suffix: str) -> PlannedFile:
    return PlannedFile(
        file=path.name, name=network.name, digest=network.config.digest(), config=network.config,
        num_classes=num_classes, suffix=suffix, sha256=digest_of(path),
        predicted_ms=float(f"{network.predicted_ms:.6g}"),
    )  # fmt: skip
