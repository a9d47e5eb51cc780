"""Class names and label indices out of what sources store: whole numbers or words, for one side or both."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._base import Labels
from mvit_search.data._catalogue import Side
from mvit_search.errors import InputError


def labelled(
    where: Mapping[Side, str], values: Mapping[Side, NDArray[Any]], names: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], dict[Side, Labels]]:
    """(class names, labels of each side).

    Whole numbers are indices into `names`; without `names`, the training labels must run from 0 without gaps. Words
    are classes in alphabetical order.

    Args:
        where: what each side's labels are called in errors ("labels.npz:y_train").
        values: (N,) or (N, 1) whole numbers, or (N,) words.

    Raises:
        InputError: another type or shape, a label that is no index of a class, a gap, or a held-out word that no
            training image has; the image is named by its place.
    """
    if names is None and all(array.dtype.kind == "U" and array.ndim == 1 for array in values.values()):
        return _words(where, values)
    labels = {"train": whole_labels(where["train"], values["train"], None if names is None else len(names))}
    classes = _counted(where["train"], labels["train"]) if names is None else names
    sides: dict[Side, Labels] = {"train": labels["train"]}
    if "val" in values:
        sides["val"] = whole_labels(where["val"], values["val"], len(classes))
    return classes, sides


def whole_labels(where: str, values: NDArray[Any], class_count: int | None) -> Labels:
    """Whole numbers of shape (N,) or (N, 1) as (N,) indices of `class_count` classes, or of any number of them.

    Raises:
        InputError: another type or shape, or a label that is negative or no index of a class.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iu":
        rule = f"must be whole numbers of shape (N,) or (N, 1), not {values.dtype} of shape {values.shape}"
        raise InputError("data", where, rule, "store one class index for each image")
    limit = np.iinfo(np.int64).max if class_count is None else class_count
    wrong = np.flatnonzero((values < 0) | (values >= limit))
    if len(wrong):
        known = "0 or above" if class_count is None else f"0 to {class_count - 1}"
        rule = f"label {values[wrong[0]]} of image {wrong[0]} must be {known}"
        raise InputError("data", where, rule, f"{len(wrong)} labels are out of range" if len(wrong) > 1 else "mend it")
    return values.astype(np.int64)


def _counted(where: str, train: Labels) -> tuple[str, ...]:
    """Names "0", "1", ... for classes that only training labels tell of."""
    present = np.unique(train)
    if not len(present):
        raise InputError("data", where, "holds no label", "add images")
    missing = np.flatnonzero(present != np.arange(len(present)))
    if len(missing):
        rule = f"no training image has label {missing[0]}, the largest is {present[-1]}"
        raise InputError("data", where, rule, "number the classes from 0 without gaps")
    return tuple(str(label) for label in present)


def _words(
    where: Mapping[Side, str], values: Mapping[Side, NDArray[Any]]
) -> tuple[tuple[str, ...], dict[Side, Labels]]:
    names, train = np.unique(values["train"], return_inverse=True)
    labels: dict[Side, Labels] = {"train": train.astype(np.int64)}
    if "val" in values:
        words = values["val"]
        strange = np.flatnonzero(~np.isin(words, names))
        if len(strange):
            rule = f"label {str(words[strange[0]])!r} of image {strange[0]} occurs in no training image"
            raise InputError("data", where["val"], rule, "both sides need the same classes")
        labels["val"] = np.searchsorted(names, words).astype(np.int64)
    return tuple(str(name) for name in names), labels
