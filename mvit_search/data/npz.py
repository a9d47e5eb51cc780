"""`.npz` archives of arrays, as Keras' data sets, MedMNIST and numpy's users write them.

    npz:mnist.npz                      x_train, y_train, x_test, y_test
    npz:pathmnist.npz                  train_images, train_labels, val_images, val_labels, test_...
    npz:mine.npz                       images, labels, and perhaps class_names

Nothing is ever unpickled: an array of objects is refused.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from mvit_search.data._arrays import ArrayCatalogue, Pixels
from mvit_search.data._catalogue import Catalogue, Side
from mvit_search.data._labels import labelled
from mvit_search.errors import InputError

_Split = Literal["train", "val", "test", "all"]
_SPLIT_WORDS: dict[_Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_IMAGE_WORDS, _LABEL_WORDS = ("x", "images", "image", "data"), ("y", "labels", "label", "targets")
_NAMES = ("class_names", "classes", "label_names")
_EXPECTED = "x_train, y_train, x_test, y_test; or train_images, train_labels, ...; or images, labels"
_BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError)


def npz(argument: str, seed: int) -> Catalogue:
    """Images and labels of a `.npz` file; `argument` is its path. The names above are known in any case.

    Held out are the images of val, else of test, else (there is but one pair of arrays) a fifth by the caller's
    seed. Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3 (and 4 when last, transparency), of type

    - uint8: as they are; bool: black and white;
    - uint16: 0..65535, unless no pixel of the file is above 255, which is refused as ambiguous;
    - other whole numbers: 0..255;
    - real numbers: 0..1 where no pixel of the file is above 1, else 0..255.

    Labels are whole numbers of shape (N,) or (N, 1); rows with a single 1 among zeros, one column a class; or words.
    `seed` is not used.

    Raises:
        InputError: not such a file, a damaged one, arrays of other names, shapes or types, as many labels as images
            nowhere, pixels that are NaN, infinite or out of range, labels that name no class.
    """
    path = Path(argument).expanduser()
    arrays = _arrays(path)
    sides, used = _sides(str(path), arrays)
    images: dict[Side, Pixels] = {}
    stored: dict[Side, Pixels] = {}
    where: dict[Side, str] = {}
    for side, (image_name, label_name) in sides.items():
        images[side] = _channels_last(f"{path}:{image_name}", arrays[image_name])
        where[side] = f"{path}:{label_name}"
        values = arrays[label_name]
        if values.ndim == 0 or len(values) != len(images[side]):
            rule = f"has shape {values.shape}, but {image_name} holds {len(images[side])} images"
            raise InputError("data", where[side], rule, "store one label for each image")
        stored[side] = _from_rows(where[side], values)
    scale = _scale(path, sides, images)
    named = next((arrays[name] for name in _NAMES if name in arrays), None)
    names, labels = labelled(where, stored, None if named is None else tuple(str(name) for name in np.ravel(named)))
    return ArrayCatalogue(names, labels, f".npz file with {used}", images, scale)


def _arrays(path: Path) -> dict[str, Pixels]:
    """Every array of the file whose name is known, by that name in small letters."""
    if not path.is_file():
        raise InputError("data", f"npz:{path}", "no such file", "name a .npz file")
    known = {name for pairs in _pairs().values() for pair in pairs for name in pair} | set(_NAMES)
    name = ""
    try:
        # Opened here, for numpy leaves a file open that it cannot read.
        with path.open("rb") as stream:
            if stream.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
                raise ValueError("it is not an archive as numpy.savez writes one")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                found: dict[str, Pixels] = {}
                for name in archive.files:
                    if name.lower() in found:
                        raise InputError("data", f"{path}:{name}", "is there twice but for its case", "keep one")
                    if name.lower() in known:
                        found[name.lower()] = archive[name]
                return found or {f"({other})": np.empty(0) for other in archive.files[:8]}
    except _BROKEN as error:
        reason = "it holds objects, which could run code" if "allow_pickle" in str(error) else str(error) or "damaged"
        where = f"{path}:{name}" if name else str(path)
        raise InputError("data", where, f"cannot be read ({reason})", "write it again with numpy.savez") from None


def _pairs() -> dict[_Split, list[tuple[str, str]]]:
    """The names under which each split's (images, labels) are looked for, most usual first."""
    words = [*zip(_IMAGE_WORDS[:2], _LABEL_WORDS[:2], strict=True)]
    words += [(i, y) for i in _IMAGE_WORDS for y in _LABEL_WORDS if (i, y) not in words]
    pairs: dict[_Split, list[tuple[str, str]]] = {"all": words}
    for split, names in _SPLIT_WORDS.items():
        pairs[split] = [
            (form.format(image, name), form.format(label, name))
            for name in names
            for form in ("{0}_{1}", "{1}_{0}")
            for image, label in words
        ]
    return pairs


def _sides(where: str, arrays: dict[str, Pixels]) -> tuple[dict[Side, tuple[str, str]], str]:
    """(names of images and labels of each side, the same in words).

    Raises:
        InputError: no pair of known names, or training or held-out images without the others.
    """
    found: dict[_Split, tuple[str, str]] = {}
    for split, pairs in _pairs().items():
        pair = next((pair for pair in pairs if pair[0] in arrays and pair[1] in arrays), None)
        if pair is not None:
            found[split] = pair
    held_out = found.get("val", found.get("test"))
    if "train" in found:
        sides: dict[Side, tuple[str, str]] = {"train": found["train"]}
        if held_out is not None:
            sides["val"] = held_out
    elif "all" in found and held_out is None:
        sides = {"train": found["all"]}
    elif held_out is not None:
        raise InputError("data", where, f"has {held_out[0]} but no training images", f"expected {_EXPECTED}")
    else:
        listed = ", ".join(name.strip("()") for name in arrays) or "no array"
        raise InputError("data", where, f"holds no images with labels (found {listed})", f"expected {_EXPECTED}")
    return sides, " and ".join(f"{image}, {label}" for image, label in sides.values())


def _channels_last(where: str, images: Pixels) -> Pixels:
    shape = images.shape
    if 0 in shape:
        raise InputError("data", where, f"has shape {shape}: no pixel at all", "store images")
    if not (images.ndim == 3 or (images.ndim == 4 and (shape[3] in (1, 3, 4) or shape[1] in (1, 3)))):
        rule = f"has shape {shape}; images are (N, H, W), (N, H, W, 1, 3 or 4) or (N, 1 or 3, H, W)"
        raise InputError("data", where, rule, "store them so")
    if images.dtype.kind not in "buif":
        raise InputError("data", where, f"has type {images.dtype}, not numbers", "store whole or real numbers")
    return images if images.ndim == 3 or shape[3] in (1, 3, 4) else images.transpose(0, 2, 3, 1)


def _scale(path: Path, sides: dict[Side, tuple[str, str]], images: dict[Side, Pixels]) -> float:
    """What pixels are multiplied with to become 0..255: one rule for the file, so that both sides look the same.

    Raises:
        InputError: sides of different types, or a pixel that the type's rule does not allow, by its image.
    """
    types = {array.dtype for array in images.values()}
    if len(types) > 1:
        shown = " and ".join(f"{sides[side][0]} {array.dtype}" for side, array in images.items())
        raise InputError("data", str(path), f"has images of two types ({shown})", "store them alike")
    (kind,) = types
    if kind in (np.uint8, np.bool_):
        return 255.0 if kind == np.bool_ else 1.0
    top = 65535 if kind == np.uint16 else 255
    for side, array in images.items():
        # One comparison catches NaN too: it is not within anything.
        if not (array.min() >= 0 and array.max() <= top):
            _refuse_pixel(f"{path}:{sides[side][0]}", array, top)
    largest = max(float(array.max()) for array in images.values())
    if kind == np.uint16:
        if largest <= 255:
            rule = f"has 16-bit images but no pixel above {largest:.0f}: as 0..65535 they would be black"
            raise InputError("data", str(path), rule, "store 8-bit images as uint8")
        return 255 / 65535
    return 255.0 if kind.kind == "f" and largest <= 1 else 1.0


def _refuse_pixel(where: str, images: Pixels, top: int) -> None:
    wrong = ~((images >= 0) & (images <= top))
    index = int(np.flatnonzero(wrong.reshape(len(images), -1).any(axis=1))[0])
    value = images[index][wrong[index]][0]
    finite = bool(np.isfinite(value))
    rule = f"image {index} has a pixel of {value}" + (f", outside 0..{top}" if finite else "")
    raise InputError("data", where, rule, "pixels are 0..1 or 0..255" if images.dtype.kind == "f" else "mend it")


def _from_rows(where: str, values: Pixels) -> Pixels:
    """One-hot rows as indices; other shapes as they are.

    Raises:
        InputError: a row that is not a single 1 among zeros, as several labels for one image are.
    """
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "buif":
        return values
    ones = values == 1
    wrong = np.flatnonzero((ones.sum(axis=1) != 1) | ((values != 0) & ~ones).any(axis=1))
    if len(wrong):
        rule = f"row {wrong[0]} is not a single 1 among zeros"
        raise InputError("data", where, rule, "store one class index for each image")
    indices: Pixels = ones.argmax(axis=1)
    return indices
