"""Pictures of every mode and shape become the same square RGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_search.data._decoding import decode
from mvit_search.errors import InputError

GREY = 150


def saved(image: Image.Image, path: Path) -> np.ndarray:
    image.save(path)
    return decode(path, 16)


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
