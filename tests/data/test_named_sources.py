"""Every source that is files of other tools, through `load_data`: by name, by bare path, capped, and with damage."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_search.data import load_data
from mvit_search.errors import InputError

CLASSES, TRAIN, VAL, SIZE = 10, 50, 10, 32


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


IMAGES = {"train": pixels(TRAIN, 0), "val": pixels(VAL, 1)}
LABELS = {side: np.arange(len(images)) % CLASSES for side, images in IMAGES.items()}


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def cifar(folder: Path) -> Path:
    """The binary layout: a label, then all red, all green, all blue."""
    root = folder / "cifar-10-batches-bin"
    root.mkdir()
    flat = {side: images.transpose(0, 3, 1, 2).reshape(len(images), -1) for side, images in IMAGES.items()}
    rows = {side: np.concatenate([LABELS[side][:, None], flat[side]], axis=1).astype(np.uint8) for side in flat}
    for number in range(5):
        (root / f"data_batch_{number + 1}.bin").write_bytes(rows["train"][number * 10 : number * 10 + 10].tobytes())
    (root / "test_batch.bin").write_bytes(rows["val"].tobytes())
    (root / "batches.meta.txt").write_text("\n".join(str(n) for n in range(CLASSES)))
    return root


def npz(folder: Path) -> Path:
    named = {f"{side}_images": images for side, images in IMAGES.items()}
    np.savez(folder / "a.npz", **named, **{f"{side}_labels": labels for side, labels in LABELS.items()})
    return folder / "a.npz"


def datasets(folder: Path) -> Path:
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    features = library.Features({"image": library.Image(), "label": library.Value("int64")})
    sides = {}
    for side, images in IMAGES.items():
        cells = [{"bytes": png(image), "path": None} for image in images]
        name = {"train": "train", "val": "validation"}[side]
        sides[name] = library.Dataset.from_dict({"image": cells, "label": LABELS[side].tolist()}, features)
    library.DatasetDict(sides).save_to_disk(folder / "set")
    return folder / "set"


def webdataset(folder: Path) -> Path:
    library = pytest.importorskip("webdataset")
    (folder / "shards").mkdir()
    for side, images in IMAGES.items():
        with library.TarWriter(str(folder / f"shards/{side}-000000.tar")) as writer:
            for number, image in enumerate(images):
                writer.write({"__key__": f"{number:04}", "png": png(image), "cls": int(LABELS[side][number])})
    return folder / "shards"


Write = Callable[[Path], Path]


@pytest.fixture(params=[cifar, npz, datasets, webdataset], ids=lambda write: write.__name__)
def write(request: pytest.FixtureRequest) -> Write:
    return request.param


def test_all_of_them_give_the_same_set_by_name_and_by_path(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path)
    data = load_data(f"{write.__name__}:{path}", image_size=SIZE)
    np.testing.assert_array_equal(data.train_images, IMAGES["train"])
    np.testing.assert_array_equal(data.val_images, IMAGES["val"])
    np.testing.assert_array_equal(data.train_labels, LABELS["train"])
    assert data.class_names == tuple(str(n) for n in range(CLASSES))
    bare = load_data(str(path), image_size=SIZE)
    assert bare.digest == data.digest
    assert bare.source == data.source


def test_the_same_again_from_the_cache_and_without_one(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path)
    sets = [load_data(str(path), image_size=24, max_images=20, seed=3, cache=cache) for cache in (True, True, False)]
    assert len({data.digest for data in sets}) == 1
    assert np.bincount(sets[0].train_labels).tolist() == [2] * CLASSES
    assert load_data(str(path), image_size=24, max_images=20, seed=4).digest != sets[0].digest


def test_a_changed_picture_is_seen_through_the_cache(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    before = load_data(str(path), image_size=SIZE)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    changed = {**IMAGES, "train": IMAGES["train"] ^ np.uint8(1)}
    monkeypatch.setitem(globals(), "IMAGES", changed)
    after = load_data(str(write(tmp_path)), image_size=SIZE)
    np.testing.assert_array_equal(after.train_images, changed["train"])
    assert after.digest != before.digest


@pytest.mark.parametrize("write_pictures", [datasets, webdataset], ids=lambda write: write.__name__)
def test_damaged_pictures_are_skipped_by_name_up_to_a_limit(
    write_pictures: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(array: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "png")
        content = stream.getvalue()
        return content[:-400] if array.tobytes() == IMAGES["train"][17].tobytes() else content

    monkeypatch.setitem(globals(), "png", encoded)
    path = str(write_pictures(tmp_path))
    data = load_data(path, image_size=SIZE)
    assert len(data.train_images) == TRAIN - 1
    np.testing.assert_array_equal(data.train_labels, np.delete(LABELS["train"], 17))
    assert "1 unreadable" in data.source
    with pytest.raises(InputError, match=r"17.*cannot be read as an image"):
        load_data(path, image_size=SIZE, max_unreadable=0)
