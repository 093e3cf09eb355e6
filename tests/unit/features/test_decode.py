"""workers.features.decode: what becomes of every kind of picture, and of what is none."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from workers.contract import schemas
from workers.features.decode import BadImage, decode, reduction, resize

Pixels = npt.NDArray[np.uint8]

RED, GREEN, BLUE, YELLOW = (200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112


def quarters(width: int = 64, height: int = 48) -> Pixels:
    """uint8 (height, width, 3): another colour in each quarter, so that every turn shows."""
    pixels = np.zeros((height, width, 3), np.uint8)
    down, across = height // 2, width // 2
    pixels[:down, :across], pixels[:down, across:] = RED, GREEN
    pixels[down:, :across], pixels[down:, across:] = BLUE, YELLOW
    return pixels


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    """uint8 (height, width, 3) of grey grain in [64, 192)."""
    grain = np.random.default_rng(seed).integers(64, 192, (height, width, 1), np.uint8)
    return np.repeat(grain, 3, axis=2)


def encoded(picture: Image.Image | Pixels, format: str, **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width: int, height: int, depth: int, colour: int, rows: Iterable[bytes]) -> bytes:
    """A PNG by hand, for the kinds that Pillow does not write. `colour` is 0 for grey, 2 for RGB."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    scanlines = zlib.compress(b"".join(b"\0" + row for row in rows))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", scanlines) + chunk(b"IEND", b"")


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def tf1_resize(pixels: Pixels, width: int, height: int) -> npt.NDArray[np.float64]:
    """`tf.compat.v1.image.resize_bilinear`: float64 (height, width, 3)."""
    rows = np.arange(height) * pixels.shape[0] / height
    columns = np.arange(width) * pixels.shape[1] / width
    top, left = rows.astype(int), columns.astype(int)
    bottom = np.minimum(top + 1, pixels.shape[0] - 1)
    right = np.minimum(left + 1, pixels.shape[1] - 1)
    across = (columns - left)[None, :, None]
    down = (rows - top)[:, None, None]
    of = pixels.astype(np.float64)
    upper = of[top][:, left] * (1 - across) + of[top][:, right] * across
    lower = of[bottom][:, left] * (1 - across) + of[bottom][:, right] * across
    result: npt.NDArray[np.float64] = upper * (1 - down) + lower * down
    return result


def box_average(pixels: Pixels, factor: int) -> Pixels:
    """Means of factor x factor blocks, for sides that factor divides."""
    height, width, _ = pixels.shape
    blocks = pixels.reshape(height // factor, factor, width // factor, factor, 3)
    means: Pixels = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return means


def difference(left: npt.NDArray[np.generic], right: npt.NDArray[np.generic]) -> float:
    """The largest difference between two pictures of one shape."""
    assert left.shape == right.shape
    return float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max())


def decoded_or_bad(data: bytes, width: int, height: int) -> Pixels | BadImage:
    try:
        return decode(data, width, height)
    except BadImage as bad:
        return bad


def as_mode(mode: str) -> Image.Image:
    return Image.fromarray(quarters()).convert(mode)


def animation() -> bytes:
    later = Image.new("RGB", (64, 48), (255, 255, 255))
    return encoded(quarters(), "GIF", save_all=True, append_images=[later, later])


def colour_formats() -> dict[str, bytes]:
    """The four quarters in every format and kind that holds their colours, within 8."""
    few_colours = as_mode("RGB").quantize(4)
    see_through = as_mode("RGBA")
    see_through.putalpha(0)
    deep = [
        b"".join(struct.pack(">HHH", *(pixel.astype(int) * 257)) for pixel in row) for row in quarters()
    ]
    return {
        "baseline JPEG": encoded(quarters(), "JPEG", quality=95, subsampling=0),
        "progressive JPEG": encoded(quarters(), "JPEG", quality=95, subsampling=0, progressive=True),
        "CMYK JPEG": encoded(as_mode("CMYK"), "JPEG", quality=95),
        "RGB PNG": encoded(quarters(), "PNG"),
        "palette PNG": encoded(few_colours, "PNG"),
        "palette PNG with a see-through colour": encoded(few_colours, "PNG", transparency=0),
        "PNG with alpha": encoded(see_through, "PNG"),
        "16-bit RGB PNG": png(64, 48, 16, 2, deep),
        "animated GIF": animation(),
        "BMP": encoded(quarters(), "BMP"),
        "palette BMP": encoded(few_colours, "BMP"),
        "lossy WebP": encoded(quarters(), "WEBP", quality=95),
        "lossless WebP": encoded(quarters(), "WEBP", lossless=True),
        "WebP with alpha": encoded(see_through, "WEBP", lossless=True, exact=True),
    }


def middles(pixels: Pixels) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters."""
    height, width, _ = pixels.shape
    places = [(height // 4, width // 4), (height // 4, -width // 4)]
    places += [(-height // 4, width // 4), (-height // 4, -width // 4)]
    return [tuple(int(value) for value in pixels[place]) for place in places]


@pytest.mark.parametrize("kind", colour_formats())
def test_every_kind_of_colour_picture_keeps_its_colours(kind: str) -> None:
    # When a picture of four colours is decoded at its own size
    pixels = decode(colour_formats()[kind], 64, 48)

    # Then it is an RGB array with each colour in its quarter
    assert pixels.dtype == np.uint8
    assert pixels.shape == (48, 64, 3)
    assert difference(np.array(middles(pixels)), np.array([RED, GREEN, BLUE, YELLOW])) <= 8


@pytest.mark.parametrize("kind", colour_formats())
@pytest.mark.parametrize(("width", "height"), [(299, 299), (7, 5), (1, 1), (64, 200)])
def test_every_kind_of_picture_comes_in_the_size_asked_for(kind: str, width: int, height: int) -> None:
    assert decode(colour_formats()[kind], width, height).shape == (height, width, 3)


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.new("L", (16, 16), 129), "JPEG"),
        encoded(Image.new("L", (16, 16), 129), "PNG"),
        encoded(Image.new("LA", (16, 16), (129, 7)), "PNG"),
        encoded(Image.new("L", (16, 16), 129), "GIF"),
        encoded(Image.new("L", (16, 16), 129), "BMP"),
        png(16, 16, 16, 0, [struct.pack(">H", 129 * 256 + 200) * 16] * 16),
    ],
    ids=["JPEG", "PNG", "PNG with alpha", "GIF", "BMP", "16-bit PNG"],
)
def test_a_grey_picture_has_its_grey_in_all_three_channels(data: bytes) -> None:
    assert difference(decode(data, 16, 16), np.full((16, 16, 3), 129, np.uint8)) <= 1


def test_a_16_bit_grey_picture_keeps_its_high_byte_over_the_whole_range() -> None:
    # Given every 256th grey, from black to nearly white
    rows = [b"".join(struct.pack(">H", value * 256) for value in range(256))] * 4

    # Then each is its high byte
    pixels = decode(png(256, 4, 16, 0, rows), 256, 4)
    assert pixels[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP"])
def test_a_1_bit_picture_is_black_and_white(format: str) -> None:
    image = Image.new("1", (16, 16), 0)
    image.paste(1, (8, 0, 16, 16))
    pixels = decode(encoded(image, format), 16, 16)
    assert pixels[4, 4].tolist() == [0, 0, 0]
    assert pixels[4, 12].tolist() == [255, 255, 255]


def test_alpha_is_dropped_and_not_blended() -> None:
    # Given red that is wholly transparent
    image = Image.new("RGBA", (8, 8), (*RED, 0))

    # Then it is red, and neither black nor white
    assert decode(encoded(image, "PNG"), 8, 8)[4, 4].tolist() == list(RED)


TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_is_turned_by_its_exif_orientation(orientation: int, format: str) -> None:
    # Given a picture that lies as the camera held it
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {"lossless": True}
    data = encoded(quarters(), format, exif=with_orientation(orientation), **options)

    # Then it is the picture turned by hand
    turned = TURNED[orientation](quarters())
    height, width, _ = turned.shape
    assert difference(decode(data, width, height), turned) <= 4


@pytest.mark.parametrize("orientation", TURNED)
def test_a_large_picture_is_turned_after_it_is_reduced(orientation: int) -> None:
    # Given a picture eight times as large, so that it is decoded at an eighth
    data = encoded(
        quarters(512, 384), "JPEG", quality=95, subsampling=0, exif=with_orientation(orientation)
    )
    turned = TURNED[orientation](quarters())
    height, width, _ = turned.shape
    assert difference(decode(data, width, height), turned) <= 4


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_picture_on_its_side_is_reduced_as_it_lies(orientation: int) -> None:
    # Given grain, eight times as wide and as high as the target once it is turned
    whole = noise(512, 64)
    data = encoded(whole, "PNG", exif=with_orientation(orientation))
    averaged = TURNED[orientation](box_average(whole, 8))
    assert averaged.shape == (64, 8, 3)
    assert difference(decode(data, 8, 64), averaged) <= 1


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    data = encoded(quarters(), "PNG", exif=with_orientation(orientation))
    assert difference(decode(data, 64, 48), quarters()) == 0


def exif_entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("entries", "orientation"),
    [
        pytest.param([b"nonsense"], 1, id="no EXIF at all"),
        pytest.param([exif_entry(ORIENTATION, 2, 4, b"six")], 1, id="orientation in words"),
        pytest.param(
            [exif_entry(ORIENTATION, 3, 1, b"\x06\0"), exif_entry(0x011B, 2, 4, b"abc")],
            6,
            id="resolution in words",
        ),
    ],
)
def test_a_broken_exif_block_does_not_spoil_the_picture(entries: list[bytes], orientation: int) -> None:
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    data = encoded(quarters(), "JPEG", quality=95, subsampling=0, exif=block)
    turned = TURNED[orientation](quarters())
    assert difference(decode(data, turned.shape[1], turned.shape[0]), turned) <= 4


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.95])
def test_a_truncated_picture_is_corrupt(format: str, part: float) -> None:
    # Given a picture whose upload broke off
    data = encoded(noise(96, 80), format)
    with pytest.raises(BadImage) as bad:
        decode(data[: int(len(data) * part)], 32, 32)
    assert bad.value.failure.status == "corrupt"
    assert bad.value.failure.reason


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.95])
def test_a_truncated_picture_with_exif_is_corrupt(part: float) -> None:
    data = encoded(noise(96, 80), "PNG", exif=with_orientation(6))
    with pytest.raises(BadImage) as bad:
        decode(data[: int(len(data) * part)], 32, 32)
    assert bad.value.failure.status == "corrupt"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_a_picture_cut_anywhere_in_its_header_is_a_bad_image(format: str) -> None:
    data = encoded(quarters(), format)
    for length in range(1, 24):
        with pytest.raises(BadImage) as bad:
            decode(data[:length], 32, 32)
        assert bad.value.failure.status in ("unsupported", "corrupt")


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", "empty", "no bytes"),
        (b"\n <!DOCTYPE html><html><body>404</body></html>", "unsupported", "HTML"),
        (b"<HTML></HTML>", "unsupported", "HTML"),
        (b'<?xml version="1.0"?><Error/>', "unsupported", "XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported", "SVG"),
        (encoded(quarters(), "TIFF"), "unsupported", "TIFF"),
        (encoded(quarters(), "PPM"), "unsupported", "not a JPEG"),
        (random.Random(1).randbytes(5000), "unsupported", "not a JPEG"),
        (b"just some words", "unsupported", "not a JPEG"),
    ],
    ids=["nothing", "HTML", "HTML in capitals", "XML", "SVG", "TIFF", "PPM", "random", "text"],
)
def test_what_is_no_picture_is_told_apart(data: bytes, status: str, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as bad:
        decode(data, 32, 32)
    assert bad.value.failure.status == status
    assert bad.value.failure.status in schemas.LASTING_FAILURES
    assert "\n" not in bad.value.failure.reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (12_000, 10_000), (100_000_001, 1)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    # Given a few bytes that claim hundreds of megapixels
    bomb = png(width, height, 8, 2, [])

    # Then it is refused, and nothing is decoded
    with pytest.raises(BadImage) as bad:
        decode(bomb, 32, 32)
    assert bad.value.failure.status == "too_large"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_exactly_the_limit_is_not_too_large() -> None:
    with pytest.raises(BadImage) as bad:
        decode(png(100_000, 1_000, 1, 0, []), 32, 32)
    assert bad.value.failure.status == "corrupt"


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error")])
@pytest.mark.parametrize(("where", "what"), [(ImageFile.ImageFile, "load"), (Image, "open")])
def test_a_picture_that_finds_no_memory_is_not_called_corrupt(
    where: object, what: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker, or a later run, may have the memory."""

    def fails(*_: object, **__: object) -> None:
        raise error

    data = encoded(quarters(), "PNG")
    monkeypatch.setattr(where, what, fails)
    with pytest.raises(BadImage) as bad:
        decode(data, 32, 32)
    assert bad.value.failure.status == "no_memory"
    assert bad.value.failure.status in schemas.PASSING_FAILURES


@pytest.mark.parametrize(
    ("size", "target", "factor"),
    [
        ((299, 299), (299, 299), 1),
        ((597, 1000), (299, 299), 1),
        ((598, 598), (299, 299), 2),
        ((1195, 1196), (299, 299), 2),
        ((1196, 1196), (299, 299), 4),
        ((2392, 2392), (299, 299), 8),
        ((2392, 2391), (299, 299), 4),
        ((40_000, 40_000), (299, 299), 8),
        ((40_000, 10), (299, 299), 1),
        ((800, 400), (200, 50), 4),
        ((10, 10), (299, 299), 1),
    ],
)
def test_the_reduction_leaves_both_sides_at_least_as_large_as_the_target(
    size: tuple[int, int], target: tuple[int, int], factor: int
) -> None:
    assert reduction(size, target) == factor


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_picture_is_averaged_before_it_is_resized(format: str, factor: int) -> None:
    # Given grain that a bilinear sample of the whole picture would keep
    whole = noise(64 * factor, 48 * factor)
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}

    # When it is decoded at a size that a reduction reaches
    pixels = decode(encoded(whole, format, **options), 64, 48)

    # Then it is the average of blocks: a JPEG's DCT at 1/factor gives nearly that
    averaged = box_average(whole, factor)
    apart = np.abs(pixels.astype(int) - averaged.astype(int))
    assert apart.mean() < (4 if format == "JPEG" else 0.6)
    unreduced = np.abs(tf1_resize(whole, 64, 48) - averaged)
    assert unreduced.mean() > 15


def test_a_large_photo_at_reduced_scale_is_close_to_a_full_decode_then_averaged() -> None:
    # Given a smooth picture, and a target that no reduction reaches exactly
    down, across = np.mgrid[0:1200, 0:1600]
    waves = [np.sin(across / 90 + phase) * np.cos(down / 70) * 100 + 128 for phase in (0, 1, 2)]
    data = encoded(np.stack(waves, axis=2).astype(np.uint8), "JPEG", quality=95)
    full = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    # Then decoding at a quarter differs by little from averaging after
    assert reduction((1600, 1200), (299, 299)) == 4
    expected = tf1_resize(box_average(full, 4), 299, 299)
    assert difference(decode(data, 299, 299), expected) <= 6


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((37, 23), (10, 7)),
        ((40, 40), (20, 20)),
        ((64, 48), (63, 47)),
        ((64, 48), (64, 48)),
        ((5, 4), (31, 29)),
        ((10, 10), (21, 35)),
        ((3, 50), (20, 11)),
        ((50, 3), (11, 20)),
        ((1, 1), (9, 9)),
        ((2, 1), (299, 299)),
        ((300, 200), (299, 299)),
    ],
)
def test_resizing_is_what_tensorflow_1_does(source: tuple[int, int], target: tuple[int, int]) -> None:
    # Given grain, where every wrong weight shows
    pixels = np.random.default_rng(3).integers(30, 256, (source[1], source[0], 3), np.uint8)

    # Then each pixel is the formula's, rounded
    assert difference(resize(pixels, *target), tf1_resize(pixels, *target)) <= 0.51


@pytest.mark.parametrize("source", [(60_000, 20), (20, 60_000)])
def test_a_long_strip_is_resized_too(source: tuple[int, int]) -> None:
    """Longer than the 16 bits that image libraries like to count pixels with."""
    pixels = np.random.default_rng(4).integers(0, 256, (source[1], source[0], 3), np.uint8)
    assert difference(resize(pixels, 299, 299), tf1_resize(pixels, 299, 299)) <= 2


def test_an_enlarged_white_picture_has_no_black_edge() -> None:
    white = np.full((2, 3, 3), 255, np.uint8)
    assert resize(white, 299, 299).min() == 255


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_flipped_bytes_give_pixels_or_a_bad_image_and_nothing_else(format: str) -> None:
    chance = random.Random(2024)
    exif = {} if format == "GIF" else {"exif": with_orientation(6)}
    valid = encoded(quarters(48, 40), format, **exif)
    for _ in range(200):
        data = bytearray(valid)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        outcome = decoded_or_bad(bytes(data), 31, 33)
        if isinstance(outcome, BadImage):
            assert outcome.failure.status in schemas.LASTING_FAILURES
            assert outcome.failure.reason
        else:
            assert outcome.shape == (33, 31, 3)
            assert outcome.dtype == np.uint8
