"""What `--data` may say, and what an existing path is taken for."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_search.data import BUILT_IN, OPENERS, catalogue_of, load_data
from mvit_search.data._detecting import kind_of
from mvit_search.errors import InputError, UnknownNameError


def write_classes(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(5):
            pixels = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_a_built_in_name_is_a_source() -> None:
    assert set(BUILT_IN) <= set(OPENERS)
    for name in BUILT_IN:
        assert len(catalogue_of(name, 0).class_names) > 1


def test_a_named_source_and_a_bare_path_are_the_same(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photos")
    bare, named = (load_data(spec, image_size=8, seed=1) for spec in (str(folder), f"folder:{folder}"))
    assert bare.digest == named.digest
    assert named.name == f"folder:{folder}"


def test_a_path_with_a_colon_that_exists_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "archive:mine")
    assert load_data("archive:mine", image_size=8).class_names == ("cat", "dog")


def test_a_built_in_name_goes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "digits")
    assert load_data("digits", image_size=8, max_images=10).num_classes == 10
    assert load_data("./digits", image_size=8).num_classes == 2


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_classes(tmp_path / "photos")
    assert load_data("~/photos", image_size=8).num_classes == 2
    assert load_data("folder:~/photos", image_size=8).num_classes == 2


@pytest.mark.parametrize(
    "spec", ["no/such", "no\\such", "C:\\photos", "c:/photos", "photos", "", "~nobody/photos", "a/" * 3000, "a\0/b"]
)
def test_a_path_that_is_not_there(spec: str) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        load_data(spec, image_size=8)


def test_an_unknown_source_is_told_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown data \(known: .*folder.*\); did you mean 'folder'\?"
    ) as caught:
        load_data("foldr:photos", image_size=8)
    assert all(name in str(caught.value) for name in OPENERS)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("digit", "did you mean 'digits'?"),
        ("photos", "built in: digits, shapes"),
        ("shards/train-{000..009}.tar", "for shards say webdataset:shards/train-{000..009}.tar"),
        ("npz:", "names nothing after the colon; say npz:PATH"),
        ("cifar:", "names nothing after the colon; say cifar:PATH"),
    ],
)
def test_a_refused_source_says_what_to_write(spec: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_data(spec, image_size=8)
    assert words in str(caught.value)


@pytest.mark.parametrize("spec", ["https://example.org/photos.zip", "s3://bucket/photos"])
def test_a_web_address_is_not_read(spec: str) -> None:
    with pytest.raises(InputError, match="is a web address; download it"):
        load_data(spec, image_size=8)


@pytest.mark.parametrize("spec", ["folder:", "folder:gone", "archive:", "archive:gone", "digits:9"])
def test_a_source_refuses_an_argument_that_is_not_its_own(spec: str) -> None:
    with pytest.raises(InputError):
        load_data(spec, image_size=8)


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", forbidden)  # the superuser, who may run this, may list everything
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied: "):
        load_data(f"folder:{tmp_path}", image_size=8)


def test_a_pipe_or_a_device_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    for path in (tmp_path / "pipe.tar", Path("/dev/null")):
        with pytest.raises(InputError):
            load_data(str(path), image_size=8)


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        (["train/", "val/"], "folder"),
        (["cat/", "dog/", "notes.txt"], "folder"),
        ([], "folder"),
        (["data_batch_1", "batches.meta"], "cifar"),
        (["data_batch_1.bin"], "cifar"),
        (["train", "test", "meta"], "cifar"),
        (["train.bin", "test.bin"], "cifar"),
        (["cifar-10-batches-py/"], "cifar"),
        (["dataset_dict.json", "train/"], "datasets"),
        (["dataset_info.json", "state.json", "data-00000-of-00001.arrow"], "datasets"),
        (["train-000.tar", "train-001.tar"], "webdataset"),
        (["train-000.tar", "cat/"], "folder"),
    ],
)
def test_a_folder_is_taken_for_what_it_holds(tmp_path: Path, entries: list[str], kind: str) -> None:
    for entry in entries:
        (tmp_path / entry).mkdir() if entry.endswith("/") else (tmp_path / entry).write_bytes(b"")
    assert kind_of(tmp_path) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.tar", "archive"), ("A.TAR.GZ", "archive"), ("a.tgz", "archive"), ("a.tar.xz", "archive"),
        ("a.tar.bz2", "archive"), ("a.zip", "archive"), ("a.npz", "npz"),
        ("cifar-10-python.tar.gz", "cifar"), ("cifar-100-binary.tar.gz", "cifar"),
        ("cifar10-jpeg.tar.xz", "archive"),
    ],
)  # fmt: skip
def test_a_file_is_taken_for_what_its_name_says(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert kind_of(tmp_path / name) == kind
