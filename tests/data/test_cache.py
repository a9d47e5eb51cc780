"""The cache of decoded pictures: built once, shared, bounded, and never the reason why data cannot be loaded."""

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvit_search.data import Cache, ImageSet, load_data
from mvit_search.data._base import bytes_needed
from mvit_search.data.cache import CacheUnusableError, Facts, default_cache, stored
from mvit_search.errors import InputError

SIZE, COUNT = 8, 5
ENTRY_BYTES = 128 + bytes_needed(COUNT, SIZE)
KEYS = [letter * 64 for letter in "abcdef"]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "pictures")


def rows(seed: int = 0, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def put(cache: Cache, key: str, seed: int = 0) -> tuple[np.ndarray, Facts]:
    return stored(cache, key, SIZE, COUNT, lambda: iter(rows(seed)), lambda found: {"mean": float(found.mean())})


def never() -> Iterator[np.ndarray]:
    raise AssertionError("decoded again")


def get(cache: Cache, key: str) -> tuple[np.ndarray, Facts]:
    return stored(cache, key, SIZE, COUNT, never, lambda found: {})


def left(cache: Cache, ending: str = "*") -> list[str]:
    return sorted(path.name for path in cache.folder.glob(f"*.{ending}"))


def test_rows_and_facts_come_back_and_are_decoded_once(cache: Cache) -> None:
    first, facts = put(cache, KEYS[0], seed=3)
    again, same = get(cache, KEYS[0])
    np.testing.assert_array_equal(first, rows(3))
    np.testing.assert_array_equal(again, rows(3))
    assert facts == same == {"mean": float(rows(3).mean())}
    assert isinstance(again, np.memmap)
    assert left(cache, "partial") == []


def test_fewer_rows_than_reserved_leave_a_shorter_file(cache: Cache) -> None:
    found, _ = stored(cache, KEYS[0], SIZE, 100, lambda: iter(rows(count=3)), lambda found: {})
    assert len(found) == 3
    assert (cache.folder / f"{KEYS[0]}.pixels").stat().st_size == 128 + bytes_needed(3, SIZE)


def test_arrays_are_writable_for_torch_and_nobody_else_sees_it(cache: Cache) -> None:
    mine, _ = put(cache, KEYS[0])
    other, _ = get(cache, KEYS[0])
    torch.from_numpy(mine).zero_()  # a read-only array would warn, and warnings are errors here
    assert not mine.any()
    np.testing.assert_array_equal(other, rows())
    np.testing.assert_array_equal(get(cache, KEYS[0])[0], rows())


def _cut(cache: Cache) -> None:
    os.truncate(cache.folder / f"{KEYS[0]}.pixels", ENTRY_BYTES - 1)


def _other_header(cache: Cache) -> None:
    with (cache.folder / f"{KEYS[0]}.pixels").open("r+b") as stream:
        stream.write(b"something else")


def _no_pixels(cache: Cache) -> None:
    (cache.folder / f"{KEYS[0]}.pixels").unlink()


def _no_side(cache: Cache) -> None:
    (cache.folder / f"{KEYS[0]}.json").unlink()


def _half_side(cache: Cache) -> None:
    os.truncate(cache.folder / f"{KEYS[0]}.json", 20)


def _other_facts(cache: Cache) -> None:
    side = cache.folder / f"{KEYS[0]}.json"
    side.write_text(side.read_text().replace("mean", "mode"))


def _no_json(cache: Cache) -> None:
    (cache.folder / f"{KEYS[0]}.json").write_bytes(b"\xff\x00")


@pytest.mark.parametrize("spoil", [_cut, _other_header, _no_pixels, _no_side, _half_side, _other_facts, _no_json])
def test_a_damaged_entry_is_built_anew(cache: Cache, spoil: Callable[[Cache], None]) -> None:
    put(cache, KEYS[0])
    spoil(cache)
    with pytest.raises(AssertionError, match="decoded again"):
        get(cache, KEYS[0])
    put(cache, KEYS[0])
    np.testing.assert_array_equal(get(cache, KEYS[0])[0], rows())


def test_who_has_a_damaged_entry_mapped_does_not_hold_up_its_repair(cache: Cache) -> None:
    held, _ = put(cache, KEYS[0])
    _other_facts(cache)
    put(cache, KEYS[0], seed=1)
    np.testing.assert_array_equal(held, rows(0))
    np.testing.assert_array_equal(get(cache, KEYS[0])[0], rows(1))


BUILDER = """
import os, sys, time
from pathlib import Path
import numpy as np
from mvit_search.data.cache import Cache, stored
folder, log, mode = sys.argv[1:]
def rows():
    with open(log, "ab") as stream:
        stream.write(b"built\\n")
    for row in np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8):
        yield row
        if mode == "hang":
            print("first row", flush=True)
            time.sleep(60)
        time.sleep(0.1)
print("ready", flush=True)
sys.stdin.readline()
found, facts = stored(Cache(Path(folder)), "a" * 64, 8, 5, rows, lambda found: {"sum": int(found.sum())})
print(facts["sum"], int(found.sum()))
"""


def builder(cache: Cache, log: Path, mode: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUILDER, str(cache.folder), str(log), mode]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed_at_work(cache: Cache, log: Path) -> None:
    process = builder(cache, log, "hang")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "first row\n"
    process.kill()
    process.communicate()


def test_processes_that_come_together_build_once(cache: Cache, tmp_path: Path) -> None:
    running = [builder(cache, tmp_path / "log", "build") for _ in range(3)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert said == {f"{rows().sum()} {rows().sum()}\n"}
    assert (tmp_path / "log").read_text() == "built\n"
    assert left(cache, "partial") == []


def test_a_builder_killed_at_work_breaks_nothing(cache: Cache, tmp_path: Path) -> None:
    killed_at_work(cache, tmp_path / "log")
    assert left(cache, "partial") == [f"{KEYS[0]}.partial"]
    assert left(cache, "json") == []
    put(cache, KEYS[0])
    np.testing.assert_array_equal(get(cache, KEYS[0])[0], rows())
    assert left(cache, "partial") == []


def test_what_a_killed_builder_left_gives_way_to_others(cache: Cache, tmp_path: Path) -> None:
    killed_at_work(cache, tmp_path / "log")
    put(Cache(cache.folder, max_bytes=ENTRY_BYTES), KEYS[1])
    assert left(cache, "partial") == []


def test_threads_that_come_together_build_once(cache: Cache) -> None:
    built: list[int] = []
    sums: list[int] = []

    def decoded() -> Iterator[np.ndarray]:
        built.append(1)
        yield from rows()

    def load() -> None:
        sums.append(int(stored(cache, KEYS[0], SIZE, COUNT, decoded, lambda found: {})[0].sum()))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert built == [1]
    assert sums == [int(rows().sum())] * 8


def used_at(cache: Cache, key: str, seconds: int) -> None:
    for path in cache.folder.glob(f"{key}.*"):
        os.utime(path, (seconds, seconds))


def room_for(cache: Cache, entries: int) -> Cache:
    return Cache(cache.folder, max_bytes=entries * (ENTRY_BYTES + 300))  # and their side files


def test_the_longest_unused_gives_way(cache: Cache) -> None:
    for place, key in enumerate(KEYS[:3]):
        put(cache, key, seed=place)
        used_at(cache, key, 1000 + place)
    get(cache, KEYS[0])  # used now: the second is the oldest
    put(room_for(cache, 3), KEYS[3])
    assert left(cache, "pixels") == [f"{key}.pixels" for key in (KEYS[0], KEYS[2], KEYS[3])]
    assert left(cache, "json") == [f"{key}.json" for key in (KEYS[0], KEYS[2], KEYS[3])]
    assert f"{KEYS[1]}.lock" not in left(cache)


def test_what_is_in_use_stays(cache: Cache) -> None:
    held = [put(cache, key)[0][1:3] for key in KEYS[:2]]  # views: an array that others are cut from may be gone
    small = room_for(cache, 2)
    with pytest.raises(CacheUnusableError, match="are in use"):
        put(small, KEYS[2])
    assert left(cache, "pixels") == [f"{key}.pixels" for key in KEYS[:2]]
    assert left(cache, "partial") == []
    del held[0]
    put(small, KEYS[2])
    assert left(cache, "pixels") == [f"{key}.pixels" for key in KEYS[1:3]]


def test_what_is_being_built_stays(cache: Cache) -> None:
    def decoded() -> Iterator[np.ndarray]:
        with pytest.raises(CacheUnusableError, match="in use"):
            put(room_for(cache, 1), KEYS[1])
        yield from rows()

    found, _ = stored(cache, KEYS[0], SIZE, COUNT, decoded, lambda found: {})
    np.testing.assert_array_equal(found, rows())


def test_more_than_the_bound_removes_nothing(cache: Cache) -> None:
    put(cache, KEYS[0])
    with pytest.raises(CacheUnusableError, match=r"needed, the cache holds"):
        put(Cache(cache.folder, max_bytes=ENTRY_BYTES - 1), KEYS[1])
    assert left(cache, "pixels") == [f"{KEYS[0]}.pixels"]


def test_foreign_files_are_neither_counted_nor_removed(cache: Cache) -> None:
    cache.folder.mkdir()
    (cache.folder / "photo.pixels").write_bytes(bytes(10 * ENTRY_BYTES))
    put(room_for(cache, 1), KEYS[0])
    put(room_for(cache, 1), KEYS[1])
    assert left(cache, "pixels") == [f"{KEYS[1]}.pixels", "photo.pixels"]


@contextmanager
def no_file_above(limit: int) -> Iterator[None]:
    """The system refuses to write beyond `limit` bytes of a file, as it does beyond the end of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _unreserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that cannot reserve space: a full disk is met while writing."""
    monkeypatch.setattr("mvit_search.data.cache._reserve", lambda descriptor, needed: None)


@pytest.mark.parametrize("limit", [ENTRY_BYTES - 1, ENTRY_BYTES // 2, 100, 0])
@pytest.mark.parametrize("reserved", [True, False])
def test_a_full_disk_leaves_nothing_behind(
    cache: Cache, limit: int, reserved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reserved:
        _unreserved(monkeypatch)
    with no_file_above(limit), pytest.raises(CacheUnusableError, match="too large"):
        put(cache, KEYS[0])
    assert left(cache) == ["room.lock"]
    put(cache, KEYS[0])


def test_on_a_full_disk_the_longest_unused_gives_way(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, key in enumerate(KEYS[:3]):
        put(cache, key)
        used_at(cache, key, 1000 + place)
    held, _ = get(cache, KEYS[0])
    used_at(cache, KEYS[0], 999)
    real = os.posix_fallocate

    def full(descriptor: int, offset: int, needed: int) -> None:
        if len(left(cache, "pixels")) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, offset, needed)

    monkeypatch.setattr(os, "posix_fallocate", full)
    put(cache, KEYS[3])
    assert left(cache, "pixels") == [f"{key}.pixels" for key in (KEYS[0], KEYS[2], KEYS[3])]
    np.testing.assert_array_equal(held, rows())


def test_a_disk_that_stays_full_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, KEYS[0])

    def full(descriptor: int, offset: int, needed: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CacheUnusableError, match="quota"):
        put(cache, KEYS[1])
    assert left(cache) == ["room.lock"]


def test_an_error_of_the_data_leaves_nothing_behind(cache: Cache) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield rows()[0]
        raise OSError("the archive is gone")  # not the cache's: it must come out as it is

    def refused(found: np.ndarray) -> Facts:
        raise InputError("data", "x", "is refused")

    with pytest.raises(OSError, match="the archive is gone"):
        stored(cache, KEYS[0], SIZE, COUNT, broken, lambda found: {})
    with pytest.raises(InputError):
        stored(cache, KEYS[0], SIZE, COUNT, lambda: iter(rows()), refused)
    assert left(cache) == ["room.lock"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheUnusableError, match="Not a directory"):
        put(Cache(tmp_path / "file" / "images"), KEYS[0])


HOME = str(Path.home() / ".cache" / "mvit-search" / "images")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Cache(Path(HOME))),
        ({"XDG_CACHE_HOME": "/var/x"}, Cache(Path("/var/x/mvit-search/images"))),
        ({"XDG_CACHE_HOME": "relative"}, Cache(Path(HOME))),
        ({"XDG_CACHE_HOME": "/var/x", "MVIT_SEARCH_CACHE": "/srv"}, Cache(Path("/srv/images"))),
        ({"MVIT_SEARCH_CACHE_GIB": "0.5"}, Cache(Path(HOME), 2**29)),
        ({"MVIT_SEARCH_CACHE": "off"}, None),
        ({"MVIT_SEARCH_CACHE": "OFF", "XDG_CACHE_HOME": "/var/x"}, None),
    ],
)
def test_where_the_cache_is(environment: dict[str, str], expected: Cache | None) -> None:
    assert default_cache(environment) == expected


@pytest.mark.parametrize("bound", ["0", "-1", "many", "nan", "inf"])
def test_an_absurd_bound_is_refused(bound: str) -> None:
    with pytest.raises(InputError, match="MVIT_SEARCH_CACHE_GIB"):
        default_cache({"MVIT_SEARCH_CACHE_GIB": bound})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for side, count in (("train", 8), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / side / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / side / name / f"{index}.png")
    return tmp_path / "photos"


def same(one: ImageSet, other: ImageSet) -> bool:
    arrays = ("train_images", "train_labels", "val_images", "val_labels")
    words = ("name", "digest", "class_names", "image_size", "source", "skipped")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays) and all(
        getattr(one, name) == getattr(other, name) for name in words
    )


def test_with_and_without_the_cache_the_data_are_the_same(cache: Cache, photos: Path) -> None:
    (photos / "train" / "cat" / "3.png").write_bytes(b"damaged")
    (photos / "val" / "dog" / "x.png").write_bytes((photos / "train" / "dog" / "0.png").read_bytes())
    built, mapped, resident = (load_data(str(photos), image_size=12, cache=c) for c in (cache, cache, False))
    assert isinstance(mapped.train_images, np.memmap)
    assert type(resident.train_images) is np.ndarray
    assert same(built, mapped)
    assert same(built, resident)
    assert len(mapped.skipped) == 1
    assert "1 of the held-out images is a copy" in mapped.source
    assert len(left(cache, "pixels")) == 1


def test_what_changes_the_pixels_changes_the_key(cache: Cache, photos: Path) -> None:
    for arguments in ({}, {"image_size": 16}, {"max_images": 4}, {"max_images": 4, "seed": 1}, {"fraction": 0.5}):
        load_data(str(photos), **{"image_size": 12, "cache": cache, **arguments})  # type: ignore[arg-type]
    assert len(left(cache, "pixels")) == 5


def test_seeds_share_what_they_do_not_change(cache: Cache, photos: Path) -> None:
    for seed in range(3):
        load_data(str(photos), image_size=12, seed=seed, cache=cache)
    assert len(left(cache, "pixels")) == 1


def test_a_changed_file_of_one_size_and_time_is_seen(cache: Cache, photos: Path) -> None:
    path = photos / "train" / "cat" / "0.bmp"
    Image.new("RGB", (20, 20), (9, 9, 9)).save(path)
    before, status = load_data(str(photos), image_size=12, cache=cache), path.stat()
    Image.new("RGB", (20, 20), (99, 9, 9)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert load_data(str(photos), image_size=12, cache=cache).digest != before.digest


def test_a_stricter_limit_counts_for_what_is_cached(cache: Cache, photos: Path) -> None:
    (photos / "train" / "cat" / "3.png").write_bytes(b"damaged")
    load_data(str(photos), image_size=12, cache=cache)
    with pytest.raises(InputError, match=r"3\.png cannot be read"):
        load_data(str(photos), image_size=12, cache=cache, max_unreadable=0)


@pytest.mark.parametrize("reserved", [True, False])
def test_on_a_full_disk_the_data_are_held_in_memory(
    cache: Cache, photos: Path, reserved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "train" / "cat" / "3.png").write_bytes(b"damaged")  # met twice, told once
    expected = load_data(str(photos), image_size=12, cache=False)
    if not reserved:
        _unreserved(monkeypatch)
    with no_file_above(3000):
        data = load_data(str(photos), image_size=12, cache=cache)
    assert data.digest == expected.digest
    assert data.skipped == expected.skipped
    assert data.source == f"{expected.source}; not cached: File too large"
    assert data.not_cached == "File too large"
    assert not expected.not_cached
    assert left(cache, "pixels") == left(cache, "partial") == []


def test_on_a_full_disk_what_memory_does_not_hold_stops_with_the_reason(
    cache: Cache, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvit_search.data._base._MAX_BYTES", 5000)
    with no_file_above(3000), pytest.raises(InputError, match=r"cannot be cached \(File too large\)"):
        load_data(str(photos), image_size=12, cache=cache)
    load_data(str(photos), image_size=12, cache=cache)  # with a disk, memory is not asked for


def test_the_built_in_digits_are_not_cached(cache: Cache) -> None:
    load_data("digits", image_size=8, cache=cache)
    assert not cache.folder.exists()


def test_off_means_no_file_at_all(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("MVIT_SEARCH_CACHE", "off")
    load_data(str(photos), image_size=12)
    assert not (tmp_path / "xdg").exists()
    monkeypatch.delenv("MVIT_SEARCH_CACHE")
    load_data(str(photos), image_size=12)
    assert len(list((tmp_path / "xdg" / "mvit-search" / "images").glob("*.pixels"))) == 1
