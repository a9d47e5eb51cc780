"""WebDataset shards: tar archives in which the files of one sample share their name up to the first dot.

    webdataset:shards                                  a folder: shards named train and val, or all of one kind
    webdataset:shards/train-{000000..000009}.tar       braces as the library `webdataset` expands them
    webdataset:train-{0..3}.tar#val=val-{0..1}.tar     held out: these
    webdataset:all.tar#label=species                   labels under a key of the samples' .json

Needs the extra `mvit-search[webdataset]`: shards and samples are taken apart by the library's own rules. They are read
where they lie, by position, and from this machine alone: the library itself would also open addresses and run commands.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Catalogue, Side, Unreadable
from mvit_search.data._decoding import in_order, picture
from mvit_search.data._labels import labelled
from mvit_search.data._layout import EXTENSIONS
from mvit_search.data._members import Member, Packed, opened
from mvit_search.errors import InputError

_ENDINGS = (".tar", ".tar.gz", ".tgz")
_SIDES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_JSON_LABELS = ("label", "cls", "class", "target")
_META = re.compile(r"__[^/]*__($|/)")  # the library's own notes within a shard
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters at least: `C:` is a drive
_MAX_SHARDS = 100_000
_MAX_LABEL = 10**6
_CHUNK = 16  # pictures handed to a thread at once


def webdataset(argument: str, seed: int) -> Catalogue:
    """Labelled images of shards; `argument` is a folder, a shard or a pattern, then perhaps `#val=...,label=KEY`.

    In a folder, and in the folders below it, a shard belongs to the side that its name or folder has as a word:
    train or training; val, valid or validation; else test. Without such words all shards are one side.

    A sample has one image (.jpg, .png, .webp, ...) and a label: .cls, or .json with `KEY`, or else with label, cls,
    class or target; a whole number from 0 or a word. What has a label but no image is an unreadable picture; what
    has neither is no sample of ours. `seed` is not used.

    Raises:
        InputError: the extra is missing; an address or a command; no shard, one that is missing, damaged or has two
            files of one name; an image without a label; a label that is neither a whole number nor a word.
    """
    place, settings = _asked(argument)
    if not place:
        raise InputError("data", f"webdataset:{argument}", "names no shard or folder", "see docs/data.md")
    shards = _shards(place, settings["val"])
    samples = {side: _samples(paths, settings["label"]) for side, paths in shards.items()}
    for side, found in samples.items():
        if not found:
            first = ", ".join(path.name for path in shards[side][:3])
            raise InputError("data", f"webdataset:{place}", f"no labelled image in {first}", "see docs/data.md")
    where = {side: f"webdataset:{place} ({side})" for side in samples}
    names, labels = labelled(where, {side: _stored(found) for side, found in samples.items()})
    digest = hashlib.sha256(settings["label"].encode())
    for side, found in samples.items():
        for shard, _ in groupby(found, key=lambda sample: sample.shard):
            digest.update(f"{side} {shard.packed.fingerprint}".encode())
    counts = " and ".join(f"{len(paths)} {side}" for side, paths in shards.items())
    return _Shards(names, labels, f"WebDataset of {counts} shards", digest.hexdigest(), samples)


@dataclass(frozen=True, eq=False)
class _Shard:
    path: Path
    packed: Packed


class _Sample(NamedTuple):
    """`label` is a whole number or a word; `image` is None where the sample has none."""

    name: str
    shard: _Shard
    image: Member | None
    label: int | str


@dataclass(frozen=True, eq=False)
class _Shards:
    class_names: tuple[str, ...]
    labels: Mapping[Side, Labels]
    description: str
    fingerprint: str
    samples: Mapping[Side, Sequence[_Sample]]

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        def decode_chunk(chunk: Sequence[tuple[str, bytes | str]]) -> list[Images | Unreadable]:
            return [Unreadable(n, data) if isinstance(data, str) else picture(data, n, size) for n, data in chunk]

        contents = _contents(self.samples[side][i] for i in indices)
        return in_order(decode_chunk, iter(lambda: list(islice(contents, _CHUNK)), []))


def _contents(samples: Iterable[_Sample]) -> Iterator[tuple[str, bytes | str]]:
    """(name, image file or why there is none); each shard is opened once, and read forwards."""
    for shard, group in groupby(samples, key=lambda sample: sample.shard):
        together = list(group)
        files = shard.packed.contents([sample.image for sample in together if sample.image is not None])
        for sample in together:
            yield sample.name, "has a label but no image" if sample.image is None else next(files)


def _asked(argument: str) -> tuple[str, dict[str, str]]:
    """(folder, shard or pattern; the settings after `#`)."""
    settings = {"val": "", "label": ""}
    place, mark, given = argument.rpartition("#")
    if not mark or "=" not in given:
        return argument, settings
    for setting in re.split(r",(?=\w+=)", given):  # braces hold commas too
        key, _, value = setting.partition("=")
        if key not in settings or not value:
            raise InputError("data", setting, "must be val=PATTERN or label=KEY", "see docs/data.md")
        settings[key] = value
    return place, settings


def _shards(place: str, held_out: str) -> dict[Side, list[Path]]:
    """The shards of each side, in order of name within a folder, in order of the pattern otherwise."""
    folder = Path(place).expanduser()
    if _ADDRESS.match(place) or not folder.is_dir():
        train, sides = _expanded(place), dict[str, list[Path]]()
    else:
        sides = _by_side(folder)
        train = sides.get("train", sides.get("", []))
        if not train:
            found = "shards of held-out images alone" if sides else f"no shard ({' '.join(_ENDINGS)})"
            raise InputError("data", f"webdataset:{place}", f"holds {found}", "name a folder with shards for training")
    val = _expanded(held_out) if held_out else sides.get("val", sides.get("test", []))
    both = set(train) & set(val)
    if both:
        raise InputError("data", str(min(both)), "is a shard of both sides", "hold out shards that are not trained on")
    return {"train": train, "val": val} if val else {"train": train}


def _by_side(folder: Path) -> dict[str, list[Path]]:
    """Side, or "" where no shard's name tells one -> shards of `folder` and of the folders in it."""
    found = sorted(p for depth in ("*", "*/*") for p in folder.glob(depth) if p.name.lower().endswith(_ENDINGS))
    sides: dict[str, list[Path]] = {}
    for path in found:
        words = re.split(r"[^a-z]+", path.relative_to(folder).as_posix().lower())
        side = next((_SIDES[word] for word in words if word in _SIDES), "")
        sides.setdefault(side, []).append(path)
    return sides


def _expanded(pattern: str) -> list[Path]:
    """The shards that a pattern with braces names; all must be there.

    Raises:
        InputError: the extra is missing, an address, unmatched braces, or a shard that is missing.
    """
    expand, _ = _library()
    for low, high in re.findall(r"\{(-?[0-9]+)\.\.(-?[0-9]+)", pattern):
        if abs(int(high[:20]) - int(low[:20])) > _MAX_SHARDS:  # the library would count them all out
            raise InputError("data", f"webdataset:{pattern}", f"names over {_MAX_SHARDS} shards", "name fewer")
    try:
        names = list(islice(expand(pattern), _MAX_SHARDS + 1))
    except ValueError as error:
        raise InputError("data", f"webdataset:{pattern}", f"is no pattern ({error})", "see docs/data.md") from None
    if len(names) > _MAX_SHARDS:
        raise InputError("data", f"webdataset:{pattern}", f"names over {_MAX_SHARDS} shards", "name fewer")
    for name in names:
        if _ADDRESS.match(name):
            rule = "is an address or a command; shards are read from this machine alone"
            raise InputError("data", f"webdataset:{name}", rule, "download them and name the files")
        if not Path(name).expanduser().is_file():
            raise InputError("data", f"webdataset:{name}", "no such shard or folder", "check the name")
    return [Path(name).expanduser() for name in names]


def _library() -> tuple[Callable[[str], Iterator[str]], Callable[..., Iterator[dict[str, Any]]]]:
    """The library's (expansion of braces, grouping of files into samples)."""
    try:
        from braceexpand import braceexpand
        from webdataset.tariterators import group_by_keys
    except ImportError:
        advice = "pip install 'mvit-search[webdataset]'"
        raise InputError("data", "webdataset", "needs the package webdataset, which is missing", advice) from None
    return braceexpand, group_by_keys


def _samples(paths: Sequence[Path], key: str) -> list[_Sample]:
    """All samples of the shards, in their order; their labels are read, their images are not."""
    return [sample for path in paths for sample in _samples_of(_Shard(path, opened(path)), key)]


def _samples_of(shard: _Shard, key: str) -> Iterator[_Sample]:
    _, group = _library()
    members = (member for member in shard.packed.members if not _META.match(member.name))
    try:
        grouped = list(group({"fname": member.name, "data": member, "__url__": ""} for member in members))
    except ValueError as error:  # two files of one name in a sample
        raise InputError("data", str(shard.path), f"is no shard ({error.args[0]})", "write it again") from None
    found: list[tuple[str, Member | None, Member]] = []
    for files in grouped:
        image: Member | None = next((files[ending[1:]] for ending in EXTENSIONS if ending[1:] in files), None)
        # A key that was asked for stands in the .json, whatever the .cls says.
        label: Member | None = files.get("json") if key and "json" in files else files.get("cls", files.get("json"))
        if label is not None:
            found.append((files["__key__"], image, label))
        elif image is not None:
            rule = "is an image with neither .cls nor .json beside it"
            raise InputError("data", f"{shard.path}:{image.name}", rule, "every image needs a label")
    texts = shard.packed.contents([label for _, _, label in found])
    for (name, image, label), text in zip(found, texts, strict=True):
        shown = f"{shard.path}:{image.name if image else name}"
        yield _Sample(shown, shard, image, _label(f"{shard.path}:{label.name}", text, key))


def _label(where: str, content: bytes | str, key: str) -> int | str:
    """What a .cls or a .json file says.

    Raises:
        InputError: not text, no such key, or neither a whole number from 0 nor a word.
    """
    if isinstance(content, str):
        raise InputError("data", where, content, "mend the label")
    try:
        text = content.decode("utf-8").strip()
        value: object = text
        if where.lower().endswith(".json"):
            told = json.loads(text)
            keys = [key] if key else [name for name in _JSON_LABELS if isinstance(told, dict) and name in told]
            if not isinstance(told, dict) or not keys or keys[0] not in told:
                raise InputError("data", where, f"has no key {key or ', '.join(_JSON_LABELS)}", "add #label=KEY")
            value = told[keys[0]]
        elif re.fullmatch(r"-?[0-9]{1,18}", text):
            value = int(text)
    except (ValueError, RecursionError) as error:
        raise InputError("data", where, f"cannot be read as a label ({error})", "mend it") from None
    if type(value) is int and 0 <= value < _MAX_LABEL:
        return value
    if isinstance(value, str) and value and len(value) < 200:
        return value
    shown = repr(value)[:60]
    raise InputError("data", where, f"says {shown}, neither a whole number from 0 nor a word", "mend it")


def _stored(samples: Sequence[_Sample]) -> NDArray[Any]:
    """The labels as an array of whole numbers, or of words.

    Raises:
        InputError: some are the one and some the other.
    """
    words = isinstance(samples[0].label, str)
    other = next((sample for sample in samples if isinstance(sample.label, str) != words), None)
    if other is not None:
        rule = f"has label {other.label!r}, but {samples[0].name} has {samples[0].label!r}"
        raise InputError("data", other.name, rule, "labels are all whole numbers or all words")
    return np.array([sample.label for sample in samples], dtype=np.str_ if words else np.int64)
