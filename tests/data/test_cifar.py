"""CIFAR in all four published layouts gives the same pictures; pickles that ask for code are refused unrun."""

import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mvit_search.data._catalogue import Catalogue
from mvit_search.data.cifar import cifar
from mvit_search.errors import InputError

PER_BATCH = 6


def text(value: str | bytes) -> bytes:
    """Python 2's string, as pickle protocol 2 writes it: what CIFAR's files are full of."""
    raw = value if isinstance(value, bytes) else value.encode("latin1")
    return b"U" + bytes([len(raw)]) + raw if len(raw) < 256 else b"T" + struct.pack("<i", len(raw)) + raw


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def array(values: np.ndarray) -> bytes:
    """numpy 1's array of bytes, as Python 2 pickled it."""
    rows, columns = values.shape
    kind = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + text("|") + b"NNN" + 2 * number(-1) + b"K\x00tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    return (
        start + b"(K\x01" + number(rows) + number(columns) + b"\x86" + kind + b"\x89" + text(values.tobytes()) + b"tb"
    )


def items(values: list[bytes]) -> bytes:
    return b"](" + b"".join(values) + b"e"


def published(entries: dict[str, bytes]) -> bytes:
    """A dictionary of already pickled values, as the published files hold one."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8)


BATCHES = [(f"data_batch_{n}", pixels(n)) for n in range(1, 6)] + [("test_batch", pixels(6))]
TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LABELS = [3, 9, 0, 1, 2, 4]
COARSE = [1, 0, 1, 0, 1, 0]


def python10(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, data in BATCHES:
        labels = items([number(label) for label in LABELS])
        entries = {
            "batch_label": text(name),
            "labels": labels,
            "data": array(data),
            "filenames": items([text("a.png")]),
        }
        (folder / name).write_bytes(published(entries))
    meta = {"num_cases_per_batch": number(10000), "label_names": items([text(name) for name in TEN])}
    (folder / "batches.meta").write_bytes(published(meta))
    (folder / "readme.html").write_text("a link")
    return folder


def binary10(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, data in BATCHES:
        records = np.concatenate([np.array(LABELS, dtype=np.uint8)[:, None], data], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    return folder


def python100(root: Path) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, data in (("train", pixels(1)), ("test", pixels(2))):
        fine, coarse = (items([number(label) for label in labels]) for labels in (LABELS, COARSE))
        (folder / name).write_bytes(published({"data": array(data), "fine_labels": fine, "coarse_labels": coarse}))
    names = {
        "fine_label_names": items([text(n) for n in TEN]),
        "coarse_label_names": items([text("fish"), text("sea")]),
    }
    (folder / "meta").write_bytes(published(names))
    return folder


def binary100(root: Path) -> Path:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    labels = np.array([COARSE, LABELS], dtype=np.uint8).T
    for name, data in (("train", pixels(1)), ("test", pixels(2))):
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels, data], axis=1).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(TEN))
    (folder / "coarse_label_names.txt").write_text("fish\nsea\n")
    return folder


def pictures(catalogue: Catalogue, side: str, size: int = 32) -> np.ndarray:
    return np.stack(list(catalogue.pictures(side, np.arange(len(catalogue.labels[side])), size)))


@pytest.mark.parametrize("write", [python10, binary10])
def test_cifar_10_from_its_folder_and_its_parent(write, tmp_path: Path) -> None:
    folder = write(tmp_path)
    for where in (folder, tmp_path):
        found = cifar(str(where), seed=0)
        assert found.class_names == tuple(TEN)
        assert found.labels["train"].tolist() == LABELS * 5
        assert found.labels["val"].tolist() == LABELS
        assert "CIFAR-10 in its" in found.description
        expected = np.concatenate([data for _, data in BATCHES[:5]]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(pictures(found, "train"), expected)
        np.testing.assert_array_equal(pictures(found, "val")[2, :, :, 0].ravel(), BATCHES[5][1][2, :1024])  # red


def test_the_layouts_hold_the_same_and_have_one_fingerprint(tmp_path: Path) -> None:
    ten = [cifar(str(write(tmp_path / write.__name__)), 0) for write in (python10, binary10)]
    assert ten[0].fingerprint == ten[1].fingerprint
    hundred = [cifar(str(write(tmp_path / write.__name__)), 0) for write in (python100, binary100)]
    assert hundred[0].fingerprint == hundred[1].fingerprint != ten[0].fingerprint
    np.testing.assert_array_equal(pictures(hundred[0], "train"), pictures(hundred[1], "train"))


@pytest.mark.parametrize("write", [python100, binary100])
def test_cifar_100_has_fine_labels_and_coarse_ones_when_asked(write, tmp_path: Path) -> None:
    folder = write(tmp_path)
    fine, coarse = cifar(str(folder), 0), cifar(f"{folder}#coarse", 0)
    assert (fine.class_names, fine.labels["val"].tolist()) == (tuple(TEN), LABELS)
    assert (coarse.class_names, coarse.labels["val"].tolist()) == (("fish", "sea"), COARSE)
    assert cifar(f"{folder}#fine", 0).fingerprint == fine.fingerprint != coarse.fingerprint


@pytest.mark.parametrize("write", [python10, binary100])
def test_the_archive_as_it_came(write, tmp_path: Path) -> None:
    folder = write(tmp_path)
    archive = tmp_path / "download.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        target.add(folder, folder.name)
    assert cifar(str(archive), 0).fingerprint == cifar(str(folder), 0).fingerprint
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"download\.tar\.gz.*cannot be read as an archive"):
        cifar(str(archive), 0)


def test_pictures_come_in_the_asked_order_and_size(tmp_path: Path) -> None:
    found = cifar(str(python10(tmp_path)), 0)
    chosen = list(found.pictures("train", np.array([1, 8, 29]), 32))
    np.testing.assert_array_equal(chosen, pictures(found, "train")[[1, 8, 29]])
    assert pictures(found, "val", 48).shape == (PER_BATCH, 48, 48, 3)
    before = found.fingerprint
    data = pixels(3)
    data[0, 0] ^= 1  # one bit of one pixel
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(
        published({"labels": items([number(label) for label in LABELS]), "data": array(data)})
    )
    assert cifar(str(tmp_path), 0).fingerprint != before


def test_files_written_by_todays_python_and_numpy(tmp_path: Path) -> None:
    folder = python10(tmp_path)
    before = cifar(str(folder), 0).fingerprint
    for protocol, (name, data) in zip((2, 3, 4, 2, 3, 4), BATCHES, strict=True):
        content = {b"data": data, b"labels": [int(label) for label in LABELS]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    assert cifar(str(folder), 0).fingerprint == before


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = python10(tmp_path)
    mark = tmp_path / "ran"
    (folder / "data_batch_2").write_bytes(pickle.dumps({"data": Evil(mark), "labels": LABELS}))
    with pytest.raises(InputError, match=r"data_batch_2.*asks for (builtins\.getattr|pathlib).*it was not run"):
        cifar(str(folder), 0)
    assert not mark.exists()
    for asked in (b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nload\n", b"cnumpy.core.multiarray\nfromfile\n"):
        (folder / "data_batch_2").write_bytes(b"\x80\x02" + asked + text("true") + b"\x85R.")
        with pytest.raises(InputError, match="it was not run"):
            cifar(str(folder), 0)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"junk", b"\x80\x02}", b"\x80\x02N.", b"\x80\x02](K\x01e.", b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.", b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x05NNtb.",
        b"\x80\x02ccopyreg\n_reconstructor\n.",
    ],
)  # fmt: skip
def test_other_pickles_are_one_clear_line(content: bytes, tmp_path: Path) -> None:
    folder = python10(tmp_path)
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(InputError, match="data_batch_1") as caught:
        cifar(str(folder), 0)
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_python_batch_is_refused(tmp_path: Path) -> None:
    folder = python10(tmp_path)
    whole = (folder / "data_batch_4").read_bytes()
    for length in [*range(1, 200), *range(200, len(whole), 997), len(whole) - 1]:
        (folder / "data_batch_4").write_bytes(whole[:length])
        with pytest.raises(InputError, match="data_batch_4"):
            cifar(str(folder), 0)


def test_changed_bytes_of_a_batch_never_crash(tmp_path: Path) -> None:
    folder = python10(tmp_path)
    whole = (folder / "data_batch_5").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(whole)
        # Before and after the pixels, where a byte is not just another colour.
        changed[int(generator.integers(-60, 260))] = int(generator.integers(256))
        (folder / "data_batch_5").write_bytes(changed)
        try:
            cifar(str(folder), 0)
        except InputError:
            refused += 1
    assert refused > 50


def batch(data: np.ndarray, labels: list[bytes]) -> bytes:
    return published({"labels": items(labels), "data": array(data)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (batch(pixels(1), [number(v) for v in (0, 1, 12, 3, 4, 5)]), r"label 12 of image 2 must be 0 to 9"),
        (batch(pixels(1), [number(v) for v in (0, 1, 2, -1, 4, 5)]), r"label -1 of image 3 must be 0 to 9"),
        (batch(pixels(1), [number(1)] * 5), "6 images but 5 labels"),
        (batch(pixels(1), [text("cat")] * 6), "no list of whole numbers under 'labels'"),
        (batch(pixels(1)[:, :3071], [number(1)] * 6), r"shape \(N, 3072\), not uint8 of shape \(6, 3071\)"),
        (published({"data": array(pixels(1))}), "no list of whole numbers under 'labels'"),
        (published({"labels": items([number(1)] * 6)}), r"shape \(N, 3072\), not NoneType"),
        (batch(pixels(1)[:4], [number(1)] * 4), "holds 4 images, another batch 6; it is cut off"),
    ],
)
def test_a_malformed_python_batch(content: bytes, words: str, tmp_path: Path) -> None:
    folder = python10(tmp_path)
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(InputError, match=f"data_batch_1.*{words}"):
        cifar(str(folder), 0)


def test_malformed_binary_batches(tmp_path: Path) -> None:
    folder = binary10(tmp_path)
    file = folder / "data_batch_2.bin"
    whole = file.read_bytes()
    for content, words in (
        (whole[:-1], f"has {len(whole) - 1} bytes, not a whole number of records of 3073"),
        (b"", "has 0 bytes"),
        (whole[:-3073], "holds 5 images, another batch 6"),
        (b"\x0a" + whole[1:], "label 10 of image 0 must be 0 to 9"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"data_batch_2\.bin.*{words}"):
            cifar(str(folder), 0)


def test_missing_files_and_names(tmp_path: Path) -> None:
    folder = python10(tmp_path)
    (folder / "data_batch_3").unlink()
    (folder / "test_batch").unlink()
    with pytest.raises(InputError, match="lacks data_batch_3, test_batch of CIFAR-10"):
        cifar(str(folder), 0)
    hundred = binary100(tmp_path / "other")
    (hundred / "fine_label_names.txt").write_text("one\n")
    with pytest.raises(InputError, match=r"fine_label_names\.txt.*holds no list of class names"):
        cifar(str(hundred), 0)


def test_where_there_is_nothing_or_too_much(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no file of CIFAR-10 \(data_batch_1"):
        cifar(str(tmp_path / "empty"), 0)
    with pytest.raises(InputError, match="no such folder or file"):
        cifar(str(tmp_path / "nowhere"), 0)
    (tmp_path / "note.txt").write_text("no archive")
    with pytest.raises(InputError, match=r"note\.txt.*cannot be read as an archive"):
        cifar(str(tmp_path / "note.txt"), 0)
    python10(tmp_path)
    with pytest.raises(InputError, match="holds no file of CIFAR-100"):
        cifar(f"{tmp_path}#coarse", 0)
    python100(tmp_path)
    with pytest.raises(InputError, match="holds cifar-10-batches-py and cifar-100-python; name the one"):
        cifar(str(tmp_path), 0)
