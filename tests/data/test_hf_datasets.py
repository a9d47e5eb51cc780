"""Datasets saved by Hugging Face's own `save_to_disk`: columns found, pictures decoded one by one, never a network."""

import io
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvit_search.data._catalogue import Catalogue, Unreadable
from mvit_search.data.hf_datasets import hf_datasets
from mvit_search.errors import InputError

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

NAMES = ["cat", "dog", "owl"]
LABELS = [0, 2, 1, 1, 0, 2]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def pixels(count: int = 6, seed: int = 0, shape: tuple[int, ...] = (12, 12, 3)) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def dataset(images: list[Any], labels: list[Any], label: Any = None, **columns: list[Any]) -> Any:
    """A dataset of columns image (bytes of files) and label, a `ClassLabel` of `NAMES` where nothing else is said."""
    cells = [{"bytes": png(i), "path": None} if isinstance(i, np.ndarray) else i for i in images]
    features = {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=NAMES)}
    rest = datasets.Dataset.from_dict(columns).features if columns else {}
    return datasets.Dataset.from_dict({"image": cells, "label": labels, **columns}, datasets.Features(features | rest))


def saved(folder: Path, **splits: Any) -> str:
    datasets.DatasetDict(splits).save_to_disk(folder / "set")
    return str(folder / "set")


def saved_one(folder: Path, rows: Any) -> str:
    rows.save_to_disk(folder / "set")
    return str(folder / "set")


def pictures(catalogue: Catalogue, side: str = "train", size: int = 12) -> list[np.ndarray | Unreadable]:
    return list(catalogue.pictures(side, np.arange(len(catalogue.labels[side])), size))


def test_a_dictionary_of_splits(tmp_path: Path) -> None:
    train, test = pixels(40), pixels(6, seed=1)
    labels = [i % 3 for i in range(40)]
    path = saved(tmp_path, train=dataset(train, labels), test=dataset(test, LABELS), extra=dataset(test, LABELS))
    found = hf_datasets(path, 0)
    assert found.class_names == tuple(NAMES)
    assert found.labels["train"].tolist() == labels
    assert found.labels["val"].tolist() == LABELS
    assert found.labels["val"].dtype == np.int64
    np.testing.assert_array_equal(pictures(found), train)  # more than are decoded at once, in order
    np.testing.assert_array_equal(pictures(found, "val"), test)
    np.testing.assert_array_equal(
        list(found.pictures("train", np.array([3, 17, 39]), 12)), [train[i] for i in (3, 17, 39)]
    )


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev"])
def test_validation_goes_before_test(name: str, tmp_path: Path) -> None:
    rows = dataset(pixels(), LABELS)
    path = saved(tmp_path, train=rows, test=rows, **{name: dataset(pixels(3, seed=2), LABELS[:3])})
    assert len(hf_datasets(path, 0).labels["val"]) == 3


def test_one_split_of_any_name_and_one_dataset(tmp_path: Path) -> None:
    rows = dataset(pixels(), LABELS)
    assert list(hf_datasets(saved(tmp_path / "a", all=rows), 0).labels) == ["train"]
    one = hf_datasets(saved_one(tmp_path / "b", rows.select([4, 1, 0])), 0)  # rows in another order than stored
    assert one.labels["train"].tolist() == [0, 2, 0]
    np.testing.assert_array_equal(pictures(one), [pixels()[i] for i in (4, 1, 0)])


@pytest.mark.parametrize(
    ("labels", "kind", "names", "expected"),
    [
        (LABELS, "int64", ("0", "1", "2"), LABELS),
        (LABELS, "uint8", ("0", "1", "2"), LABELS),
        (["owl", "cat", "cat", "dog", "owl", "cat"], "string", ("cat", "dog", "owl"), [2, 0, 0, 1, 2, 0]),
    ],
)
def test_labels_of_other_types(
    labels: list[Any], kind: str, names: tuple[str, ...], expected: list[int], tmp_path: Path
) -> None:
    rows = dataset(pixels(), labels, datasets.Value(kind))
    found = hf_datasets(saved(tmp_path, train=rows, test=rows), 0)
    assert found.class_names == names
    assert found.labels["train"].tolist() == found.labels["val"].tolist() == expected


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    rows = dataset(pixels(), LABELS, datasets.Value("int64"), source=["x"] * 6, width=[12] * 6)
    assert hf_datasets(saved_one(tmp_path / "a", rows), 0).class_names == ("0", "1", "2")  # by its usual name
    renamed = rows.rename_columns({"label": "kind", "image": "img"})
    path = saved_one(tmp_path / "b", renamed)
    with pytest.raises(InputError, match=r"3 columns of labels \(kind, source, width\); say which: .*#label=kind"):
        hf_datasets(path, 0)
    assert hf_datasets(f"{path}#label=kind", 0).labels["train"].tolist() == LABELS
    assert hf_datasets(f"{path}#image=img,label=kind", 0).class_names == ("0", "1", "2")
    two = dataset(pixels(), LABELS).add_column("mask", [{"bytes": png(i), "path": None} for i in pixels(seed=5)])
    path = saved_one(tmp_path / "c", two.cast_column("mask", datasets.Image()))
    with pytest.raises(InputError, match=r"2 columns of images \(image, mask\); say which: datasets:.*#image=image"):
        hf_datasets(path, 0)
    np.testing.assert_array_equal(pictures(hf_datasets(f"{path}#image=mask", 0)), pixels(seed=5))


def test_two_levels_of_classes_as_cifar_100_has_them(tmp_path: Path) -> None:
    rows = dataset(pixels(), LABELS).rename_column("label", "fine_label")
    rows = rows.add_column("coarse_label", [0, 1] * 3).cast_column(
        "coarse_label", datasets.ClassLabel(names=["a", "b"])
    )
    path = saved_one(tmp_path, rows)
    with pytest.raises(InputError, match=r"2 columns of labels \(fine_label, coarse_label\)"):
        hf_datasets(path, 0)
    assert hf_datasets(f"{path}#label=coarse_label", 0).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("image=photo", r"has no column 'photo' \(has image, label, note\)"),
        ("image=label", "column 'label' holds no images"),
        ("label=kind", "has no column 'kind'"),
        ("label=image", "column 'image' holds neither class labels"),
        ("label=note", "column 'note' holds neither class labels"),
        ("labels=label", "'labels=label': must be image=COLUMN or label=COLUMN"),
        ("image=", "must be image=COLUMN"),
    ],
)
def test_columns_named_wrongly(asked: str, words: str, tmp_path: Path) -> None:
    path = saved_one(tmp_path, dataset(pixels(), LABELS, note=[0.5] * 6))
    with pytest.raises(InputError, match=words):
        hf_datasets(f"{path}#{asked}", 0)


def test_grey_damaged_and_absent_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Saving would copy the files in, and fetch addresses: some datasets were written without that.
    monkeypatch.setattr(datasets.Image, "embed_storage", lambda self, storage, *_, **__: storage)
    monkeypatch.setattr(datasets.Dataset, "_estimate_nbytes", lambda self: 1, raising=False)  # it asks for sizes
    (grey,) = pixels(1, shape=(12, 12))
    photo = png(pixels(1)[0])
    (tmp_path / "beside.png").write_bytes(photo)
    cells = [
        grey,
        {"bytes": photo[:-60], "path": "a.png"},
        {"bytes": b"no image", "path": None},
        {"bytes": None, "path": str(tmp_path / "beside.png")},
        {"bytes": None, "path": "https://example.org/a.png"},
        {"bytes": None, "path": str(tmp_path / "absent.png")},
    ]
    found = pictures(hf_datasets(saved_one(tmp_path, dataset(cells, LABELS)), 0))
    assert (found[0] == grey[..., None]).all()
    np.testing.assert_array_equal(found[3], pixels(1)[0])
    for index, words in (
        (1, "cannot be read as an image"),
        (2, "unknown image format"),
        (4, "on the web"),
        (5, "regular"),
    ):
        unreadable = found[index]
        assert isinstance(unreadable, Unreadable)
        assert unreadable.name.endswith(f"train[{index}]")
        assert words in unreadable.reason
    empty = dataset([*pixels(5), None], LABELS)
    assert pictures(hf_datasets(saved_one(tmp_path / "b", empty), 0))[5].reason == "has no image"


def test_labels_that_name_no_class(tmp_path: Path) -> None:
    def refused(name: str, words: str, *labels: list[Any], kind: Any = None) -> None:
        rows = [dataset(pixels(), values, kind) for values in labels]
        path = saved(tmp_path / name, **dict(zip(("train", "test"), rows, strict=False)))
        with pytest.raises(InputError, match=words):
            hf_datasets(path, 0)

    refused("hub", r"test-set|\(val\): label.*label -1 of image 0 must be 0 to 2", LABELS, [-1] * 6)
    refused("none", r"\(train\).*row 4 has no label", [0, 1, 2, 0, None, 1])
    whole = datasets.Value("int32")
    refused("gap", "no training image has label 1, the largest is 4", [0, 2, 4] * 2, kind=whole)
    refused("negative", "label -1 of image 0", [-1, 0, 1] * 2, kind=whole)
    refused("beyond", r"\(val\).*label 3 of image 2 must be 0 to 2", LABELS, [0, 1, 3] * 2, kind=whole)
    words = datasets.Value("string")
    refused("word", r"\(val\).*label 'z' of image 1 occurs in no", ["a", "b"] * 3, ["a", "z"] * 3, kind=words)


def test_what_is_no_saved_dataset(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photos.*cannot be read as what save_to_disk writes"):
        hf_datasets(str(tmp_path / "photos"), 0)
    for name in ("cifar10", "hf://datasets/cifar10", "s3://bucket/set", ""):
        with pytest.raises(InputError, match="no such folder"):
            hf_datasets(name, 0)
    rows = dataset(pixels(), LABELS)
    path = saved(tmp_path / "b", test=rows, other=rows)
    with pytest.raises(InputError, match="has no split train among test, other"):
        hf_datasets(path, 0)
    path = saved(tmp_path / "c", train=rows, test=rows.remove_columns("label"))
    with pytest.raises(InputError, match="held-out side has other columns"):
        hf_datasets(path, 0)
    path = saved_one(tmp_path / "d", rows.remove_columns("image"))
    with pytest.raises(InputError, match=r"has no column of images \(has label\)"):
        hf_datasets(path, 0)
    path = saved_one(tmp_path / "e", rows.select([]))
    with pytest.raises(InputError, match=r"holds no row|cannot be read"):  # some versions cannot read an empty one
        hf_datasets(path, 0)


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_damaged_files_are_one_line(file: str, tmp_path: Path) -> None:
    path = Path(saved_one(tmp_path, dataset(pixels(), LABELS)))
    whole = (path / file).read_bytes()
    (path / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as what save_to_disk writes") as caught:
        hf_datasets(str(path), 0)
    assert "\n" not in str(caught.value)
    (path / file).unlink()
    with pytest.raises(InputError, match="cannot be read as what save_to_disk writes"):
        hf_datasets(str(path), 0)


def test_the_fingerprint_knows_files_and_columns(tmp_path: Path) -> None:
    path = saved_one(tmp_path, dataset(pixels(), LABELS, y=LABELS))
    first = hf_datasets(path, 0).fingerprint
    assert hf_datasets(path, 7).fingerprint == first
    assert hf_datasets(f"{path}#label=y", 0).fingerprint != first
    shutil.rmtree(path)
    saved_one(tmp_path, dataset(pixels(seed=1), LABELS, y=LABELS))
    assert hf_datasets(path, 0).fingerprint != first


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'mvit-search\[datasets\]'"):
        hf_datasets(str(tmp_path), 0)
