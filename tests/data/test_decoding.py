"""Pictures of every mode and shape become the same square RGB."""

import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_search.data._base import Images
from mvit_search.data._catalogue import Unreadable
from mvit_search.data._decoding import decode, in_order, picture
from mvit_search.errors import InputError

GREY = 150


def saved(image: Image.Image, path: Path) -> np.ndarray:
    """The decoded file, which its bytes alone give too."""
    image.save(path)
    pixels = decode(path, 16)
    np.testing.assert_array_equal(picture(path.read_bytes(), "bytes", 16), pixels)
    return pixels


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("1", "png"), ("P", "png"), ("P", "gif"), ("RGB", "bmp"), ("RGBA", "png"), ("LA", "png"),
     ("CMYK", "jpg"), ("CMYK", "tif"), ("RGB", "webp"), ("L", "jpg"), ("YCbCr", "jpg")],
)  # fmt: skip
def test_modes(mode: str, suffix: str, tmp_path: Path) -> None:
    value = 255 if mode == "1" else GREY
    image = Image.new("RGB", (40, 30), (value, value, value))
    converted = image.quantize(8) if mode == "P" else image.convert(mode)
    pixels = saved(converted, tmp_path / f"image.{suffix}")
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), value, atol=3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_range(suffix: str, tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    pixels = saved(Image.fromarray(ramp), tmp_path / f"ramp.{suffix}")
    assert pixels[0, 0, 0] < 10
    assert pixels[0, -1, 0] > 245
    assert abs(int(pixels[8, 8, 0]) - 132) < 12


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    np.testing.assert_array_equal(saved(image, tmp_path / "clear.png"), 255)


def test_palette_with_transparent_entries(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.save(tmp_path / "p.png", transparency=bytes([255, 0]))
    np.testing.assert_array_equal(decode(tmp_path / "p.png", 16), 255)


def test_floating_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="floating-point"):
        saved(Image.new("F", (20, 20), 0.5), tmp_path / "f.tif")


@pytest.mark.parametrize("size", [(300, 3), (3, 300), (1, 1), (16, 16), (2000, 1500)])
def test_any_shape(size: tuple[int, int], tmp_path: Path) -> None:
    assert saved(Image.new("RGB", size, (GREY,) * 3), tmp_path / "x.jpg").shape == (16, 16, 3)


def test_the_central_square_is_kept(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 255
    assert saved(Image.fromarray(wide), tmp_path / "wide.png")[:, 2:-2].min() > 240


def test_exif_orientation_turns_the_image(tmp_path: Path) -> None:
    left_bright = np.zeros((32, 32, 3), dtype=np.uint8)
    left_bright[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(left_bright).save(tmp_path / "turned.jpg", exif=exif)
    pixels = decode(tmp_path / "turned.jpg", 16)
    assert pixels[:6].mean() > 240
    assert pixels[-6:].mean() < 15


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png"):
        decode(tmp_path / "gone.png", 16)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_bytes_that_are_no_image_are_unreadable_by_name(content: bytes) -> None:
    found = picture(content, "set.tar:a.png", 16)
    assert isinstance(found, Unreadable)
    assert found.name == "set.tar:a.png"
    assert found.reason.startswith("cannot be read as an image (")
    assert "0x" not in found.reason  # no address in memory: the same picture gives the same words


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_cut_file_of_every_length_is_unreadable_or_whole(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "gif", "webp", "tif"):
        Image.effect_noise((24, 24), 50).convert("RGB").save(tmp_path / f"x.{suffix}")
        content = (tmp_path / f"x.{suffix}").read_bytes()
        whole = picture(content, suffix, 16)
        for length in range(0, len(content) - 1, 23):
            cut = picture(content[:length], suffix, 16)
            assert isinstance(cut, Unreadable) or np.array_equal(cut, whole)


def numbered(chunk: Sequence[int]) -> list[Images | Unreadable]:
    time.sleep(0.002 * (chunk[0] % 3))  # later ones are often done first
    return [Unreadable(str(number), "") for number in chunk]


def test_many_threads_keep_the_order() -> None:
    chunks = [list(range(start, start + 3)) for start in range(0, 300, 3)]
    assert [one.name for one in in_order(numbered, chunks) if isinstance(one, Unreadable)] == [*map(str, range(300))]


def test_few_chunks_are_under_way_at_once() -> None:
    taken: list[int] = []

    def endless() -> Iterator[list[int]]:
        for number in count():
            taken.append(number)
            yield [number]

    found = in_order(numbered, endless())
    for _ in range(10):
        next(found)
    found.close()  # type: ignore[attr-defined]
    assert len(taken) <= 10 + 2 * 16 + 1


def test_what_fails_while_chunks_are_read_comes_out() -> None:
    def broken() -> Iterator[list[int]]:
        yield [0]
        raise InputError("data", "x", "is cut off")

    with pytest.raises(InputError, match="is cut off"):
        list(in_order(numbered, broken()))
