"""Sounds of one second at 16 kHz: a motif of five notes in a timbre, over a noise floor."""

from __future__ import annotations

import io
import math
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from multitune.data.sources.chimes.words import Domain

RATE = 16_000
CEILING = 7_400.0  # partials above this are left out, since they would fold back below 8 kHz
LOUDNESS = 0.12  # root mean square of the motif, of full scale 1

Wave = npt.NDArray[np.floating[Any]]
STEPS = {"rising": (0, 1, 2, 3, 4), "falling": (4, 3, 2, 1, 0), "arching": (0, 2, 4, 2, 0), "dipping": (4, 2, 0, 2, 4)}


@dataclass(frozen=True)
class Voice:
    """A timbre: partials as (multiple of the pitch, weight), attack and decay in seconds, vibrato in semitones."""

    partials: tuple[tuple[float, float], ...]
    attack: float
    decay: float
    vibrato: float


VOICES: dict[Domain, dict[str, Voice]] = {
    "base": {
        "flute": Voice(((1, 1), (2, 0.12)), 0.04, 2.0, 0.25),
        "bell": Voice(((1, 1), (2.76, 0.7), (5.4, 0.45)), 0.003, 0.06, 0.0),
        "reed": Voice(((1, 1), (3, 0.75), (5, 0.55), (7, 0.4), (9, 0.3)), 0.015, 2.0, 0.0),
        "harp": Voice(((1, 1), (2, 0.7), (3, 0.5), (4, 0.4), (5, 0.3), (6, 0.25)), 0.004, 0.12, 0.0),
    },
    "target": {
        "flute": Voice(((1, 1), (2, 0.25), (3, 0.06)), 0.03, 1.0, 0.4),
        "bell": Voice(((1, 0.8), (2.6, 0.8), (5.1, 0.5), (7.8, 0.2)), 0.003, 0.045, 0.0),
        "reed": Voice(((1, 0.8), (3, 0.9), (5, 0.5), (7, 0.5), (9, 0.2)), 0.02, 1.0, 0.15),
        "harp": Voice(((1, 0.8), (2, 0.8), (3, 0.6), (4, 0.3), (5, 0.35), (6, 0.15)), 0.006, 0.09, 0.1),
    },
}


@dataclass(frozen=True)
class Floor:
    """The noise that the sounds of a scene share: its root mean square, its colour (-1 dark to 1 bright), its hum."""

    level: float
    colour: float
    hum: float


def floor(rng: np.random.Generator, *, domain: Domain) -> Floor:
    """A noise floor 10 to 30 dB under the motif; in `target` darker and with a mains hum within it."""
    level = LOUDNESS * 10 ** (-rng.uniform(10, 30) / 20)
    if domain == "base":
        return Floor(level, rng.uniform(-0.4, 0.4), 0.0)
    return Floor(level, rng.uniform(-0.9, -0.3), rng.uniform(0.2, 0.6))


def play(rng: np.random.Generator, *, timbre: str, contour: str, scene: Floor, domain: Domain) -> Wave:
    """One second (16,000 values in -1..1): a motif whose lowest note is 250 to 800 Hz, spanning 8 to 16 semitones."""
    voice = VOICES[domain][timbre]
    onset, length = rng.uniform(0.02, 0.1), rng.uniform(0.15, 0.175)
    semitones = np.array(STEPS[contour]) * rng.uniform(2, 4) + rng.uniform(-0.3, 0.3, 5)
    motif = _notes(rng.uniform(250, 800) * 2 ** (semitones / 12), voice, seconds=length, tremor=rng.uniform(5, 7))
    sound = np.zeros(RATE, np.float32)
    start = int(onset * RATE)
    sound[start : start + len(motif)] = motif * np.float32(LOUDNESS / math.sqrt(float(np.mean(motif**2))))
    return sound + _noise(rng, scene)


def wav(sound: Wave) -> bytes:
    """The bytes of a mono WAV file of 16-bit samples; an empty array gives a header and no samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def _notes(pitches: npt.NDArray[np.float64], voice: Voice, *, seconds: float, tremor: float) -> Wave:
    per_note = int(seconds * RATE)
    since = np.arange(per_note, dtype=np.float32) / np.float32(RATE)
    envelope = np.minimum(since / voice.attack, 1) * np.exp(-since / voice.decay)
    envelope *= np.minimum((since[-1] - since) / 0.012, 1)  # a short fade, so that notes do not click
    hertz = np.repeat(pitches, per_note)
    if voice.vibrato:
        moments = np.arange(len(hertz)) / RATE
        hertz = hertz * 2 ** (voice.vibrato / 12 * np.sin(2 * math.pi * tremor * moments))
    turns = np.cumsum(hertz / RATE)
    total = np.zeros(len(hertz), np.float32)
    for multiple, weight in voice.partials:
        angle = turns * multiple
        angle -= np.floor(angle)  # before the cast: 32 bits are too few for a thousand turns
        total += np.sin((angle * (2 * math.pi)).astype(np.float32)) * ((hertz * multiple < CEILING) * np.float32(weight))
    return total * np.tile(envelope, len(pitches)).astype(np.float32)


def _noise(rng: np.random.Generator, scene: Floor) -> Wave:
    white = rng.standard_normal(RATE + 1, dtype=np.float32)
    noise = white[1:] - np.float32(scene.colour) * white[:-1]
    noise /= np.float32(math.sqrt(1 + scene.colour**2))
    if scene.hum:
        moments = np.arange(RATE, dtype=np.float32) / np.float32(RATE)
        buzz = np.sin(moments * np.float32(2 * math.pi * 100) + np.float32(rng.uniform(0, 6.3))) * np.float32(math.sqrt(2))
        noise = noise * np.float32(math.sqrt(1 - scene.hum**2)) + buzz * np.float32(scene.hum)
    return noise * np.float32(scene.level)
