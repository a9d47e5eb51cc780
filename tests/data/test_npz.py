"""`.npz` files: names, layouts and types that are known, and one clear line for everything else."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvit_search.data._catalogue import Catalogue
from mvit_search.data.npz import npz
from mvit_search.errors import InputError

LABELS = np.array([0, 2, 1, 1, 0, 2])


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(folder: Path, **arrays: Any) -> str:
    path = folder / "a.npz"
    np.savez_compressed(path, **arrays)
    return str(path)


def pictures(catalogue: Catalogue, side: str = "train", size: int = 8) -> np.ndarray:
    return np.stack(list(catalogue.pictures(side, np.arange(len(catalogue.labels[side])), size)))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (("x_train", "y_train"), ("x_test", "y_test")),
        (("X_train", "Y_train"), ("X_val", "Y_val")),
        (("train_images", "train_labels"), ("val_images", "val_labels")),
        (("images_train", "labels_train"), ("images_validation", "labels_validation")),
        (("train_x", "train_y"), ("valid_x", "valid_y")),
    ],
)
def test_usual_names_of_two_sides(train: tuple[str, str], val: tuple[str, str], tmp_path: Path) -> None:
    images, others = pixels(6, 8, 8, 3), pixels(3, 8, 8, 3, seed=1)
    names = (*train, *val)
    found = npz(saved(tmp_path, **dict(zip(names, (images, LABELS, others, LABELS[:3]), strict=True))), seed=0)
    assert found.class_names == ("0", "1", "2")
    assert found.labels["train"].tolist() == LABELS.tolist()
    assert found.labels["train"].dtype == np.int64
    np.testing.assert_array_equal(pictures(found), images)
    np.testing.assert_array_equal(pictures(found, "val"), others)
    assert train[0].lower() in found.description


def test_validation_goes_before_test_as_medmnist_stores_them(tmp_path: Path) -> None:
    arrays = {}
    for count, split in ((6, "train"), (2, "val"), (4, "test")):
        arrays |= {f"{split}_images": pixels(count, 8, 8), f"{split}_labels": LABELS[:count, None].astype(np.uint8)}
    found = npz(saved(tmp_path, **arrays), 0)
    assert len(found.labels["val"]) == 2
    assert (pictures(found)[..., 0] == pictures(found)[..., 2]).all()  # grey in all three channels


@pytest.mark.parametrize("names", [("images", "labels"), ("X", "y"), ("x", "y"), ("data", "targets")])
def test_one_pair_has_no_held_out_side(names: tuple[str, str], tmp_path: Path) -> None:
    path = saved(tmp_path, **{names[0]: pixels(6, 8, 8), names[1]: LABELS}, class_names=np.array(["a", "b", "c", "d"]))
    found = npz(path, 0)
    assert list(found.labels) == ["train"]
    assert found.class_names == ("a", "b", "c", "d")


def test_layouts_hold_the_same_pictures(tmp_path: Path) -> None:
    grey = pixels(6, 8, 9)
    expected = pictures(npz(saved(tmp_path, images=grey, labels=LABELS), 0))
    for same in (grey[..., None], grey[:, None], np.repeat(grey[..., None], 3, 3), np.repeat(grey[:, None], 3, 1)):
        np.testing.assert_array_equal(pictures(npz(saved(tmp_path, images=same, labels=LABELS), 0)), expected)
    clear = np.concatenate([np.repeat(grey[..., None], 3, 3), np.full((6, 8, 9, 1), 255, np.uint8)], axis=3)
    np.testing.assert_array_equal(pictures(npz(saved(tmp_path, images=clear, labels=LABELS), 0)), expected)
    clear[..., 3] = 0
    assert (pictures(npz(saved(tmp_path, images=clear, labels=LABELS), 0)) == 255).all()  # nothing, laid on white


@pytest.mark.parametrize(
    "stored",
    [
        lambda grey: grey.astype(np.uint16) * 257, lambda grey: grey / 255,
        lambda grey: (grey / 255).astype(np.float16), lambda grey: grey.astype(np.float32),
        lambda grey: grey.astype(np.int32), lambda grey: grey.astype(">i8"),
    ],
    ids=["uint16", "0..1", "half", "0..255", "int32", "big-endian"],
)  # fmt: skip
def test_types_hold_the_same_pictures(stored: Any, tmp_path: Path) -> None:
    grey = pixels(6, 8, 8)
    found = npz(saved(tmp_path, images=stored(grey), labels=LABELS), 0)
    np.testing.assert_array_equal(pictures(found)[..., 0], grey)


def test_truth_values_are_black_and_white(tmp_path: Path) -> None:
    ink = pixels(6, 8, 8) > 127
    np.testing.assert_array_equal(
        pictures(npz(saved(tmp_path, images=ink, labels=LABELS), 0))[..., 1], np.where(ink, 255, 0)
    )


def test_labels_in_other_forms(tmp_path: Path) -> None:
    images = pixels(6, 8, 8)
    for same in (LABELS[:, None], LABELS.astype(np.uint8), np.eye(3)[LABELS], np.eye(3, dtype=bool)[LABELS]):
        assert npz(saved(tmp_path, images=images, labels=same), 0).labels["train"].tolist() == LABELS.tolist()
    words = npz(saved(tmp_path, images=images, labels=np.array(["owl", "cat", "dog", "dog", "owl", "cat"])), 0)
    assert words.class_names == ("cat", "dog", "owl")
    assert words.labels["train"].tolist() == [2, 0, 1, 1, 2, 0]


def test_the_fingerprint_knows_the_content_not_the_place(tmp_path: Path) -> None:
    images = pixels(6, 8, 8)
    first = npz(saved(tmp_path, images=images, labels=LABELS), 0).fingerprint
    (tmp_path / "b").mkdir()
    assert npz(saved(tmp_path / "b", images=images, labels=LABELS), 1).fingerprint == first
    images[5, 7, 7] ^= 1
    changed = npz(saved(tmp_path, images=images, labels=LABELS), 0).fingerprint
    other = npz(saved(tmp_path, images=images, labels=LABELS[::-1]), 0).fingerprint
    assert len({first, changed, other}) == 3


def changed(images: np.ndarray, value: float, index: int = 4) -> np.ndarray:
    images = images.copy()
    images[index, 2, 3] = value
    return images


GREY = pixels(6, 8, 8)


def bad(words: str, **arrays: Any) -> tuple[str, dict[str, Any]]:
    return words, arrays


BAD = {
    "NaN": bad("a.npz:images.*image 4 has a pixel of nan", images=changed(GREY / 255, np.nan), labels=LABELS),
    "infinite": bad("image 4 has a pixel of inf", images=changed(GREY / 255, np.inf), labels=LABELS),
    "above": bad(r"image 4 has a pixel of 256\.0, outside 0\.\.255", images=changed(GREY / 1.0, 256), labels=LABELS),
    "below": bad(r"image 4 has a pixel of -0\.5, outside", images=changed(GREY / 255, -0.5), labels=LABELS),
    "int above": bad("image 4 has a pixel of 300, outside", images=changed(GREY.astype(int), 300), labels=LABELS),
    "dark 16 bit": bad("16-bit images but no pixel above 255", images=GREY.astype(np.uint16), labels=LABELS),
    "two types": bad(
        "x_train uint8 and x_test float64", x_train=GREY, y_train=LABELS, x_test=GREY / 255, y_test=LABELS
    ),
    "val NaN": bad(
        "x_test.*image 4", x_train=GREY / 255, y_train=LABELS, x_test=changed(GREY / 255, np.nan), y_test=LABELS
    ),
    "flat": bad(r"a.npz:images.*has shape \(6, 64\)", images=GREY.reshape(6, 64), labels=LABELS),
    "volumes": bad(r"has shape \(6, 8, 8, 8\)", images=pixels(6, 8, 8, 8), labels=LABELS),
    "none": bad(r"has shape \(0, 8, 8\): no pixel at all", images=GREY[:0], labels=LABELS[:0]),
    "complex": bad("has type complex128", images=GREY * 1j, labels=LABELS),
    "length": bad(r"a.npz:labels.*has shape \(5,\), but images holds 6 images", images=GREY, labels=LABELS[:5]),
    "one label": bad(r"has shape \(\), but images holds 6", images=GREY, labels=np.array(1)),
    "negative": bad("label -1 of image 0 must be 0 or above", images=GREY, labels=LABELS - 1),
    "from one": bad("no training image has label 0, the largest is 3", images=GREY, labels=LABELS + 1),
    "gap": bad("no training image has label 1, the largest is 4", images=GREY, labels=LABELS * 2),
    "beyond names": bad(
        "label 2 of image 1 must be 0 to 1", images=GREY, labels=LABELS, class_names=np.array(["a", "b"])
    ),
    "val beyond": bad(
        "y_test.*label 3 of image 1 must be 0 to 2", x_train=GREY, y_train=LABELS, x_test=GREY, y_test=LABELS + 1
    ),
    "huge": bad("label 9223372036854775808 of image 0", images=GREY, labels=LABELS.astype(np.uint64) + 2**63),
    "real labels": bad("whole numbers.*not float64", images=GREY, labels=LABELS / 1.0),
    "several labels": bad("row 0 is not a single 1 among zeros", images=GREY, labels=np.ones((6, 14), int)),
    "val word": bad(
        "y_test.*label 'z' of image 1 occurs in no training image",
        x_train=GREY,
        y_train=np.array(["a", "b"] * 3),
        x_test=GREY[:2],
        y_test=np.array(["a", "z"]),
    ),
    "objects": bad("images.*holds objects", images=np.array([GREY[0], "x"], dtype=object), labels=LABELS[:2]),
    "object labels": bad("labels.*holds objects", images=GREY, labels=np.array([0, 1, 2, "x", 0, 1], dtype=object)),
    "no labels": bad(r"holds no images with labels \(found images\)", images=GREY),
    "other names": bad(r"found arr_0, arr_1\); expected x_train", arr_0=GREY, arr_1=LABELS),
    "nothing": bad("found no array"),
    "test alone": bad("has x_test but no training images", x_test=GREY, y_test=LABELS),
    "twice": bad("is there twice but for its case", X=GREY, x=GREY, y=LABELS),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, tmp_path: Path) -> None:
    words, arrays = BAD[case]
    with pytest.raises(InputError, match=words) as caught:
        npz(saved(tmp_path, **arrays), 0)
    assert "\n" not in str(caught.value)


def test_a_held_out_side_without_its_labels_is_no_side(tmp_path: Path) -> None:
    found = npz(saved(tmp_path, x_train=GREY, y_train=LABELS, x_test=GREY), 0)
    assert list(found.labels) == ["train"]


def test_damaged_files(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, images=GREY, labels=LABELS))
    whole = path.read_bytes()
    for length in (0, 3, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.npz.*cannot be read"):
            npz(str(path), 0)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        torn = bytearray(whole)
        for position in generator.integers(0, len(whole), 3):
            torn[position] = int(generator.integers(256))
        path.write_bytes(torn)
        try:
            npz(str(path), 0)
        except InputError:
            refused += 1
    assert refused > 100


def test_what_is_no_npz_file(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", GREY)
    (tmp_path / "text.npz").write_text("images")
    with zipfile.ZipFile(tmp_path / "photos.npz", "w") as archive:
        archive.writestr("cat/1.png", b"")
    for name, words in (
        ("one.npy", "cannot be read"), ("text.npz", "cannot be read"), ("photos.npz", "holds no images with labels"),
        ("absent.npz", "no such file"), (".", "no such file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            npz(os.path.join(tmp_path, name), 0)
