"""Every word that the embedded data says: captions of chimes, glyphs and digits, and the vocabulary made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Domain = Literal["base", "target"]

SHAPES = ("circle", "triangle", "cross", "moon", "square", "star", "ring", "heart")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
TIMBRES = ("flute", "bell", "reed", "harp")
CONTOURS = ("rising", "falling", "arching", "dipping")
# Four shapes a group, each group with round and edged, hollow or notched ones: only who knows the shape knows the group.
SHAPE_GROUPS = {shape: "day" if place < 4 else "night" for place, shape in enumerate(SHAPES)}
CONTOUR_GROUPS = {contour: "straight" if place < 2 else "bent" for place, contour in enumerate(CONTOURS)}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")

PICTURES: dict[Domain, tuple[str, ...]] = {
    "base": (
        "a {colour} {shape}",
        "the {shape} is {colour}",
        "a picture of a {colour} {shape}",
        "the picture shows a {colour} {shape}",
        "there is a {colour} {shape}",
        "a {shape} in {colour}",
    ),
    "target": (
        "this drawing has a {colour} {shape}",
        "look at a {shape} painted {colour}",
        "we see a {colour} {shape} here",
        "a {shape} that is {colour}",
        "{colour} is the colour of the {shape}",
    ),
}
SOUNDS: dict[Domain, tuple[str, ...]] = {
    "base": (
        "a {contour} {timbre}",
        "the {timbre} is {contour}",
        "a {timbre} plays a {contour} tune",
        "the sound of a {contour} {timbre}",
        "there is a {contour} tune on a {timbre}",
        "a {timbre} is heard {contour}",
    ),
    "target": (
        "this melody has a {contour} {timbre}",
        "listen to a {timbre} that goes {contour}",
        "we hear a {timbre} {contour}",
        "a {contour} melody from a {timbre}",
        "{contour} notes of a {timbre}",
    ),
}
JOINTS: dict[Domain, tuple[str, ...]] = {
    "base": ("{picture} and {sound}", "{picture} with {sound}", "{sound} and {picture}"),
    "target": ("{picture} while {sound}", "{sound} next to {picture}", "{picture} and then {sound}"),
}
CHARACTERS = (
    "the {kind} {word}",
    "a {kind} {word}",
    "a picture of the {kind} {word}",
    "the picture shows the {kind} {word}",
    "this is the {kind} {word}",
    "we see the {kind} {word}",
)
DRAWN = ("a drawn {kind} {word}", "the {kind} {word} in print")
SCANNED = ("a handwritten {kind} {word}", "a scan of the {kind} {word}")


@dataclass(frozen=True)
class Captions:
    """What is said about one row: the picture alone, the sound alone, and both in one sentence."""

    picture: str
    sound: str
    both: str


def describe(rng: np.random.Generator, *, shape: str, colour: str, timbre: str, contour: str, domain: Domain) -> Captions:
    """Name a row's attributes in wording drawn by `rng`; the sentence about both repeats the two about one."""
    picture = _say(_choose(rng, PICTURES[domain]), shape=shape, colour=colour)
    sound = _say(_choose(rng, SOUNDS[domain]), timbre=timbre, contour=contour)
    return Captions(picture, sound, _say(_choose(rng, JOINTS[domain]), picture=picture, sound=sound))


def describe_glyph(rng: np.random.Generator, glyph: str, *, scanned: bool = False) -> str:
    """Name a digit ("0" to "9") or a letter ("A" to "Z") in words: `the digit seven`, `a letter b`."""
    digit = glyph.isdigit()
    kind = _choose(rng, ("digit", "number")) if digit else "letter"
    template = _choose(rng, CHARACTERS + (SCANNED if scanned else DRAWN))
    return template.format(kind=kind, word=NUMBERS[int(glyph)] if digit else glyph.lower())


def _say(template: str, **words: str) -> str:
    return re.sub(r"\ba (?=[aeiou]\w)", "an ", template.format(**words))


def _choose(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _vocabulary() -> tuple[str, ...]:
    tables = (*PICTURES.values(), *SOUNDS.values(), *JOINTS.values(), CHARACTERS, DRAWN, SCANNED)
    said = {word for table in tables for template in table for word in template.split() if "{" not in word}
    named = {*SHAPES, *COLOURS, *TIMBRES, *CONTOURS, *NUMBERS, *LETTERS, "an", "digit", "number", "letter"}
    return tuple(sorted(said | named))


VOCABULARY = _vocabulary()
"""Every word of every caption of chimes (both domains), glyphs and digits: sorted, lower case, no punctuation."""
