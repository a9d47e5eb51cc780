"""Image folders as they come: other spellings of the splits, links, pipes, copies on both sides."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_search.data import ImageSet, load_data
from mvit_search.data._base import image_set
from mvit_search.data._decoding import decode, picture
from mvit_search.errors import InputError

SIZE = 16
CLASSES = ("cat", "dog")


def write_classes(folder: Path, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_classes(tmp_path / "photos" / "train", 6, seed=0)
    write_classes(tmp_path / "photos" / "val", 3, seed=1)
    return tmp_path / "photos"


def load(root: Path) -> ImageSet:
    return load_data(str(root), image_size=SIZE)


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN"])
@pytest.mark.parametrize("held_out", ["Val", "VAL", "valid", "Valid", "validation", "Validation", "Test", "TEST"])
def test_splits_are_known_in_any_case_and_spelling(root: Path, train: str, held_out: str) -> None:
    expected = load(root)
    (root / "train").rename(root / train)
    (root / "val").rename(root / held_out)
    data = load(root)
    assert data.digest == expected.digest
    assert data.class_names == CLASSES
    assert f"{train}/ and {held_out}/" in data.source


@pytest.mark.parametrize("held_out", ["validation", "Val"])
def test_validation_goes_before_test(root: Path, held_out: str) -> None:
    (root / "val").rename(root / "Test")
    write_classes(root / held_out, 1, seed=2)
    assert len(load(root).val_images) == 2


def test_two_spellings_of_one_split_are_refused(root: Path) -> None:
    write_classes(root / "Validation", 1, seed=2)
    assert "both Validation/ and val/" in refusal(root)


@pytest.mark.parametrize("name", ["Validation", "valid", "TEST"])
def test_a_held_out_folder_alone_is_never_a_class(root: Path, name: str) -> None:
    (root / "train").rename(root / "birds")
    (root / "val").rename(root / name)
    assert f"has {name}/ but no train/" in refusal(root)


@pytest.mark.parametrize("target", [".", "cat"])
@pytest.mark.parametrize("side", ["train", "val"])
def test_a_link_is_no_class_folder(root: Path, side: str, target: str) -> None:
    (root / side / "c").symlink_to(target, target_is_directory=True)
    message = refusal(root)
    assert str(root / side / "c") in message
    assert "is a link" in message


def test_links_to_folders_below_a_class_are_not_followed(root: Path) -> None:
    before = load(root).digest
    (root / "train" / "cat" / "again").symlink_to(".", target_is_directory=True)
    assert load(root).digest == before


def test_linked_splits_and_image_files_are_followed(root: Path, tmp_path: Path) -> None:
    before = load(root).digest
    elsewhere = (root / "train").rename(tmp_path / "elsewhere")
    (root / "train").symlink_to(elsewhere, target_is_directory=True)
    image = (elsewhere / "cat" / "00.png").rename(tmp_path / "stored")
    (elsewhere / "cat" / "00.png").symlink_to(image)
    assert load(root).digest == before


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_named_like_an_image_is_passed_over_at_once(root: Path) -> None:
    pipe = root / "train" / "cat" / "x.png"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=r"x\.png.*not a regular file"):
        decode(pipe, SIZE)  # first: a wait in this thread can time out, one in the pool cannot
    (skipped,) = load(root).skipped
    assert "not a regular file" in skipped


@pytest.mark.parametrize("target", ["nowhere", "/dev/zero"])
def test_an_image_link_to_no_regular_file_is_skipped(root: Path, target: str) -> None:
    before = load(root).digest
    (root / "train" / "cat" / "x.png").symlink_to(target)
    data = load(root)
    assert data.skipped == (f"{root}/train/cat/x.png is not a regular file, nor a link to one",)
    assert data.digest == before


def test_held_out_images_that_are_all_copies_are_refused(root: Path) -> None:
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")
    assert "all 12 held-out images are copies of training images" in refusal(root)


def test_copies_are_told_by_pixels_and_counted_in_the_source(root: Path) -> None:
    assert "copies" not in load(root).source
    Image.open(root / "train" / "cat" / "00.png").save(root / "val" / "cat" / "other.bmp")
    shutil.copy(root / "train" / "dog" / "03.png", root / "val" / "dog" / "02.png")
    data = load(root)
    assert len(data.val_images) == 7
    assert data.source.endswith("; 2 of the held-out images are copies of training images")


def test_copies_in_one_folder_of_classes_are_counted_too(root: Path) -> None:
    for name in CLASSES:
        for index in range(1, 6):
            shutil.copy(root / "train" / name / "00.png", root / "train" / name / f"{index:02}.png")
    assert "all 2 held-out images are copies" in refusal(root / "train")


def test_the_digest_does_not_know_the_source() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.array([0, 1], dtype=np.int64)
    sets = [image_set("name", CLASSES, (images[:2], labels), (images[2:], labels), text) for text in ("one", "two")]
    assert sets[0].source != sets[1].source
    assert sets[0].digest == sets[1].digest


def test_what_pillow_warns_of_is_told_by_name_alone(root: Path) -> None:
    """Warnings are errors here: one that came out of a thread would end the loading."""
    path = root / "train" / "cat" / "x.tif"
    Image.new("RGB", (20, 20)).save(path)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        picture(path, "x.tif", SIZE)
    assert len(load(root).skipped) == 1
