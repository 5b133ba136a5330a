"""Sounds: WAV or FLAC, decoded to mono float32 at their own rate.

Channels are averaged. A file that holds fewer frames than it declares, no frames, a rate outside 1 to 384 kHz, more than 8
channels, more than 10 minutes or numbers that are not finite is refused.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile

from multitune.core import catalog
from multitune.core.protocols import MediaModality, Sound
from multitune.core.randomness import generator

MAX_BYTES = 256 << 20
MAX_SECONDS = 600
MAX_VALUES = 64_000_000  # frames times channels
MAX_CHANNELS = 8
MAX_PEAK = 16.0  # above it the numbers are no wave in -1..1; below, what exceeds 1 is clipped
RATES = (1_000, 384_000)
_OPEN_LENGTHS = {0, 0xFFFFFFFF, 0xFFFFFFFF - 36}


class Options(catalog.Options):
    """No options."""


class Sounds:
    """The modality of sounds; a decoded one is a `Sound`."""

    name = "audio"
    media = True
    towers: tuple[str, ...] = ("audio",)
    max_bytes = MAX_BYTES
    magic: Mapping[str, tuple[tuple[int, bytes], ...]] = {"WAV": ((0, b"RIFF"), (8, b"WAVE")), "FLAC": ((0, b"fLaC"),)}

    def decode(self, value: Any) -> Sound:
        """The sound in a file's bytes, of a `Sound`, or of a pair (wave, rate). Raises ValueError."""
        if isinstance(value, bytes):
            return _from_bytes(value)
        if isinstance(value, Sound):
            return _checked(value.wave, value.rate)
        if isinstance(value, tuple | list) and len(value) == 2:
            return _checked(np.asarray(value[0]), value[1])
        raise ValueError(f"found {type(value).__name__}, not a sound; give a path, bytes or (wave, rate)")

    def measure(self, value: Any) -> tuple[int, ...]:
        """Frames and rate, as a file's header states them. Raises ValueError."""
        if isinstance(value, Sound):
            return len(value.wave), value.rate
        try:
            with soundfile.SoundFile(value) as stream:
                frames, rate = int(stream.frames), int(stream.samplerate)
        except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
            raise ValueError(f"has no header ({type(error).__name__})") from None
        if frames <= 0 or rate <= 0 or frames > MAX_SECONDS * rate:
            raise ValueError("states no length that is taken")
        return frames, rate

    def encode(self, value: Sound) -> tuple[str, bytes]:
        """A WAV of exactly these fractions, float32."""
        wave = np.ascontiguousarray(value.wave, "<f4").tobytes()
        form = struct.pack("<HHIIHHH", 3, 1, value.rate, 4 * value.rate, 4, 32, 0)
        chunks = b"".join(
            name + struct.pack("<I", len(data)) + data
            for name, data in ((b"fmt ", form), (b"fact", struct.pack("<I", len(value.wave))), (b"data", wave))
        )
        return ".wav", b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks

    def synthesize(self, seed: int) -> Sound:
        """A short tone with noise at 16 kHz, 0.2 to 1 second."""
        rng = generator("audio", seed)
        frames = int(rng.integers(3_200, 16_001))
        tone = 0.4 * np.sin(np.arange(frames) * (2 * np.pi * rng.uniform(100, 2_000) / 16_000))
        return Sound((tone + 0.05 * rng.standard_normal(frames)).astype(np.float32), 16_000)


def build(options: Options) -> MediaModality:
    """The modality."""
    return Sounds()


def _from_bytes(data: bytes) -> Sound:
    if data.startswith(b"RIFF"):
        _check_wav(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as stream:
            declared = int(stream.frames)
            _check_form(declared, stream.channels, stream.samplerate)
            wave = stream.read(declared, dtype="float32", always_2d=True)
            rate = int(stream.samplerate)
    except (soundfile.SoundFileError, RuntimeError, TypeError, MemoryError) as error:
        raise ValueError(f"cannot be decoded ({type(error).__name__}: {error})") from None
    if len(wave) != declared:
        raise ValueError(f"was cut: declares {declared:,} frames, holds {len(wave):,}")
    return _checked(wave, rate)


def _check_wav(data: bytes) -> None:
    """Compare what the header declares with what is there; libsndfile quietly gives the frames that it finds."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data) + 1:
        raise ValueError(f"was cut: a WAV of {int.from_bytes(data[4:8], 'little') + 8:,} bytes, found {len(data):,}")
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"data":
            if size in _OPEN_LENGTHS:
                raise ValueError("has no frames" if at + 8 >= len(data) else "declares no length; write it to its end")
            if at + 8 + size > len(data):
                raise ValueError(f"was cut: declares {size:,} bytes of sound, holds {len(data) - at - 8:,}")
            return
        at += 8 + size + size % 2
    raise ValueError("was cut: the WAV has no sound in it")


def _check_form(frames: int, channels: int, rate: int) -> None:
    if frames <= 0:
        raise ValueError("has no frames")
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"has a rate of {rate:,} Hz; {RATES[0]:,} to {RATES[1]:,} are taken")
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"has {channels} channels; 1 to {MAX_CHANNELS} are taken")
    if frames > MAX_SECONDS * rate or frames * channels > MAX_VALUES:
        raise ValueError(f"lasts {frames / rate:,.0f} seconds; at most {MAX_SECONDS} are taken")


def _checked(wave: np.ndarray, rate: Any) -> Sound:
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise ValueError(f"has the rate {rate!r}; a rate is a whole number of Hz")
    if wave.ndim == 2 and wave.shape[0] <= MAX_CHANNELS < wave.shape[1]:
        wave = wave.T  # channels came first
    if wave.ndim not in {1, 2}:
        raise ValueError(f"has shape {wave.shape}; a wave is (frames,) or (frames, channels)")
    _check_form(wave.shape[0], 1 if wave.ndim == 1 else wave.shape[1], int(rate))
    if wave.dtype == np.uint8:
        wave = (wave.astype(np.float32) - 128) / 128
    elif np.issubdtype(wave.dtype, np.signedinteger):
        wave = wave.astype(np.float64) / -float(np.iinfo(wave.dtype).min)
    elif not np.issubdtype(wave.dtype, np.floating):
        raise ValueError(f"holds {wave.dtype}; a wave holds fractions in -1..1 or signed whole numbers")
    mono = wave if wave.ndim == 1 else wave[:, 0] if wave.shape[1] == 1 else wave.mean(axis=1)
    peak = float(np.abs(mono).max())
    if not np.isfinite(peak):
        raise ValueError("holds samples that are not finite")
    if peak > MAX_PEAK:
        raise ValueError(f"holds samples up to {peak:,.0f}; a wave lies in -1..1")
    mono = np.clip(mono, -1.0, 1.0) if peak > 1.0 else mono
    return Sound(np.array(mono, dtype=np.float32), int(rate))
