"""Picture files: every kind becomes 8-bit RGB or is refused by name, and none brings anything else about."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lightning_xai.data import CMNISTDataModule, DigitsDataModule, pictures
from lightning_xai.data.pictures import (
    SUFFIXES,
    RefusedPicture,
    content_digest,
    find_pictures,
    printable,
    read_picture,
)

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
COLOR = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
ORIENTED = {  # EXIF's tag 274: what was done to the upright picture
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


def stored(folder, name, image, **options):
    path = folder / name
    image.save(path, **options)
    return path


def pixels(path):
    image = read_picture(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def frames(number=2):
    first, *others = (Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(number))
    return {"im": first, "save_all": True, "append_images": others}


def animated(path, **options):
    arguments = frames()
    arguments.pop("im").save(path, **arguments, **options)
    return path


def bytes_of(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "A.WEBP", "misnamed.jpg"])
def test_colors_stay_as_they_are(tmp_path, name):
    kind = {"misnamed.jpg": "PNG", "A.WEBP": "WEBP"}.get(name)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(pixels(stored(tmp_path, name, Image.fromarray(COLOR), format=kind, **options)), COLOR)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_grayscale_has_three_equal_channels(tmp_path, name):
    expected = np.repeat(GRAY[..., None], 3, 2)
    np.testing.assert_array_equal(pixels(stored(tmp_path, name, Image.fromarray(GRAY))), expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_of_16_bits_the_brightest_is_white(tmp_path, name):
    """A gray level of 8 bits is 257 times as much in 16."""
    image = Image.fromarray(GRAY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(pixels(stored(tmp_path, name, image))[..., 0], GRAY)


def test_sixteen_bits_are_rounded(tmp_path):
    values = np.array([[0, 128, 129, 65406, 65407, 65535]], dtype=np.uint16)
    found = pixels(stored(tmp_path, "a.png", Image.fromarray(values)))[0, :, 0]
    assert found.tolist() == [0, 0, 1, 254, 255, 255]


def test_black_and_white_and_palettes(tmp_path):
    two = Image.fromarray(GRAY > 127)
    np.testing.assert_array_equal(pixels(stored(tmp_path, "two.png", two))[..., 0], 255 * (GRAY > 127))
    palette = Image.fromarray(COLOR).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    for name in ("a.png", "a.gif", "a.tif", "a.bmp"):
        np.testing.assert_array_equal(pixels(stored(tmp_path, name, palette)), expected)


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_cmyk_is_ink_on_white(tmp_path, name):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert abs(pixels(stored(tmp_path, name, image)).astype(int) - [0, 255, 255]).max() <= 2


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_transparency_is_laid_on_white(tmp_path, name):
    alpha = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    image = Image.fromarray(np.dstack([COLOR, alpha]))
    share = alpha[..., None] / 255
    expected = share * COLOR + (1 - share) * 255
    assert abs(pixels(stored(tmp_path, name, image, **options)) - expected).max() <= 1


def test_other_kinds_of_transparency(tmp_path):
    """Of grayscale, of a palette, and of a gray level or color that stands for nothing."""
    half = stored(tmp_path, "la.png", Image.merge("LA", [Image.new("L", (2, 2), c) for c in (0, 128)]))
    assert np.unique(pixels(half)).tolist() == [127]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        path = stored(tmp_path, "p.png", palette, transparency=transparency)
        assert pixels(path).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    for image, transparent in (
        (Image.fromarray(np.array([[7, 8]], dtype=np.uint8)), 7),
        (Image.fromarray(np.array([[7000, 8 * 257]], dtype=np.uint16)), 7000),
        (Image.fromarray(np.array([[[1, 2, 3], [8, 8, 8]]], dtype=np.uint8)), (1, 2, 3)),
    ):
        path = stored(tmp_path, "t.png", image, transparency=transparent)
        assert pixels(path).tolist() == [[[255] * 3, [8] * 3]]


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("depth", [8, 16])
def test_turned_pictures_stand_upright(tmp_path, orientation, depth):
    upright = Image.fromarray(GRAY if depth == 8 else GRAY.astype(np.uint16) * 257)
    turned = upright
    for operation in ORIENTED[orientation]:
        turned = turned.transpose(operation)
    exif = Image.Exif()
    exif[274] = orientation
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(pixels(stored(tmp_path, name, turned, exif=exif))[..., 0], GRAY)


def test_a_turned_jpeg_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    image = Image.new("L", (32, 16))
    image.paste(255, (0, 0, 16, 16))  # bright at the left, which is the top of the upright picture... turned by 90°
    found = pixels(stored(tmp_path, "a.jpg", image, exif=exif))
    assert found.shape == (32, 16, 3)
    assert found[:12].min() > 240
    assert found[20:].max() < 15


def test_the_first_picture_of_a_telephone_is_taken(tmp_path):
    path = tmp_path / "mpo.jpg"
    animated(path, format="MPO")
    with Image.open(path) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert pixels(path).max() <= 2


def test_a_huge_jpeg_is_decoded_at_a_reduced_size_and_others_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    image = Image.new("RGB", (60, 60), "red")
    assert read_picture(stored(tmp_path, "a.jpg", image)).size == (30, 30)
    assert read_picture(stored(tmp_path, "b.jpg", image.resize((31, 32)))).size == (31, 32), "992 are not too many"
    with pytest.raises(RefusedPicture, match=r"^60 x 60 are more than 1,000 pixels; reduce it$"):
        read_picture(stored(tmp_path, "a.png", image))
    with pytest.raises(RefusedPicture, match=r"^300 x 300 are more than 1,000 pixels; reduce it$"):
        read_picture(stored(tmp_path, "c.jpg", image.resize((300, 300))))  # an eighth is the least


def test_pillow_is_told_nothing_for_good(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_picture(stored(tmp_path, "a.png", Image.new("L", (8, 8)))).size == (8, 8), "Pillow only warns"
    with pytest.raises(RefusedPicture, match="pixels; reduce it"):
        read_picture(stored(tmp_path, "b.png", Image.new("L", (16, 16))))


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("kind", [2, 6])
def test_colors_of_16_bits(tmp_path, kind):
    """With and without an alpha channel; Pillow does not write such files."""
    opaque = np.full((*COLOR.shape[:2], 1), 255, dtype=np.uint8)
    values = (COLOR if kind == 2 else np.concatenate([COLOR, opaque], 2)).astype(">u2") * np.uint16(257)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", COLOR.shape[1], COLOR.shape[0], 16, kind, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(SIGNATURE + head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    np.testing.assert_array_equal(pixels(path), COLOR)


def bomb(side):
    """The head of a PNG file of this size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return SIGNATURE + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


PNG = bytes_of(Image.fromarray(COLOR), "PNG")
JPEG = bytes_of(Image.fromarray(COLOR).resize((64, 64)), "JPEG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^it is empty; replace it$"),
        (b"cat\n" * 100, r"^it is no picture in a format that is read, AVIF, BMP, GIF, JPEG, .*; convert it$"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"no picture in a format that is read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", r"no picture in a format that is read"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"no picture in a format that is read"),
        (PNG[:60], r"^it is damaged or cut short \(.*\); replace it$"),
        (JPEG[: len(JPEG) // 2], r"^it is damaged or cut short \(.*\); replace it$"),
        (PNG.replace(b"IDAT", b"IDAS"), r"^it is no picture in a format that is read, .*, or is damaged; convert it$"),
        (bomb(10_000), r"^10000 x 10000 are more than 89,478,485 pixels; reduce it$"),
        (bomb(100_000), r"^it has more than 178,956,970 pixels; reduce it$"),
        (
            bytes_of(Image.new("L", (4, 201)), "PNG"),
            r"^4 x 201 pixels are a strip, longer than 50 times its width; crop",
        ),
        (
            bytes_of(Image.fromarray(COLOR[..., 0] / np.float32(7)), "TIFF"),
            r"^its pixels are floating-point numbers, of",
        ),
        (
            bytes_of(Image.fromarray(GRAY.astype(np.int32)), "TIFF"),
            r"^its pixels are 32-bit integers, of which white is",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_explained_is_refused(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(RefusedPicture, match=message):
        read_picture(path)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_several_pictures_in_one_file_are_refused(tmp_path, name):
    kind = "pages" if name == "a.tif" else "frames"
    with pytest.raises(RefusedPicture, match=f"^it has 2 {kind}; save the one to be explained as a file of its own$"):
        read_picture(animated(tmp_path / name))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "nowhere.png", "^it does not exist$"),
        (tmp_path / "nowhere" / "a.png", "^it does not exist$"),
        (tmp_path / "pipe", "^it is not a regular file$"),
        (tmp_path, r"^there is no picture in this folder \(\.apng, "),
        ("a\0.png", "^it cannot be read"),
    ):
        for read in (read_picture, content_digest):
            with pytest.raises(RefusedPicture, match=message):
                read(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"])
def test_damage_anywhere_is_a_picture_or_a_refusal(tmp_path, kind):
    """Cut at every tenth, and with one byte in ten changed: no other exception comes out, and no warning."""
    whole = bytes_of(Image.fromarray(COLOR).resize((24, 16)), kind)
    path = tmp_path / "a"
    outcomes = set()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        for content in (whole[:place], bytes(damaged)):
            path.write_bytes(content)
            try:
                outcomes.add(read_picture(path).mode)
            except RefusedPicture as error:
                outcomes.add(type(error))
    assert outcomes == {"RGB", RefusedPicture}


def test_the_digest_is_sha256_of_the_content(tmp_path):
    path = tmp_path / "a"
    content = RANDOM.bytes(3_000_000)
    path.write_bytes(content)
    assert content_digest(path) == hashlib.sha256(content).hexdigest()


def test_a_folder_is_its_pictures_in_order(tmp_path):
    names = ["b.png", "a.JPG", "B/z.tif", "B/a.webp", "A/c/d.heic", "notes.txt", ".hidden.png", ".git/x.png"]
    for name in [*names, "out/explanations.csv", "out/panels/p.png", "out/more/q.png", "panels/r.png"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "A" / "loop").symlink_to(tmp_path)
    (tmp_path / "A" / "other").symlink_to(tmp_path / "B")
    (tmp_path / "B" / "other").symlink_to(tmp_path / "A")
    (tmp_path / "link.gif").symlink_to(tmp_path / "b.png")
    found = [
        path.relative_to(tmp_path).as_posix() for path in find_pictures([tmp_path], ("explanations.csv", "panels"))
    ]
    expected = ["a.JPG", "b.png", "link.gif", "A/c/d.heic", "A/other/a.webp", "A/other/z.tif", "B/a.webp", "B/z.tif"]
    expected += ["B/other/c/d.heic", "out/more/q.png", "panels/r.png"]
    assert found == expected
    assert "out/panels/p.png" in [path.relative_to(tmp_path).as_posix() for path in find_pictures([tmp_path])]


def test_what_is_named_is_given_whatever_it_is(tmp_path):
    (tmp_path / "empty").mkdir()
    named = [tmp_path / "nowhere", tmp_path / "notes.txt", tmp_path / "empty", tmp_path / "notes.txt"]
    assert list(find_pictures(map(str, named))) == named


def test_all_suffixes_that_pillow_writes_these_formats_with_are_known():
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in pictures.FORMATS}
    odd = {".dib", ".pfm", ".j2c", ".jpc", ".jpf", ".jpx", ".avifs", ".mpo"}  # hardly ever pictures to be explained
    assert known - set(SUFFIXES) <= odd


def test_names_are_made_one_line_of_text():
    assert printable("Kätzchen 猫.png") == "Kätzchen 猫.png"
    assert printable("a\nb\tc\x1b[1m.png") == r"a\nb\tc\x1b[1m.png"
    assert printable(os.fsdecode(b"caf\xe9.png")) == r"caf\xe9.png"


def test_a_stored_digit_is_prepared_as_the_data_module_does(tmp_path):
    data = DigitsDataModule()
    data.setup("test")
    (batch,) = (data.test_dataloader().dataset.__getitems__([3, 8]),)
    for pixel, expected in zip(data.load("test").images[[3, 8]], batch["image"], strict=True):
        path = stored(tmp_path, "digit.png", Image.fromarray(pixel[0].numpy()))
        torch.testing.assert_close(data.preprocess(read_picture(path)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "data", [DigitsDataModule(), CMNISTDataModule(download=False)], ids=lambda data: type(data).__name__
)
def test_photographs_are_cut_to_the_center_and_stay_in_the_bounds(data):
    photograph = Image.new("RGB", (90, 40), "white")
    photograph.paste("black", (0, 0, 20, 40))
    photograph.paste("black", (70, 0, 90, 40))
    low, high = data.bounds
    for picture, bound in ((photograph, high), (ImageOps.invert(photograph), low)):
        found = data.preprocess(picture)
        assert found.shape == data.image_shape
        torch.testing.assert_close(found, bound.expand(data.image_shape), rtol=0, atol=0)


# Depths and polarities, as the standards say: 2^bits - 1 is white, or black where white is zero


def tiff(values, bits, photometric=1, order="<", sample_format=1, **tags):
    """A TIFF file of one strip, made by hand; `values` (height, width), and `tags` t274=(type, value)."""
    height, width = values.shape
    lines = []
    for line in values:
        text = "".join(format(int(value), f"0{bits}b") for value in line)
        if bits == 16 and order == "<":
            lines.append(line.astype("<u2").tobytes())
            continue
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        lines.append(bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8)))
    data = b"".join(lines)
    data += b"\0" * (len(data) % 2)
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = {tag: (4 if tag in (273, 279) else 3, value) for tag, value in fields.items()}
    entries |= {339: (3, sample_format)} | {int(name[1:]): entry for name, entry in tags.items()}
    packed = b"".join(
        struct.pack(order + ("HHIHxx" if kind == 3 else "HHII"), tag, kind, 1, value)
        for tag, (kind, value) in sorted(entries.items())
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(entries)) + packed + b"\0" * 4


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grays_of_every_depth_and_polarity(tmp_path, bits, photometric, order):
    if (bits, order) == (12, ">"):
        pytest.skip("Pillow reads 12 bits of the other order only")
    white = 2**bits - 1
    values = np.stack([np.linspace(0, white, 32).round(), RANDOM.integers(0, white + 1, 32)]).astype(np.int64)
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, photometric, order))
    expected = np.floor((values if photometric else white - values) * 255 / white + 0.5)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[..., 0], expected)


@pytest.mark.parametrize("most", [1, 7, 100, 255, 1023, 65535])
def test_grays_up_to_any_number(tmp_path, most):
    values = np.linspace(0, most, 20).round().astype(">u2" if most > 255 else "u1")
    (tmp_path / "a.pgm").write_bytes(b"P5 20 1 %d\n" % most + values.tobytes())
    expected = np.floor(values.astype(float) * 255 / most + 0.5)
    assert abs(pixels(tmp_path / "a.pgm")[0, :, 0] - expected).max() <= (most != 65535 and most > 255)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_signed_numbers_are_refused(tmp_path, bits, order):
    for photometric in (0, 1):
        (tmp_path / "a.tif").write_bytes(tiff(GRAY, bits, photometric, order, sample_format=2))
        with pytest.raises(
            RefusedPicture, match=r"^its pixels are signed numbers, of which black and white are unknown"
        ):
            read_picture(tmp_path / "a.tif")


def test_grays_with_opacity_and_palettes_of_grays(tmp_path):
    opaque = Image.fromarray(np.full_like(GRAY, 255))
    both = stored(tmp_path, "la.png", Image.merge("LA", [Image.fromarray(GRAY), opaque]))
    palette = stored(tmp_path, "p.png", Image.fromarray(GRAY).convert("P"))
    for path in (both, palette):
        np.testing.assert_array_equal(pixels(path), np.repeat(GRAY[..., None], 3, 2))


# Odd metadata


def with_chunk(kind, content, summed=True):
    made = chunk(kind, content)
    return PNG[:33] + (made if summed else made[:-1] + bytes([made[-1] ^ 1])) + PNG[33:]


def with_segment(marker, content):
    return JPEG[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + JPEG[2:]


def exif(orientation, kind=3):
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHI", 1, 274, kind, 1) + orientation + b"\0" * 4


LONG = zlib.compress(b"\0" * (3 << 20))
ODD_EXIF = [b"", b"nonsense", b"II*\0\xff\xff\xff\xff", exif(b"\0\0\0\0"), exif(b"\x09\0\0\0"), exif(b"abc\0", 2)]


@pytest.mark.parametrize(
    "content",
    [
        with_chunk(b"iCCP", b"x\0\0" + LONG),
        with_chunk(b"iCCP", b"no name"),
        with_chunk(b"iCCP", b"x\0\x07"),
        with_chunk(b"zTXt", b"x\0\0" + LONG),
        with_chunk(b"iTXt", b""),
        *(with_chunk(kind, b"\1") for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"sPLT", b"bKGD")),
        *(with_chunk(kind, b"\0" * 9, summed=False) for kind in (b"pHYs", b"tEXt", b"abCd")),
        *(with_chunk(b"eXIf", odd) for odd in ODD_EXIF),
        *(with_segment(0xE1, b"Exif\0\0" + odd) for odd in ODD_EXIF),
        *(with_segment(marker, b"x") for marker in range(0xE0, 0xF0)),
        with_segment(0xE0, b"JFIF\0\1"),
        with_segment(0xE2, b"ICC_PROFILE\0"),
        with_segment(0xE2, b"MPF\0II*\0"),
        with_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed"),
        with_segment(0xEE, b"Adobe"),
    ],
    ids=lambda content: "",
)
def test_odd_metadata_do_not_refuse_a_sound_picture(tmp_path, content):
    whole = PNG if content.startswith(SIGNATURE) else JPEG
    (tmp_path / "odd").write_bytes(content)
    (tmp_path / "whole").write_bytes(whole)
    np.testing.assert_array_equal(pixels(tmp_path / "odd"), pixels(tmp_path / "whole"))


@pytest.mark.parametrize(
    "tag", [(274, 3, 0), (274, 3, 9), (282, 5, 2**31), (296, 3, 99), (34665, 4, 2**31), (700, 1, 3)]
)
def test_odd_fields_do_not_refuse_a_sound_picture(tmp_path, tag):
    number, kind, value = tag
    (tmp_path / "a.tif").write_bytes(tiff(GRAY, 8, **{f"t{number}": (kind, value)}))
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[..., 0], GRAY)


def test_a_turned_picture_with_other_odd_metadata_stands_upright(tmp_path):
    turned = bytes_of(Image.fromarray(COLOR).transpose(Image.Transpose.ROTATE_90), "PNG", exif=Image.Exif())
    odd = chunk(b"eXIf", exif(b"\x06\0\0\0"))
    path = tmp_path / "a.png"
    path.write_bytes(turned[:33] + odd + turned[33:])
    np.testing.assert_array_equal(pixels(path), COLOR)
