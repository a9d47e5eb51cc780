"""The generated pictures: what their classes mean, that neither half of a class solves it, and that they repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from mvit_search.data import load_data
from mvit_search.data.shapes import ARRANGEMENTS, TEXTURES, _Draws, _Scene, _scene, shapes
from mvit_search.errors import InputError

CLASSES = len(TEXTURES) * len(ARRANGEMENTS)


def drawn(indices: object, size: int = 32, side: str = "train", seed: int = 0, argument: str = "") -> np.ndarray:
    return np.stack(list(shapes(argument, seed).pictures(side, np.asarray(indices), size)))


def scene(count: int, seed: int = 0) -> _Scene:
    generators = [np.random.default_rng((seed, 0, index)) for index in range(count)]
    return _scene(np.arange(count) % CLASSES, _Draws(generators), 32)


def test_counts_and_classes() -> None:
    usual, small, large = shapes("", 0), shapes("20", 0), shapes("50000", 0)
    assert [len(c.labels["train"]) for c in (usual, small, large)] == [5000, 20, 50000]
    assert [len(c.labels["val"]) for c in (usual, small, large)] == [1000, 20, 2000]
    for catalogue in (usual, small, large):
        for labels in catalogue.labels.values():
            counts = np.bincount(labels, minlength=CLASSES)
            assert counts.max() - counts.min() <= 1
    assert len(set(usual.class_names)) == CLASSES
    assert usual.class_names[6] == "level stripes, large on top"
    assert "synthetic" in usual.description


def test_sets_of_other_seeds_and_counts_are_told_apart() -> None:
    prints = [shapes(*arguments).fingerprint for arguments in (("", 0), ("", 1), ("5001", 0), ("5000", 0))]
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3


@settings(max_examples=20, deadline=None)
@given(
    chosen=st.lists(st.integers(0, 4999), min_size=1, max_size=12, unique=True),
    size=st.sampled_from([8, 17, 32, 64]),
    seed=st.integers(0, 2**32),
)
def test_a_picture_depends_on_seed_side_and_index_alone(chosen: list[int], size: int, seed: int) -> None:
    indices = sorted(chosen)
    together = drawn(indices, size, seed=seed)
    assert together.shape == (len(indices), size, size, 3)
    assert together.dtype == np.uint8
    for index, picture in zip(indices, together, strict=True):
        np.testing.assert_array_equal(drawn([index], size, seed=seed)[0], picture)


def test_larger_sets_begin_as_smaller_ones_and_chunks_leave_no_trace() -> None:
    first = drawn(np.arange(40), 64)
    np.testing.assert_array_equal(drawn(np.arange(40), 64, argument="9000"), first)
    # 128 pictures of 64 px are drawn at once: these are from two chunks.
    np.testing.assert_array_equal(drawn(np.arange(200), 64)[[0, 127, 128, 199]], drawn([0, 127, 128, 199], 64))


def test_no_picture_stands_on_both_sides_nor_under_two_seeds() -> None:
    sets = [drawn(np.arange(500), 16, side, seed) for side in ("train", "val") for seed in (0, 1)]
    assert len({picture.tobytes() for pictures in sets for picture in pictures}) == 4 * 500


def test_an_index_is_one_scene_at_every_resolution() -> None:
    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]))

    def coarse(size: int) -> np.ndarray:
        """Without what is finer than a sixteenth of the side."""
        block = size // 16
        return drawn(np.arange(60), size).reshape(60, 16, block, 16, block, 3).astype(float).mean(axis=(2, 4))

    small = coarse(32)
    assert alike(coarse(64), small) > 0.9
    assert alike(coarse(128), small) > 0.9
    assert alike(coarse(64), np.roll(small, CLASSES, axis=0)) < 0.4  # another scene of the same class


def test_textures_keep_their_pixels_up_to_64_and_their_share_from_there() -> None:
    """So that a small network has as much to do at 64 px as at 32."""
    per_pixel = {}
    for size in (16, 32, 64, 128):
        generators = [np.random.default_rng((0, 0, index)) for index in range(500)]
        per_pixel[size] = size / _scene(np.arange(500) % CLASSES, _Draws(generators), size).frequency
    for size in (16, 32, 64):
        np.testing.assert_allclose(per_pixel[size], per_pixel[32], rtol=1e-5)
        assert per_pixel[size].min() > 2.9
    np.testing.assert_allclose(per_pixel[128], 2 * per_pixel[64], rtol=1e-5)


def test_what_a_class_says_is_what_the_scene_shows() -> None:
    count = 2000
    shown = scene(count)
    labels = np.arange(count) % CLASSES
    there = shown.radius > 0
    names = np.where(there, shown.texture, -1)
    assert (names[:, :2] == labels[:, None] // len(ARRANGEMENTS)).all()
    for row in names:  # the pair's texture is the only one twice
        textures, counts = np.unique(row[row >= 0], return_counts=True)
        assert counts.tolist().count(2) == 1
        assert textures[counts.argmax()] == row[0]
    assert set(there[:, 2:].sum(axis=1)) == {0, 1, 2}
    # Everything is in the picture.
    for place in (shown.x, shown.y):
        assert (place - shown.radius > 0).all()
        assert (place + shown.radius < 1).all()
    assert (shown.radius[:, 0] > shown.radius[:, 1] + 0.02).all()
    across, up = shown.x[:, 0] - shown.x[:, 1], shown.y[:, 1] - shown.y[:, 0]
    assert (np.hypot(across, up) > 1.2 * (shown.radius[:, 0] + shown.radius[:, 1])).all()
    degrees = np.degrees(np.arctan2(up, np.abs(across)))  # of the large part from the small one, mirrored or not
    for number, (low, high) in enumerate(((-11, 11), (34, 56), (79, 101), (-101, -79))):
        angles = degrees[labels % len(ARRANGEMENTS) == number]
        angles = np.abs(angles) if number == 1 else angles
        assert (angles > low).all(), ARRANGEMENTS[number]
        assert (angles < high).all(), ARRANGEMENTS[number]


def local_statistics(pictures: np.ndarray) -> np.ndarray:
    """What fine patterns there are, wherever: (n, features) of the structure of small neighbourhoods, pooled."""
    grey = pictures.astype(np.float32).mean(axis=3) / 255
    down, across = np.gradient(grey, axis=(1, 2))

    def blurred(field: np.ndarray) -> np.ndarray:
        return uniform_filter(field, size=(0, 5, 5), mode="nearest")

    xx, yy, xy = blurred(across * across), blurred(down * down), blurred(across * down)
    energy = xx + yy + 1e-4
    level, slanted = (xx - yy) / energy, np.abs(xy) / energy
    mean = blurred(grey)
    skew = blurred((grey - mean) ** 3) / (blurred((grey - mean) ** 2) + 1e-4) ** 1.5
    maps = [np.maximum(level, 0), np.maximum(-level, 0), slanted, 1 - np.abs(level) - slanted, np.abs(skew)]
    weight = energy**0.5
    pooled = [(m * weight).mean(axis=(1, 2)) / weight.mean(axis=(1, 2)) for m in maps]
    pooled += [((m * weight) ** 2).mean(axis=(1, 2)) for m in maps]
    return np.stack(pooled, axis=1)


def probe(train: np.ndarray, labels: np.ndarray, val: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy of a linear classifier: least squares on one-hot labels, with squares of the features."""
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-9

    def expanded(features: np.ndarray) -> np.ndarray:
        scaled = (features - mean) / std
        return np.concatenate([scaled, scaled**2, np.ones((len(scaled), 1))], axis=1)

    inputs = expanded(train)
    gram = inputs.T @ inputs + 1e-2 * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs.T @ np.eye(labels.max() + 1)[labels])
    return float((np.argmax(expanded(val) @ weights, axis=1) == truth).mean())


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    catalogue = shapes("2500", 0)
    return (
        drawn(np.arange(2500), 32), catalogue.labels["train"],
        drawn(np.arange(500), 32, "val"), catalogue.labels["val"],
    )  # fmt: skip


def test_local_texture_alone_tells_the_texture_and_no_more(pictures: tuple[np.ndarray, ...]) -> None:
    train, labels, val, truth = pictures
    features = local_statistics(train), local_statistics(val)
    texture = probe(features[0], labels // 4, features[1], truth // 4)
    arrangement = probe(features[0], labels % 4, features[1], truth % 4)
    both = probe(features[0], labels, features[1], truth)
    assert texture > 0.40  # chance is 20 %: the features do see textures
    assert arrangement < 0.32  # chance is 25 %
    assert both < 0.25  # the texture known and the arrangement guessed


def test_the_places_of_the_pair_alone_tell_the_arrangement_and_no_more() -> None:
    """Even told where and how large the pair is, to the last digit, but not what it is filled with."""
    shown = scene(4000)
    labels = np.arange(4000) % CLASSES
    across, up = shown.x[:, 0] - shown.x[:, 1], shown.y[:, 1] - shown.y[:, 0]
    features = np.stack([np.abs(across), up, shown.radius[:, 0], shown.radius[:, 1], shown.x[:, 0]], axis=1)
    half = slice(0, 2000), slice(2000, 4000)

    def told(of: np.ndarray) -> float:
        return probe(features[half[0]], of[half[0]], features[half[1]], of[half[1]])

    assert told(labels % 4) > 0.95
    assert told(labels // 4) < 0.25  # chance is 20 %
    assert told(labels) < 0.25  # the arrangement known and the texture guessed


def test_colour_and_brightness_tell_nothing(pictures: tuple[np.ndarray, ...]) -> None:
    train, labels, val, truth = pictures

    def coarse(images: np.ndarray) -> np.ndarray:
        tiles = images.reshape(len(images), 4, 8, 4, 8, 3).astype(np.float64).mean(axis=(2, 4))
        return tiles.reshape(len(images), -1)

    assert probe(coarse(train), labels, coarse(val), truth) < 0.10  # chance is 5 %


def test_load_data_takes_it_by_name() -> None:
    data = load_data("shapes", image_size=16, max_images=60)
    assert data.num_classes == CLASSES
    assert np.bincount(data.train_labels).tolist() == [3] * CLASSES
    assert len(load_data("shapes:40", image_size=16).train_images) == 40


@pytest.mark.parametrize("argument", ["19", "0", "-5", "many", "1e4", "10000001", "9" * 30, "５０００", " 500"])
def test_what_is_no_count_of_images(argument: str) -> None:
    with pytest.raises(InputError, match="must be a number of training images, 20 to 10000000"):
        shapes(argument, 0)
