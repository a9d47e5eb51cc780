"""Every data source keeps the contract of `ImageSet`; bad input is one clear line."""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_search.data import ImageSet, load_data
from mvit_search.data._base import balanced_choice, held_out_limit
from mvit_search.errors import InputError, UnknownNameError

SIZE = 20


def write_images(folder: Path, count: int, seed: int, size: tuple[int, int] = (30, 24)) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    for seed, (side, name) in enumerate((s, n) for s in ("train", "val") for n in ("cat", "dog", "owl")):
        write_images(tmp_path / "photos" / side / name, 12 if side == "train" else 5, seed)
    return tmp_path / "photos"


@pytest.fixture
def single_folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "pets" / name, 10, seed)
    return tmp_path / "pets"


def packed(folder: Path, ending: str) -> str:
    path = folder.with_name(f"{folder.name}{ending}")
    if ending == ".zip":
        return shutil.make_archive(str(folder), "zip", folder)
    with tarfile.open(path, f"w:{ending[5:]}") as tar:  # type: ignore[call-overload]
        tar.add(folder, folder.name)
    return str(path)


@pytest.fixture(params=["digits", "shapes:100", "split folder", "single folder", ".tar", ".tar.gz", ".zip"])
def spec(request: pytest.FixtureRequest, split_folder: Path, single_folder: Path) -> str:
    if request.param.startswith("."):
        return packed(single_folder, request.param)
    folders = {"split folder": str(split_folder), "single folder": str(single_folder)}
    return folders.get(request.param, request.param)


def cap(spec: str) -> int:
    """Fewer images than there are, and not so many that all classes give as many."""
    return 23 if spec.startswith("shapes") else 12 if spec == "digits" else 11


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_shapes_types_and_labels(spec: str) -> None:
    data = load_data(spec, image_size=SIZE)
    assert data.image_size == SIZE
    for images, labels in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert images.shape == (len(labels), SIZE, SIZE, 3)
        assert images.flags.c_contiguous
        assert set(labels) == set(range(data.num_classes))
        assert images.std() > 10
    assert len(data.class_names) >= 2
    assert data.source


def test_same_arguments_same_data(spec: str) -> None:
    first, second = (load_data(spec, image_size=SIZE, seed=3) for _ in range(2))
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.train_images, second.train_images)
    np.testing.assert_array_equal(first.val_images, second.val_images)


def test_digest_knows_the_size_and_the_cap(spec: str) -> None:
    sets = [load_data(spec, image_size=s, max_images=m) for s, m in ((20, None), (24, None), (20, cap(spec)))]
    assert len({data.digest for data in sets}) == 3


def test_no_image_on_both_sides(spec: str) -> None:
    data = load_data(spec, image_size=SIZE)
    assert not rows(data.train_images) & rows(data.val_images)


def test_cap_is_even_over_classes_and_chooses_by_seed(spec: str) -> None:
    most = cap(spec)
    data = load_data(spec, image_size=SIZE, max_images=most, seed=0)
    assert len(data.train_images) == most
    counts = np.bincount(data.train_labels, minlength=data.num_classes)
    assert counts.max() - counts.min() <= 1
    assert len(data.val_images) <= most
    other = load_data(spec, image_size=SIZE, max_images=most, seed=1)
    assert rows(other.train_images) != rows(data.train_images)


def test_held_out_digits_are_views_of_digits_never_trained_on() -> None:
    """The split is by digit, before any view is made: the two sides add up to all 1,797, each once."""
    data = load_data("digits", image_size=24)
    assert len(data.train_images) + len(data.val_images) == 1797
    plain = rows(load_data("digits", image_size=24, seed=1).train_images)
    assert rows(data.train_images) & plain  # training digits are plain: another split shares some of them
    assert not rows(data.val_images) & plain


def test_a_single_folder_holds_out_a_fifth_of_every_class(single_folder: Path) -> None:
    data = load_data(str(single_folder), image_size=SIZE)
    assert np.bincount(data.train_labels).tolist() == [8, 8]
    assert np.bincount(data.val_labels).tolist() == [2, 2]
    everything = rows(data.train_images) | rows(data.val_images)
    assert len(everything) == 20


def test_val_goes_before_test_and_test_stands_in(split_folder: Path) -> None:
    with_val = load_data(str(split_folder), image_size=SIZE)
    (split_folder / "val").rename(split_folder / "test")
    assert load_data(str(split_folder), image_size=SIZE).digest == with_val.digest
    for name in ("cat", "dog", "owl"):
        write_images(split_folder / "val" / name, 2, seed=9)
    assert len(load_data(str(split_folder), image_size=SIZE).val_images) == 6


def test_hidden_and_foreign_files_are_ignored(single_folder: Path) -> None:
    before = load_data(str(single_folder), image_size=SIZE).digest
    (single_folder / ".cache").mkdir()
    (single_folder / "cat" / "._001.png").write_bytes(b"resource fork")
    (single_folder / "cat" / "notes.txt").write_text("not an image")
    assert load_data(str(single_folder), image_size=SIZE).digest == before


def test_the_digest_does_not_depend_on_where_the_folder_is(single_folder: Path, tmp_path: Path) -> None:
    before = load_data(str(single_folder), image_size=SIZE).digest
    moved = single_folder.rename(tmp_path / "elsewhere")
    assert load_data(str(moved), image_size=SIZE).digest == before


def test_only_chosen_files_are_decoded(split_folder: Path) -> None:
    chosen = rows(load_data(str(split_folder), image_size=SIZE, max_images=3).train_images)
    for path in (split_folder / "train").rglob("*.png"):
        if rows(load_one(path)) - chosen:
            path.write_bytes(b"broken")
    assert rows(load_data(str(split_folder), image_size=SIZE, max_images=3).train_images) == chosen


def load_one(path: Path) -> np.ndarray:
    from mvit_search.data._decoding import decode

    return decode(path, SIZE)[None]


def test_a_scarce_class_gives_all_it_has_and_others_fill_up() -> None:
    labels = np.array([0] * 2 + [1] * 50 + [2] * 50)
    chosen = balanced_choice(labels, 20, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [2, 9, 9]
    assert len(set(chosen)) == 20


@pytest.mark.parametrize(
    ("spec", "words"),
    [("digit", ["did you mean 'digits'?"]), ("no/such/folder", ["no such file or folder", "digits"]), ("", ["digits"])],
)
def test_unknown_data_is_refused(spec: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_data(spec, image_size=SIZE)
    assert all(word in str(caught.value) for word in words)


def test_a_mistyped_name_is_told_the_nearest_and_an_unknown_kind_the_known_ones() -> None:
    with pytest.raises(InputError, match="no such file or folder; did you mean 'digits'"):
        load_data("digitz", image_size=SIZE)
    with pytest.raises(UnknownNameError, match="npz"):
        load_data("nqz:photos", image_size=SIZE)


def _empty(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _one_class(root: Path) -> None:
    for side in ("train", "val"):
        for name in ("dog", "owl"):
            _empty(root / side / name)
            (root / side / name).rmdir()


def _no_held_out(root: Path) -> None:
    (root / "val").rename(root / ".val")


def _no_train(root: Path) -> None:
    (root / "train").rename(root / ".train")


def _class_missing(root: Path) -> None:
    (root / "val" / "owl").rename(root / "val" / "wolf")


def _empty_class(root: Path) -> None:
    (root / "train" / "ant").mkdir()


def _corrupt(root: Path) -> None:
    whole = (root / "train" / "dog" / "004.png").read_bytes()
    (root / "train" / "dog" / "004.png").write_bytes(whole[: len(whole) // 2])


def _text_as_image(root: Path) -> None:
    (root / "val" / "cat" / "000.png").write_text("<html>not found</html>")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_empty, ["no class folder"]),
        (_one_class, ["one class", "cat"]),
        (_no_held_out, ["train/", "neither val/ nor test/"]),
        (_no_train, ["no train/"]),
        (_class_missing, ["val/ lacks", "'owl'"]),
        (_empty_class, ["ant", "holds no image", ".png"]),
    ],
)
def test_a_spoilt_folder_is_one_clear_line(split_folder: Path, spoil: Callable[[Path], None], words: list[str]) -> None:
    spoil(split_folder)
    with pytest.raises(InputError) as caught:
        load_data(str(split_folder), image_size=SIZE)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_corrupt, ["train/dog/004.png", "cannot be read"]),
        (_text_as_image, ["val/cat/000.png", "unknown image format"]),
    ],
)
def test_a_damaged_picture_is_skipped_by_name(
    split_folder: Path, spoil: Callable[[Path], None], words: list[str]
) -> None:
    whole = load_data(str(split_folder), image_size=SIZE)
    assert whole.skipped == ()
    spoil(split_folder)
    data = load_data(str(split_folder), image_size=SIZE)
    assert data.digest != whole.digest
    assert len(data.train_images) + len(data.val_images) == len(whole.train_images) + len(whole.val_images) - 1
    assert len(data.train_images) == len(data.train_labels)
    assert len(data.val_images) == len(data.val_labels)
    assert len(data.skipped) == 1
    assert all(word in data.skipped[0] for word in words), data.skipped
    assert data.source.endswith("; 1 unreadable, skipped")
    with pytest.raises(InputError) as caught:
        load_data(str(split_folder), image_size=SIZE, max_unreadable=0)
    assert all(word in str(caught.value) for word in words)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.txt").write_text("no photo")
    with pytest.raises(InputError, match=r"no known kind.*zip"):
        load_data(str(tmp_path / "photos.txt"), image_size=SIZE)


def test_more_than_memory_holds_is_refused_before_decoding(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvit_search.data._base._MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="--images"):
        load_data(str(split_folder), image_size=SIZE, cache=False)


def test_digits_keep_to_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # Refused before any picture is made; by module, because the package's `digits` is the function.
    monkeypatch.setattr(sys.modules["mvit_search.data.digits"], "_enlarged", None)
    with pytest.raises(InputError, match=r"1797 images of 1024 px need 5\.3 GiB.*--images"):
        load_data("digits", image_size=1024)


def test_a_cap_below_the_class_count_is_refused(spec: str) -> None:
    classes = load_data(spec, image_size=SIZE).num_classes
    at_the_limit = load_data(spec, image_size=SIZE, max_images=classes)
    assert set(at_the_limit.train_labels) == set(at_the_limit.val_labels) == set(range(classes))
    with pytest.raises(InputError, match=r"^images \d+: must be at least") as caught:
        load_data(spec, image_size=SIZE, max_images=classes - 1)
    assert caught.value.field == "images"


def test_a_cap_below_the_class_count_says_the_count() -> None:
    with pytest.raises(InputError, match=r"images 6: must be at least the number of classes \(10\)"):
        load_data("digits", image_size=SIZE, max_images=6)


def test_held_out_images_show_every_class_however_many_there_are() -> None:
    assert held_out_limit(None, 10) is None
    assert held_out_limit(500, 10) == 500
    assert held_out_limit(9000, 10) == 2000
    assert held_out_limit(9000, 3000) == 3000


@pytest.mark.parametrize(("name", "value"), [("max_images", 1), ("max_images", 0), ("image_size", 0)])
def test_absurd_arguments(name: str, value: int) -> None:
    with pytest.raises(InputError):
        load_data("digits", **{"image_size": SIZE, name: value})


def test_no_torch() -> None:
    code = "import sys, mvit_search.data as d; d.load_data('digits', image_size=16); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_image_set_is_frozen() -> None:
    data = load_data("digits", image_size=16, max_images=20)
    assert isinstance(data, ImageSet)
    with pytest.raises(AttributeError):
        data.name = "other"  # type: ignore[misc]
