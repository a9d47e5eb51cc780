"""From a catalogue to images: the choice, the split, labels and damaged pictures, whatever the source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mvit_search.data._base import Images, ImageSet, Labels
from mvit_search.data._catalogue import Side, Unreadable
from mvit_search.data._preparing import Choice, prepare
from mvit_search.errors import InputError

SIZE = 4


@dataclass
class Numbered:
    """Pictures that show their side, their number and their label, some of them damaged."""

    labels: Mapping[Side, Labels]
    class_names: tuple[str, ...] = ("cat", "dog", "owl")
    damaged: frozenset[tuple[str, int]] = frozenset()
    description: str = "numbered pictures"
    fingerprint: str = ""
    asked: list[tuple[str, list[int]]] = field(default_factory=list)

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        self.asked.append((side, indices.tolist()))
        for index in indices:
            if (side, index) in self.damaged:
                yield Unreadable(f"{side}[{index}]", "is damaged")
                continue
            picture = np.zeros((size, size, 3), dtype=np.uint8)
            picture[0, 0] = side == "val", index % 256, index // 256
            picture[1, 1, 0] = self.labels[side][index]
            yield picture


def labels(*counts: int) -> Labels:
    """As many of class 0, 1, ... as `counts` says, in turn."""
    return np.array([c for i in range(max(counts)) for c, count in enumerate(counts) if i < count], dtype=np.int64)


def numbered(train: Labels, val: Labels | None = None, **changes: object) -> Numbered:
    sides: dict[Side, Labels] = {"train": train} if val is None else {"train": train, "val": val}
    return Numbered(sides, **changes)  # type: ignore[arg-type]


def prepared(catalogue: Numbered, **choice: object) -> ImageSet:
    return prepare("numbers", catalogue, Choice(**{"image_size": SIZE, **choice}), None)  # type: ignore[arg-type]


def shown(images: Images) -> list[tuple[int, int]]:
    """(0 train or 1 val, number) of each."""
    return [(int(i[0, 0, 0]), int(i[0, 0, 1]) + 256 * int(i[0, 0, 2])) for i in images]


def refusal(catalogue: Numbered, **choice: object) -> str:
    with pytest.raises(InputError) as caught:
        prepared(catalogue, **choice)
    return str(caught.value)


counts = st.lists(st.integers(2, 40), min_size=2, max_size=3)


@given(counts, st.integers(0, 5))
def test_the_held_out_fifth_never_leaks(members: list[int], seed: int) -> None:
    catalogue = numbered(labels(*members), class_names=("cat", "dog", "owl")[: len(members)])
    data = prepared(catalogue, seed=seed)
    train, val = shown(data.train_images), shown(data.val_images)
    assert sorted(train + val) == [(0, i) for i in range(sum(members))]
    assert np.bincount(data.val_labels).tolist() == [max(1, round(count / 5)) for count in members]
    for images, own in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        np.testing.assert_array_equal(images[:, 1, 1, 0], own)


@given(counts, st.floats(0.001, 1), st.integers(0, 5))
def test_a_fraction_is_balanced_and_of_training_images_alone(members: list[int], fraction: float, seed: int) -> None:
    catalogue = numbered(labels(*members), labels(*members), class_names=("cat", "dog", "owl")[: len(members)])
    data = prepared(catalogue, fraction=fraction, seed=seed)
    assert len(data.train_labels) == max(len(members), round(fraction * sum(members)))
    taken = np.bincount(data.train_labels)
    for label, count in enumerate(members):
        assert taken[label] == count or taken[label] >= taken.max() - 1
    assert len(data.val_labels) == sum(members)


def test_a_fraction_goes_by_seed_and_repeats() -> None:
    def chosen(seed: int) -> list[tuple[int, int]]:
        return shown(prepared(numbered(labels(40, 40, 40), labels(2, 2, 2)), fraction=0.25, seed=seed).train_images)

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)


@pytest.mark.parametrize(
    ("fraction", "most", "train", "val"), [(0.5, None, 30, 30), (0.5, 12, 12, 12), (0.1, 12, 6, 12)]
)
def test_of_a_fraction_and_a_cap_the_smaller_counts(fraction: float, most: int | None, train: int, val: int) -> None:
    data = prepared(numbered(labels(20, 20, 20), labels(10, 10, 10)), fraction=fraction, max_images=most)
    assert (len(data.train_labels), len(data.val_labels)) == (train, val)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.0001, float("nan"), float("inf")])
def test_an_absurd_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="data_fraction"):
        Choice(SIZE, fraction=fraction)


def test_each_side_is_asked_once_in_ascending_order() -> None:
    catalogue = numbered(labels(20, 20, 20), labels(4, 4, 4))
    prepared(catalogue, max_images=9)
    assert [side for side, _ in catalogue.asked] == ["train", "val"]
    assert all(indices == sorted(set(indices)) for _, indices in catalogue.asked)
    assert [len(indices) for _, indices in catalogue.asked] == [9, 9]


def test_damaged_pictures_are_left_out_with_their_labels() -> None:
    damaged = frozenset({("train", 0), ("train", 7), ("val", 11)})
    data = prepared(numbered(labels(5, 5, 5), labels(4, 4, 4), damaged=damaged))
    assert data.skipped == ("train[0] is damaged", "train[7] is damaged", "val[11] is damaged")
    assert data.source.endswith("; 15 of 15 training and 12 of 12 held-out images; 3 unreadable, skipped")
    assert shown(data.train_images) == [(0, i) for i in range(15) if i not in (0, 7)]
    assert shown(data.val_images) == [(1, i) for i in range(11)]
    np.testing.assert_array_equal(data.train_images[:, 1, 1, 0], data.train_labels)
    np.testing.assert_array_equal(data.val_images[:, 1, 1, 0], data.val_labels)


def test_damaged_pictures_of_a_held_out_fifth_are_left_out_too() -> None:
    damaged = frozenset({("train", i) for i in range(0, 60, 9)})
    data = prepared(numbered(labels(20, 20, 20), damaged=damaged))
    kept = [(0, i) for i in range(60) if ("train", i) not in damaged]
    assert sorted(shown(data.train_images) + shown(data.val_images)) == kept
    np.testing.assert_array_equal(data.val_images[:, 1, 1, 0], data.val_labels)


@pytest.mark.parametrize(("members", "limit"), [(100, 10), (998, 20), (999, 21)])
def test_one_in_a_hundred_may_be_damaged_and_ten_always(members: int, limit: int) -> None:
    """Of all chosen pictures, `members` of each class and two held out of each."""

    def with_damaged(count: int) -> Numbered:
        damaged = frozenset(("train", i) for i in range(count))
        return numbered(labels(members, members), labels(2, 2), class_names=("cat", "dog"), damaged=damaged)

    assert len(prepared(with_damaged(limit)).skipped) == limit
    message = refusal(with_damaged(limit + 1))
    assert f"more than {limit} pictures are unreadable, the first: train[0] is damaged, train[1] is damaged" in message
    assert "train[3]" not in message


def test_a_stated_limit_counts() -> None:
    damaged = frozenset({("train", 3), ("train", 4)})
    catalogue = numbered(labels(9, 9, 9), damaged=damaged)
    assert "more than 1 pictures" in refusal(catalogue, max_unreadable=1)
    assert "data 'numbers': train[3] is damaged" in refusal(catalogue, max_unreadable=0)
    assert len(prepared(catalogue, max_unreadable=2).skipped) == 2
    assert "max_unreadable" in refusal(catalogue, max_unreadable=-1)


def test_a_class_of_which_nothing_can_be_read_is_refused() -> None:
    damaged = frozenset({("val", 1), ("val", 4)})
    message = refusal(numbered(labels(9, 9, 9), labels(2, 2, 2), damaged=damaged))
    assert "has no readable held-out image of class 'dog'" in message


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        ([0, 1, 2, 3, 5], None, "train[3] has label 3; 3 classes are 0 to 2 (2 labels are out of range)"),
        ([0, 1, 2], [0, 1, -1], "val[2] has label -1; 3 classes are 0 to 2;"),
        ([], None, "has no training image"),
        ([0, 1, 2], [], "has no held-out image"),
        ([0, 0, 1], [0, 1, 2], "has no training image of class 'owl'"),
        ([0, 1, 2], [1, 1], "has no held-out image of class 'cat' and of 1 other classes"),
        ([0, 0, 1, 1, 2], None, "has one picture alone of class 'owl', so none can be held out"),
    ],
)
def test_labels_that_do_not_fit_are_refused(train: list[int], val: list[int] | None, words: str) -> None:
    sides = [None if side is None else np.array(side, dtype=np.int64) for side in (train, val)]
    assert words in refusal(numbered(sides[0], sides[1]))  # type: ignore[arg-type]


def test_one_class_is_refused() -> None:
    assert "has one class alone (cat)" in refusal(numbered(labels(5), class_names=("cat",)))
