"""The decode gate: the whole value or a clear refusal, never half of one, and never a wait."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageFile

from multitune.core import catalog
from multitune.core.protocols import Media, Part, Sound
from multitune.data.decode import BadPart, measured, modality, opened
from multitune.data.sample import sample
from tests.data.plain import picture, png, wav

MODALITIES = catalog.names("modality")


def image(data: Any) -> np.ndarray:
    value = Media("k", data=data) if isinstance(data, bytes) else data
    return opened(Part("image", value)).value


def sound(data: Any) -> Sound:
    value = Media("k", data=data) if isinstance(data, bytes) else data
    return opened(Part("audio", value)).value


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def smooth(side: int = 48) -> Image.Image:
    return Image.fromarray(picture(0, 6)).resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", MODALITIES)
def test_a_made_up_value_passes_its_own_gate_unchanged(name: str) -> None:
    for seed in range(3):
        value = modality(name).synthesize(seed)
        again = opened(Part(name, value)).value
        same = np.array_equal(again.wave, value.wave) if isinstance(value, Sound) else np.array_equal(again, value)
        assert same


def test_a_png_gives_its_own_pixels() -> None:
    assert np.array_equal(image(png(picture(1))), picture(1))


@pytest.mark.parametrize(
    ("form", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True})]
)
def test_a_picture_that_was_cut_anywhere_is_refused(form: str, options: dict[str, Any]) -> None:
    data = saved(smooth(), form, **options)
    image(data)
    for cut in range(0, len(data), max(1, len(data) // 300)):
        with pytest.raises(BadPart):
            image(data[:cut])


def test_a_cut_picture_is_refused_even_where_a_library_switched_truncated_images_on(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(smooth(), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadPart):
        image(data[: len(data) // 2] + b"\xff\xd9")


def test_one_flipped_bit_in_a_png_is_refused() -> None:
    data = bytearray(png(picture(2)))
    for place in range(60, len(data) - 12, 97):
        data[place] ^= 1
        with pytest.raises(BadPart):
            image(bytes(data))
        data[place] ^= 1


@pytest.mark.parametrize("options", [{}, {"subtype": "FLOAT"}, {"subtype": "PCM_24"}])
def test_a_wav_that_was_cut_anywhere_is_refused(options: dict[str, Any]) -> None:
    data = wav(1, **options)
    sound(data)
    for cut in range(0, len(data), max(1, len(data) // 200)):
        with pytest.raises(BadPart):
            sound(data[:cut])


def test_a_flac_that_was_cut_anywhere_is_refused() -> None:
    stream = io.BytesIO()
    made = modality("audio").synthesize(3)
    soundfile.write(stream, made.wave, made.rate, format="FLAC")
    data = stream.getvalue()
    assert len(sound(data).wave) == len(made.wave)
    for cut in range(0, len(data), max(1, len(data) // 200)):
        with pytest.raises(BadPart):
            sound(data[:cut])


BOMB = """
import resource, sys, zlib, struct
from multitune.core.protocols import Media, Part
from multitune.data.decode import BadPart, opened
def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
side = int(sys.argv[1])
rows = zlib.compress(bytes(side), 9)
head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
bomb = bytes([137]) + b"PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    opened(Part("image", Media("k", data=bomb)))
except BadPart as error:
    print(error.cause)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("side", [9_000, 11_000, 30_000])
def test_a_pixel_bomb_is_refused_before_it_takes_memory(side: int) -> None:
    answer = subprocess.run([sys.executable, "-c", BOMB, str(side)], capture_output=True, text=True, check=True)
    cause, grown = answer.stdout.splitlines()
    assert "pixels" in cause
    assert int(grown) < 32 << 10  # KiB


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    began = time.monotonic()
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(BadPart, match="not a regular file"):
            opened(Part("image", Media("k", path=path)))
    assert time.monotonic() - began < 1


def test_a_file_over_the_cap_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as stream:
        stream.truncate(modality("image").max_bytes + 1)
    with pytest.raises(BadPart, match="at most"):
        opened(Part("image", Media("k", path=path)))


def test_the_cause_names_no_folder_and_no_address(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"<html>")
    (tmp_path / "half.png").write_bytes(saved(smooth(), "JPEG")[:200] + b"\xff\xd9")
    for name in ("none.png", "bad.png", "half.png"):
        with pytest.raises(BadPart) as caught:
            opened(Part("image", Media("k", path=tmp_path / name)))
        assert str(tmp_path) not in str(caught.value)
        assert "0x" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"<html></html>", b"GIF89a" + b"\0" * 50, b"BM" + b"\0" * 50, b"#EXTM3U\n/etc/passwd"])
def test_other_formats_are_refused_by_their_first_bytes(data: bytes) -> None:
    for read in (image, sound):
        with pytest.raises(BadPart):
            read(data)


def test_exif_rotation_is_applied() -> None:
    upright = smooth(24).crop((0, 0, 24, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert np.array_equal(image(turned), np.array(upright))


def test_alpha_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("LA", (4, 4), (0, 128))
    assert (image(saved(clear, "PNG")) == 255).all()
    assert (abs(image(saved(half, "PNG")).astype(int) - 127) <= 1).all()


def test_a_palette_with_a_clear_colour_is_laid_over_white() -> None:
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (image(saved(palette, "PNG")) == [10, 20, 30]).all()
    assert (image(saved(palette, "PNG", transparency=1)) == 255).all()


def test_sixteen_bits_are_scaled_to_eight() -> None:
    grey = np.array([[0, 257, 65_535]], np.uint16)
    assert image(saved(Image.fromarray(grey), "PNG"))[0, :, 0].tolist() == [0, 1, 255]
    assert image(grey)[0, :, 0].tolist() == [0, 1, 255]


def test_cmyk_and_grey_become_rgb() -> None:
    assert image(saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")).min() > 250
    assert image(saved(Image.new("L", (8, 8), 77), "PNG")).tolist() == np.full((8, 8, 3), 77).tolist()


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("PNG", "WEBP"):
        data = saved(frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {}))
        assert image(data)[0, 0].tolist() == [255, 0, 0]


def test_thin_pictures_pass() -> None:
    for size in ((1, 1), (1, 20_000), (20_000, 1)):
        assert image(saved(Image.new("RGB", size), "PNG")).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "value", [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8), np.zeros(8, np.uint8), 3]
)
def test_an_array_that_is_no_picture_is_refused(value: Any) -> None:
    with pytest.raises(BadPart):
        image(value)


def test_a_picture_in_memory_equals_its_file() -> None:
    made = smooth()
    assert np.array_equal(image(made), image(saved(made, "PNG")))
    assert np.array_equal(image(np.array(made)), image(made))


def test_a_wave_in_memory_equals_its_file() -> None:
    wave = (np.sin(np.arange(800)) * 20_000).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, wave, 8_000, format="WAV")
    file = sound(stream.getvalue())
    assert np.array_equal(sound((wave, 8_000)).wave, file.wave)
    assert np.array_equal(sound((np.stack([wave, wave], axis=1), 8_000)).wave, file.wave)
    assert np.array_equal(sound((np.stack([wave, wave]), 8_000)).wave, file.wave)


def test_a_stereo_file_is_averaged() -> None:
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1), 8_000, format="WAV", subtype="FLOAT")
    assert np.allclose(sound(stream.getvalue()).wave, 0.125)


@pytest.mark.parametrize(
    "value",
    [
        (np.zeros(0, np.float32), 16_000),
        (np.full(9, np.nan, np.float32), 16_000),
        (np.full(9, np.inf, np.float32), 16_000),
        (np.full(9, 32_767.0, np.float32), 16_000),
        (np.zeros(9, np.float32), 1),
        (np.zeros(9, np.float32), 10_000_000),
        (np.zeros(9, np.float32), "16000"),
        (np.zeros((20, 30), np.float32), 16_000),
        (np.zeros(700_000, np.float32), 1_000),
        (np.zeros(9, complex), 16_000),
    ],
)
def test_a_wave_that_is_no_sound_is_refused(value: Any) -> None:
    with pytest.raises(BadPart):
        sound(value)


def test_samples_that_are_not_finite_are_found_in_a_file() -> None:
    stream = io.BytesIO()
    soundfile.write(stream, np.array([0, np.nan, 0], np.float32), 8_000, format="WAV", subtype="FLOAT")
    with pytest.raises(BadPart, match="not finite"):
        sound(stream.getvalue())


def test_a_wav_without_frames_or_without_a_length_is_refused() -> None:
    empty = io.BytesIO()
    soundfile.write(empty, np.zeros(0, np.float32), 8_000, format="WAV")
    streamed = bytearray(wav(2))
    streamed[40:44] = b"\xff\xff\xff\xff"
    for data in (empty.getvalue(), bytes(streamed)):
        with pytest.raises(BadPart):
            sound(data)


def test_the_channels_and_the_length_that_a_header_declares_are_capped() -> None:
    data = bytearray(wav(2))
    data[22:24] = (64).to_bytes(2, "little")
    with pytest.raises(BadPart):
        sound(bytes(data))


@pytest.mark.parametrize(("written", "number"), [("1", 1.0), (" -2.5e-3 ", -0.0025), (".5", 0.5), ("+7.", 7.0)])
def test_a_number_is_read_as_written(written: str, number: float) -> None:
    assert modality("number").decode(written) == number


@pytest.mark.parametrize("written", ["nan", "inf", "1_000", "1,5", "", "0x10", "1e999", "seven", "１"])
def test_what_is_no_finite_number_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="found"):
        modality("number").decode(written)


def test_nul_and_lone_surrogates_are_left_out_of_texts() -> None:
    assert modality("text").decode("a\0b\ud800c ä\u200f") == "abc ä\u200f"


def test_a_url_is_never_fetched(tmp_path: Path) -> None:
    for text in ("http://127.0.0.1/a.png", "HTTPS://x/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA", "s3://b/a.png"):
        with pytest.raises(BadPart, match="URL"):
            sample({"image": text}, {"image": "image"}, id="a", root=tmp_path)


def test_a_relative_path_does_not_leave_the_folder_of_its_table(tmp_path: Path) -> None:
    root = tmp_path / "safe"
    for text in ("../a.png", "b/../../a.png", "../safe_too/a.png", ".."):
        with pytest.raises(BadPart, match="leaves"):
            sample({"image": text}, {"image": "image"}, id="a", root=root)
    for text in ("b/../a.png", "a..b.png", str(tmp_path / "a.png")):
        assert "image" in sample({"image": text}, {"image": "image"}, id="a", root=root).parts


def test_a_medium_is_taken_in_every_form(tmp_path: Path) -> None:
    data, pixels = png(picture(5)), picture(5)
    (tmp_path / "a.png").write_bytes(data)
    forms: list[Any] = ["a.png", tmp_path / "a.png", data, bytearray(data), Image.fromarray(pixels), pixels, {"bytes": data, "path": None}]
    for form in forms:
        part = sample({"image": form}, {"image": "image"}, id="a", root=tmp_path).parts["image"]
        assert np.array_equal(opened(part).value, pixels)
    wave = np.zeros(100, np.float32)
    for form in [(wave, 8_000), Sound(wave, 8_000), {"array": wave, "sampling_rate": 8_000}]:
        part = sample({"audio": form}, {"audio": "audio"}, id="a").parts["audio"]
        assert np.array_equal(opened(part).value.wave, wave)


def test_equal_bytes_have_equal_keys_and_a_changed_file_another(tmp_path: Path) -> None:
    def key(value: Any) -> str:
        return sample({"image": value}, {"image": "image"}, id="a", root=tmp_path).parts["image"].value.key

    (tmp_path / "a.png").write_bytes(b"1")
    before = key("a.png")
    (tmp_path / "a.png").write_bytes(b"22")
    assert before != key("a.png")
    assert key(b"x") == key(b"x") != key(b"y")


def test_absent_parts_are_simply_not_there() -> None:
    made = sample({"image": "", "caption": "  ", "label": None}, {"image": "image", "caption": "text", "label": "category"}, id="a")
    assert made.parts == {}


def test_start_and_end_give_media_their_span() -> None:
    row = {"image": picture(1), "start": "1.5", "end": "2"}
    assert sample(row, {"image": "image"}, id="a").parts["image"].span == (1.5, 2.0)
    assert sample(row | {"end": "late"}, {"image": "image"}, id="a").parts["image"].span is None


@pytest.mark.parametrize("turn", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_as_high_and_wide_as_its_header_says_once_it_is_turned(kind: str, turn: int | None) -> None:
    stream, asked = io.BytesIO(), Image.Exif()
    if turn is not None:
        asked[274] = turn
    Image.new("RGB", (30, 20)).save(stream, kind, exif=asked)
    part = Part("image", Media(key="x", data=stream.getvalue()))
    assert measured(part) == opened(part).value.shape[:2]
    assert measured(Part("image", opened(part).value)) == opened(part).value.shape[:2]
    assert measured(Part("image", Media(key="y", data=stream.getvalue()[:9]))) is None
