"""WebDataset shards written by the library itself: sides, labels, order, damage; never an address or a command."""

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvit_search.data._catalogue import Catalogue, Unreadable
from mvit_search.data.webdataset import webdataset
from mvit_search.errors import InputError

library = pytest.importorskip("webdataset")

LABELS = [0, 2, 1, 1, 0, 2]


def pixels(count: int = 6, seed: int = 0, shape: tuple[int, ...] = (12, 12, 3)) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def shard(path: Path, samples: list[dict[str, Any]], first: int = 0) -> str:
    """Written by the library's TarWriter, which encodes numbers, text and json by their ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with library.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples, first):
            writer.write({"__key__": f"{number:04}", **sample})
    return str(path)


def samples(seed: int = 0, labels: list[Any] | None = None) -> list[dict[str, Any]]:
    images = pixels(len(labels or LABELS), seed)
    return [{"png": png(i), "cls": label} for i, label in zip(images, labels or LABELS, strict=True)]


def pictures(catalogue: Catalogue, side: str = "train", size: int = 12) -> list[np.ndarray | Unreadable]:
    return list(catalogue.pictures(side, np.arange(len(catalogue.labels[side])), size))


def test_a_single_shard(tmp_path: Path) -> None:
    found = webdataset(shard(tmp_path / "all.tar", samples()), 0)
    assert list(found.labels) == ["train"]
    assert found.labels["train"].tolist() == LABELS
    assert found.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(pictures(found), pixels())


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train-{}.tar", "val-{}.tar"), ("photos-train-{}.tar", "photos-validation-{}.tar"),
        ("Training_{}.TAR", "test_{}.tar"), ("train/{}.tar", "valid/{}.tar"),
    ],
)  # fmt: skip
def test_a_folder_of_shards(train: str, val: str, tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / train.format(f"{number:06}"), samples(number))
    shard(tmp_path / val.format("000000"), samples(7))
    (tmp_path / "notes.txt").write_text("no shard")
    found = webdataset(str(tmp_path), 0)
    assert found.labels["train"].tolist() == LABELS * 3
    np.testing.assert_array_equal(pictures(found), [image for seed in range(3) for image in pixels(seed=seed)])
    np.testing.assert_array_equal(pictures(found, "val"), pixels(seed=7))
    chosen = np.array([1, 5, 6, 17])  # from all three, in order
    every = pictures(found)
    np.testing.assert_array_equal(list(found.pictures("train", chosen, 12)), [every[i] for i in chosen])
    assert "3 train and 1 val shards" in found.description


def test_val_goes_before_test_and_a_folder_may_hold_one_side(tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("test", 1), ("val", 2)):
        shard(tmp_path / "a" / f"{name}.tar", samples(seed))
    np.testing.assert_array_equal(pictures(webdataset(str(tmp_path / "a"), 0), "val"), pixels(seed=2))
    for number in range(2):
        shard(tmp_path / "b" / f"valley-{number}.tar", samples(number))
    plain = webdataset(str(tmp_path / "b"), 0)
    assert list(plain.labels) == ["train"]
    assert len(plain.labels["train"]) == 12


def test_braces_and_a_held_out_pattern(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"part-{number:03}.tar", samples(number))
    found = webdataset(f"{tmp_path}/part-{{000..001}}.tar#val={tmp_path}/part-{{002,002}}.tar", 0)
    assert len(found.labels["train"]) == len(found.labels["val"]) == 12
    np.testing.assert_array_equal(pictures(found)[6:], pixels(seed=1))
    with pytest.raises(InputError, match=r"part-001\.tar.*is a shard of both sides"):
        webdataset(f"{tmp_path}/part-{{000..001}}.tar#val={tmp_path}/part-001.tar", 0)


def test_labels_in_json_and_in_words(tmp_path: Path) -> None:
    images = [png(i) for i in pixels(3)]
    told = [{"label": n, "species": w} for n, w in zip((1, 0, 1), ("owl", "cat", "owl"), strict=True)]
    path = shard(tmp_path / "a.tar", [{"png": i, "json": t} for i, t in zip(images, told, strict=True)])
    assert webdataset(path, 0).labels["train"].tolist() == [1, 0, 1]
    species = webdataset(f"{path}#label=species", 0)
    assert species.class_names == ("cat", "owl")
    assert species.labels["train"].tolist() == [1, 0, 1]
    assert species.fingerprint != webdataset(path, 0).fingerprint
    with pytest.raises(InputError, match=r"a\.tar:0000\.json.*has no key kind"):
        webdataset(f"{path}#label=kind", 0)
    with pytest.raises(InputError, match="must be val=PATTERN or label=KEY"):
        webdataset(f"{path}#key=kind", 0)
    words = [{"png": i, "cls": w.encode()} for i, w in zip(images, ("owl", "cat\n", "owl"), strict=True)]
    assert webdataset(shard(tmp_path / "b.tar", words), 0).class_names == ("cat", "owl")


def test_a_compressed_shard_and_other_files_beside_the_image(tmp_path: Path) -> None:
    many = [{**sample, "txt": "a caption", "seg.png": png(np.zeros((2, 2, 3), np.uint8))} for sample in samples()]
    path = shard(tmp_path / "a.tar", many)
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    for found in (webdataset(path, 0), webdataset(str(packed), 0)):
        np.testing.assert_array_equal(pictures(found), pixels())
        np.testing.assert_array_equal(
            list(found.pictures("train", np.array([2, 5]), 12)), [pixels()[i] for i in (2, 5)]
        )


def test_the_fingerprint_knows_the_content(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", samples())
    first = webdataset(path, 0).fingerprint
    assert webdataset(path, 5).fingerprint == first
    Path(path).unlink()
    shard(tmp_path / "a.tar", samples(seed=1))
    assert webdataset(path, 0).fingerprint != first


def test_damaged_and_absent_pictures_are_named(tmp_path: Path) -> None:
    (grey,) = pixels(1, shape=(12, 12))
    photo = png(pixels(1)[0])
    odd = [
        {"png": png(grey), "cls": 0}, {"jpg": photo[:-60], "cls": 1}, {"webp": b"no image", "cls": 0}, {"cls": 1},
        {"txt": "nothing of ours"}, {"jpeg": photo, "cls": 1},
    ]  # fmt: skip
    found = webdataset(shard(tmp_path / "a.tar", odd), 0)
    assert found.labels["train"].tolist() == [0, 1, 0, 1, 1]
    shown = pictures(found)
    assert (shown[0] == grey[..., None]).all()
    np.testing.assert_array_equal(shown[4], pixels(1)[0])
    for index, name, words in (
        (1, "a.tar:0001.jpg", "cannot be read as an image"), (2, "a.tar:0002.webp", "unknown image format"),
        (3, "a.tar:0003", "has a label but no image"),
    ):  # fmt: skip
        unreadable = shown[index]
        assert isinstance(unreadable, Unreadable)
        assert unreadable.name == f"{tmp_path}/{name}"
        assert words in unreadable.reason


PHOTO = png(pixels(1)[0])
BAD = {
    "no label": ([{"png": PHOTO}], r"a\.tar:0000\.png.*neither \.cls nor \.json beside it"),
    "negative": ([{"png": PHOTO, "cls": -1}], r"a\.tar:0000\.cls.*says -1, neither a whole number from 0"),
    "huge": ([{"png": PHOTO, "cls": 10**12}], "says 1000000000000, neither"),
    "empty": ([{"png": PHOTO, "cls": b" \n"}], "says '', neither"),
    "binary": ([{"png": PHOTO, "cls": b"\xff\xfe"}], "cannot be read as a label"),
    "real": ([{"png": PHOTO, "json": {"label": 0.5}}], r"says 0\.5, neither"),
    "truth": ([{"png": PHOTO, "json": {"label": True}}], "says True, neither"),
    "list": ([{"png": PHOTO, "json": [1, 2]}], "has no key label, cls, class, target; add #label=KEY"),
    "broken json": ([{"png": PHOTO, "json": b'{"label": '}], "cannot be read as a label"),
    "deep json": ([{"png": PHOTO, "json": b"[" * 100_000}], "cannot be read as a label"),
    "mixed": ([{"png": PHOTO, "cls": 1}, {"png": PHOTO, "cls": b"cat"}], "has label 'cat', but .*0000.png has 1"),
    "gap": ([{"png": PHOTO, "cls": 0}, {"png": PHOTO, "cls": 2}], "no training image has label 1, the largest is 2"),
    "captions": ([{"txt": "a cat"}], r"no labelled image in a\.tar"),
    "none": ([], r"no labelled image in a\.tar"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_samples(case: str, tmp_path: Path) -> None:
    content, words = BAD[case]
    with pytest.raises(InputError, match=words) as caught:
        webdataset(shard(tmp_path / "a.tar", content), 0)
    assert "\n" not in str(caught.value)


def test_held_out_labels_that_no_training_sample_has(tmp_path: Path) -> None:
    train = shard(tmp_path / "train.tar", samples())
    for number, (labels, words) in enumerate((([3] * 3, "label 3 of image 0 must be 0 to 2"), ([b"z"] * 3, "numbers"))):
        val = shard(tmp_path / f"val{number}.tar", samples(1, labels))
        with pytest.raises(InputError, match=words):
            webdataset(f"{train}#val={val}", 0)


def test_two_files_of_one_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("1.png", "1.cls", "1.PNG"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(InputError, match=r"a\.tar.*is no shard \(1\.PNG: duplicate file name"):
        webdataset(str(tmp_path / "a.tar"), 0)


def test_damaged_shards(tmp_path: Path) -> None:
    path = Path(shard(tmp_path / "a.tar", samples()))
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))  # what follows is padding, which may be cut
    for length in (100, 700, end // 2 + 100, end - 600):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.tar"):
            webdataset(str(path), 0)
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(InputError, match=r"a\.tar.*cannot be read as an archive"):
        webdataset(str(path), 0)


@pytest.mark.parametrize(
    "asked",
    [
        "https://example.org/a.tar", "pipe:touch ran; cat a.tar", "s3://bucket/a-{0..3}.tar", "gs://a.tar",
        "{http,s3}://example.org/a.tar", "file:a.tar",
    ],
)  # fmt: skip
def test_addresses_and_commands_are_refused_and_not_run(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = shard(tmp_path / "a.tar", samples())
    with pytest.raises(InputError, match="is an address or a command; shards are read from this machine alone"):
        webdataset(asked, 0)
    with pytest.raises(InputError, match="is an address or a command"):
        webdataset(f"{path}#val={asked}", 0)
    assert not (tmp_path / "ran").exists()


def test_what_is_not_there(tmp_path: Path) -> None:
    path = shard(tmp_path / "part-0.tar", samples())
    (tmp_path / "empty").mkdir()
    shard(tmp_path / "only" / "val-0.tar", samples())
    for asked, words in (
        (f"{tmp_path}/part-{{0..2}}.tar", r"part-1\.tar.*no such shard or folder"),
        (f"{tmp_path}/absent", "no such shard or folder"),
        ("", "names no shard or folder"),
        (f"{tmp_path}/part-{{0..2.tar", "is no pattern"),
        (f"{tmp_path}/part-{{0..99999999999}}.tar", "names over 100000 shards"),
        (f"{tmp_path}/{{1,2}}{{00000..99999}}.tar", "names over 100000 shards"),
        (f"{tmp_path}/empty", r"holds no shard \(\.tar \.tar\.gz \.tgz\)"),
        (f"{tmp_path}/only", "holds shards of held-out images alone"),
        (f"{path}#val=absent.tar", r"absent\.tar.*no such shard"),
    ):
        with pytest.raises(InputError, match=words):
            webdataset(asked, 0)


def test_json_written_by_hand(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", [{"png": PHOTO, "json": json.dumps({"cls": n}).encode()} for n in (0, 1)])
    assert webdataset(path, 0).labels["train"].tolist() == [0, 1]


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "a.tar", samples())
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(InputError, match=r"pip install 'mvit-search\[webdataset\]'"):
        webdataset(path, 0)
