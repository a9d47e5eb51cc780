"""Archives are read in place, give what their unpacked folder gives, and are never trusted."""

import gzip
import io
import lzma
import os
import random
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_search.data import ImageSet, load_data
from mvit_search.errors import InputError

SIZE = 12
ENDINGS = ("tar", "tar.gz", "tgz", "tar.xz", "tar.bz2", "zip")
CIFAR = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10-jpeg.tar.xz"


def write_classes(folder: Path, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for name in ("cat", "dog", "owl"):
        (folder / name / "deeper").mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            below = folder / name / ("deeper" if index % 3 == 0 else "")
            Image.fromarray(pixels).save(below / f"{index:02}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with files that do not count: text, hidden ones, an image beside the classes."""
    root = tmp_path / "photos"
    write_classes(root / "train", 6, seed=0)
    write_classes(root / "test", 3, seed=1)
    (root / "README.md").write_text("about")
    (root / "train" / "cat" / "notes.txt").write_text("about cats")
    (root / "train" / "cat" / "._00.png").write_text("resource fork")
    (root / "train" / "preview.png").write_bytes((root / "train" / "cat" / "01.png").read_bytes())
    return root


def members_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def pack(path: Path, members: dict[str, bytes], prefix: str = "", seed: int | None = None) -> Path:
    """`members` as an archive of the kind that the path's ending says, shuffled by `seed`."""
    names = list(members)
    if seed is not None:
        random.Random(seed).shuffle(names)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name in names:
                file.writestr(prefix + name, members[name])
        return path
    kind = {".tar": "", ".tgz": "gz"}.get(path.suffix, path.suffix[1:])
    with tarfile.open(path, f"w:{kind}") as tar:  # type: ignore[call-overload]
        for name in names:
            add(tar, prefix + name, members[name])
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, target
    tar.addfile(info, io.BytesIO(content))


def load(path: Path, **arguments: object) -> ImageSet:
    return load_data(str(path), **{"image_size": SIZE, "cache": False, **arguments})  # type: ignore[arg-type]


def refusal(path: Path, **arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        load(path, **arguments)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("prefix", "seed"), [("", None), ("./", 1), ("photos-1.0/", 2)])
def test_an_archive_gives_what_its_unpacked_folder_gives(
    photos: Path, tmp_path: Path, ending: str, prefix: str, seed: int | None
) -> None:
    expected = load(photos)
    path = pack(tmp_path / f"photos.{ending}", members_of(photos), prefix, seed)
    before = sorted(tmp_path.rglob("*"))
    data = load(path)
    assert data.digest == expected.digest
    assert data.skipped == ()
    assert data.source == "archive with train/ and test/; 18 of 18 training and 9 of 9 held-out images"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("ending", ["tar", "tar.xz", "zip"])
def test_class_folders_alone_hold_out_the_same_fifth(photos: Path, tmp_path: Path, ending: str) -> None:
    expected = load(photos / "train", seed=3)
    assert load(pack(tmp_path / f"a.{ending}", members_of(photos / "train"), seed=1), seed=3).digest == expected.digest
    below = pack(tmp_path / f"b.{ending}", members_of(photos / "train"), prefix="pets/", seed=2)
    assert load(below, seed=3).digest == expected.digest


@pytest.mark.parametrize("ending", ENDINGS)
def test_chosen_pictures_are_those_of_the_folder(photos: Path, tmp_path: Path, ending: str) -> None:
    path = pack(tmp_path / f"a.{ending}", members_of(photos), seed=4)
    assert load(path, max_images=7, seed=5).digest == load(photos, max_images=7, seed=5).digest
    assert load(path, fraction=0.3, seed=5).digest == load(photos, fraction=0.3, seed=5).digest


def test_out_of_order_pictures_come_in_passes_of_bounded_size(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a.tar.gz", members_of(photos), seed=4)
    expected = load(photos).digest
    for pictures in (1, 2, 5):
        # By module, because the package's `archive` is the function.
        monkeypatch.setattr(sys.modules["mvit_search.data.archive"], "_PASS_BYTES", pictures * SIZE * SIZE * 3)
        assert load(path).digest == expected


def test_the_kind_is_told_by_content_not_by_name(photos: Path, tmp_path: Path) -> None:
    expected = load(photos).digest
    zipped = pack(tmp_path / "a.zip", members_of(photos)).rename(tmp_path / "really-a-zip.tar.gz")
    assert load(zipped).digest == expected
    packed = pack(tmp_path / "a.tar.xz", members_of(photos)).rename(tmp_path / "really-xz.tar")
    assert load(packed).digest == expected


def test_of_two_members_with_one_name_the_last_counts(photos: Path, tmp_path: Path) -> None:
    members = members_of(photos)
    path = pack(tmp_path / "a.tar", members)
    with tarfile.open(path, "a") as tar:
        add(tar, "train/cat/01.png", members["train/dog/01.png"])
    (photos / "train" / "cat" / "01.png").write_bytes(members["train/dog/01.png"])
    assert load(path).digest == load(photos).digest


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_links_devices_and_names_that_lead_out_are_passed_over(photos: Path, tmp_path: Path, ending: str) -> None:
    members, path = members_of(photos), tmp_path / f"a.{ending}"
    picture = members["train/cat/01.png"]
    with tarfile.open(path, f"w:{ending[4:]}") as tar:  # type: ignore[call-overload]
        add(tar, "/train/cat/absolute.png", picture)
        add(tar, "train/../../cat/up.png", picture)
        add(tar, "../train/cat/up.png", picture)
        add(tar, "C:/train/cat/drive.png", picture)
        add(tar, "train/cat/link.png", kind=tarfile.SYMTYPE, target="/etc/passwd")
        add(tar, "train/cat/hard.png", kind=tarfile.LNKTYPE, target="train/cat/01.png")
        add(tar, "train/cat/pipe.png", kind=tarfile.FIFOTYPE)
        add(tar, "train/cat/device.png", kind=tarfile.CHRTYPE)
        add(tar, "train/wolf", kind=tarfile.DIRTYPE)
        for name, content in members.items():
            add(tar, name, content)
    data = load(path)
    assert data.digest == load(photos).digest
    assert "8 members passed over" in data.source


def test_links_in_a_zip_are_passed_over(photos: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", members_of(photos))
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("train/cat/link.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("../train/cat/up.png", b"")
    data = load(path)
    assert data.digest == load(photos).digest
    assert "2 members passed over" in data.source


@pytest.mark.parametrize("ending", ["tar", "tar.xz", "zip"])
def test_a_huge_member_is_skipped_by_name(
    photos: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvit_search.data._members.MAX_MEMBER_BYTES", 100_000)
    members = members_of(photos) | {"train/cat/99.png": bytes(100_001), "train/cat/98.png": bytes(100_000)}
    data = load(pack(tmp_path / f"a.{ending}", members))
    assert data.digest == load(photos).digest
    assert [line.partition(" ")[0] for line in data.skipped] == [
        f"a.{ending}:train/cat/98.png",
        f"a.{ending}:train/cat/99.png",
    ]
    assert "unknown image format" in data.skipped[0]
    assert "is declared with 100001 bytes" in data.skipped[1]


def test_a_zip_member_that_lies_about_its_size_is_skipped_by_name(photos: Path, tmp_path: Path) -> None:
    members = members_of(photos) | {"train/cat/99.png": bytes(1_000_000)}
    path = pack(tmp_path / "a.zip", members)
    packed = path.read_bytes()
    assert packed.count((1_000_000).to_bytes(4, "little")) == 2  # its own header and the directory
    path.write_bytes(packed.replace((1_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    data = load(path)
    assert data.digest == load(photos).digest
    assert len(data.skipped) == 1
    assert "train/cat/99.png cannot be unpacked" in data.skipped[0]


def test_a_stream_that_unpacks_to_far_more_than_its_size_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvit_search.data._members._ALWAYS_ALLOWED", 0)
    small = pack(tmp_path / "a.tar.xz", members_of(photos))
    load(small)
    bomb = pack(tmp_path / "b.tar.xz", members_of(photos) | {"zeros.bin": bytes(30_000_000)})
    assert "unpacks to more than 200 times its size" in refusal(bomb)


def test_a_huge_header_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("PaxHeaders/x")
    header.type, header.size = tarfile.XHDTYPE, 100 * 2**20
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(100), 1))
    assert "a header of 104857600 bytes" in refusal(path)


def test_an_encrypted_zip_is_refused(photos: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", members_of(photos))
    packed = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(signature) + flags] |= 1
    path.write_bytes(packed)
    assert "is encrypted" in refusal(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9])
def test_an_archive_that_is_cut_off_is_one_clear_line(photos: Path, tmp_path: Path, ending: str, share: float) -> None:
    path = pack(tmp_path / f"a.{ending}", members_of(photos))
    os.truncate(path, int(share * path.stat().st_size))
    message = refusal(path)
    assert "cannot be read as an archive" in message
    assert "get it again" in message


def test_a_plain_tar_is_never_shortened_in_silence(photos: Path, tmp_path: Path) -> None:
    """Cut at every block, so also between two members, where nothing but the end mark is missing."""
    packed = pack(tmp_path / "a.tar", members_of(photos)).read_bytes()
    for blocks in range(-(-len(packed.rstrip(b"\0")) // 512) + 1):
        (tmp_path / "a.tar").write_bytes(packed[: 512 * blocks])
        assert "cannot be read as an archive" in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize("ending", ["tar.gz", "tar.xz", "tar.bz2"])
def test_a_missing_end_is_found_before_anything_is_decoded(photos: Path, tmp_path: Path, ending: str) -> None:
    path = pack(tmp_path / f"a.{ending}", members_of(photos))
    os.truncate(path, path.stat().st_size - 6)
    assert "cannot be read as an archive" in refusal(path)


def test_a_damaged_header_does_not_shorten_the_data_in_silence(photos: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", members_of(photos))
    packed = bytearray(path.read_bytes())
    at = packed.index(b"train/dog/01.png")
    packed[at + 148 : at + 156] = b"\xff" * 8  # its checksum
    path.write_bytes(packed)
    assert "neither a header nor the end mark" in refusal(path)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "zip"])
def test_random_damage_is_told_or_does_no_harm(photos: Path, tmp_path: Path, ending: str) -> None:
    whole = pack(tmp_path / f"a.{ending}", members_of(photos)).read_bytes()
    path, generator, told = tmp_path / f"b.{ending}", random.Random(0), 0
    for _ in range(25):
        packed = bytearray(whole)
        for _ in range(generator.choice((1, 3, 30))):
            packed[generator.randrange(len(packed))] = generator.randrange(256)
        path.write_bytes(packed)
        try:
            assert load(path).num_classes in (2, 3, 4)  # a class folder may be renamed by a flipped bit
        except InputError:
            told += 1
    assert told > 0


def _nothing(members: dict[str, bytes]) -> dict[str, bytes]:
    return {"README.md": b"about"}


def _no_test(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if not name.startswith("test/")}


def _no_train(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if not name.startswith("train/")}


def _two_tests(members: dict[str, bytes]) -> dict[str, bytes]:
    return members | {"Test/cat/00.png": members["train/cat/01.png"]}


def _one_class(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if "/cat/" in name}


def _one_folder(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name[6:]: content for name, content in members.items() if name.startswith("train/cat/0")}


def _class_missing(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if not name.startswith("test/owl/")}


def _no_classes(members: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name.split('/')[0]}/{i}.png": content for i, (name, content) in enumerate(members.items())}


def _cifar(members: dict[str, bytes]) -> dict[str, bytes]:
    return {"cifar-10-batches-py/data_batch_1": b"pickle"}


def _shard(members: dict[str, bytes]) -> dict[str, bytes]:
    return {"000.jpg": members["train/cat/01.png"], "000.cls": b"1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nothing, ["holds no class folder with images", "train/CLASS/"]),
        (_no_test, ["has train/ but neither val/ nor test/"]),
        (_no_train, ["has test/ but no train/"]),
        (_two_tests, ["both Test/ and test/"]),
        (_one_class, ["one class folder alone", "'cat'"]),
        (_one_folder, ["one class folder alone", "'cat'"]),
        (_class_missing, ["test/ lacks the class folder 'owl'"]),
        (_no_classes, ["holds no class folder with images"]),
        (_cifar, ["holds no class folder with images", "cifar:"]),
        (_shard, ["holds no class folder with images", "webdataset:"]),
    ],
)
@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_a_wrong_layout_is_one_clear_line(
    photos: Path, tmp_path: Path, ending: str, change: Callable[[dict[str, bytes]], dict[str, bytes]], words: list[str]
) -> None:
    message = refusal(pack(tmp_path / f"a.{ending}", change(members_of(photos))))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("content", [b"", b"PK", b"not an archive " * 100, lzma.compress(b"not a tar" * 100)])
def test_what_is_no_archive_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    assert "cannot be read as an archive" in refusal(tmp_path / "a.tar")


def test_an_archive_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no such archive"):
        load_data("archive:gone.tar", image_size=SIZE)


def test_a_folder_named_as_an_archive(photos: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not an archive; say folder:"):
        load_data(f"archive:{photos}", image_size=SIZE)


@pytest.mark.parametrize("ending", ["tar", "tar.xz", "zip"])
def test_another_content_is_another_entry_of_the_cache(photos: Path, tmp_path: Path, ending: str) -> None:
    members = members_of(photos)
    first = load(pack(tmp_path / f"a.{ending}", members), cache=True)
    assert load(tmp_path / f"a.{ending}", cache=True).digest == first.digest
    pixels = np.asarray(Image.open(io.BytesIO(members["train/cat/01.png"]))).copy()
    pixels[10, 10] ^= 128
    changed = io.BytesIO()
    Image.fromarray(pixels).save(changed, "png")
    pack(tmp_path / f"a.{ending}", members | {"train/cat/01.png": changed.getvalue()})
    assert load(tmp_path / f"a.{ending}", cache=True).digest != first.digest


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_file(), reason="needs shared/data/cifar10-jpeg.tar.xz beside the checkout")
def test_a_real_archive() -> None:
    data = load(CIFAR, image_size=32, fraction=0.004)
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert data.source == "archive with train/ and test/; 200 of 50000 training and 10000 of 10000 held-out images"
    assert np.bincount(data.train_labels).tolist() == [20] * 10
    assert np.bincount(data.val_labels).tolist() == [1000] * 10
    with tarfile.open(CIFAR) as tar:
        first = next(info for info in tar if info.name.endswith("test/airplane/0000.jpg"))
        stream = tar.extractfile(first)
        assert stream is not None
        picture = np.asarray(Image.open(stream).convert("RGB"))
    np.testing.assert_array_equal(data.val_images[0], picture)
