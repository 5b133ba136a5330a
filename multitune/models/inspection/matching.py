"""A model beside data: sizes, lengths and rates of a few rows against what its towers take; classes against its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from multitune.core import catalog
from multitune.core.finding import Finding, Severity
from multitune.core.protocols import Sound
from multitune.data.decode import BadPart, opened
from multitune.data.plan import Outline
from multitune.data.split import Examples
from multitune.models.inspection.limits import longest_sound, picture_size, sampling_rate
from multitune.models.inspection.portrait import Portrait, TowerPortrait

ROWS = 64
BLOWN_UP = 3.0
Told = tuple[str, list[Finding]]


def match(portrait: Portrait, data: Outline) -> tuple[str, tuple[Finding, ...]]:
    """How the data of a recipe fit a model, as text and findings; up to 64 rows of the train split are decoded, spread evenly."""
    lines: list[str] = ["", "beside the data"]
    findings: list[Finding] = []
    for name, need in data.needs.parts.items():
        accepted = tuple(catalog.find("modality", need.modality, need.options, where=f"data.parts.{name}").build().towers)
        towers = [tower for tower in portrait.towers if tower.modality in accepted and tower.signal is not None]
        if not towers:
            lines.append(f"  {name} ({need.modality}): no tower of this model reads it")
            findings.append(
                _finding("unread-part", f"data.parts.{name}", f"no tower reads {need.modality}.", "Give the part another tower.")
            )
            continue
        values, unread = _values(data.examples["train"], name)
        for tower in towers:
            said, found = _TOLD[tower.modality](name, tower, values) if values else ("none of the rows looked at can be read", [])
            lines.append(f"  {name} ({need.modality}) -> {tower.name}: {said}" + (f"; {unread} rows cannot be read" if unread else ""))
            findings += found
    for line, found in _answers(portrait, data):
        lines.append(f"  {line}")
        findings += found
    lines += [f"  {finding.line()}" for finding in findings]
    return "\n".join(lines) + "\n", tuple(findings)


def _values(examples: Examples, part: str) -> tuple[list[Any], int]:
    values: list[Any] = []
    unread = 0
    for index in np.unique(np.linspace(0, len(examples) - 1, min(ROWS, len(examples))).astype(int)).tolist():
        given = examples.sample(index).parts.get(part)
        if given is not None:
            try:
                values.append(opened(given).value)
            except BadPart:
                unread += 1
    return values, unread


def _pictures(name: str, tower: TowerPortrait, values: Sequence[np.ndarray]) -> Told:
    heights, widths = [value.shape[0] for value in values], [value.shape[1] for value in values]
    wanted = picture_size(getattr(tower.signal, "processor", None))
    said = f"{_range(heights)} x {_range(widths)} pixels"
    if wanted is None:
        return said, []
    said += f", brought to {wanted[0]} x {wanted[1]}"
    blown = min(wanted[0] / median(heights), wanted[1] / median(widths))
    if blown < BLOWN_UP:
        return said, []
    found = f"half of the pictures are blown up {blown:.1f} times or more; the tower was made for finer ones."
    return said, [_finding("pictures-small", f"data.parts.{name}", found, "Larger pictures, if there are any, would tell it more.")]


def _sounds(name: str, tower: TowerPortrait, values: Sequence[Sound]) -> Told:
    extractor = getattr(tower.signal, "extractor", None)
    seconds, rates = [len(value.wave) / value.rate for value in values], sorted({value.rate for value in values})
    wanted, longest = sampling_rate(extractor), longest_sound(extractor)
    said = f"{_range(seconds)} s at {' and '.join(str(rate) for rate in rates)} Hz"
    findings: list[Finding] = []
    if wanted is not None and rates != [wanted]:
        said += f", resampled to {wanted} Hz"
        if rates[0] < wanted:
            found = f"sounds at {rates[0]} Hz hold nothing above {rates[0] // 2} Hz; the tower was made for {wanted} Hz."
            findings.append(_finding("rate-low", f"data.parts.{name}", found, "Record at the tower's rate, if you can."))
    cut = sum(length > longest * 1.05 for length in seconds) if longest is not None else 0
    if cut and longest is not None:
        found = f"{cut} of {len(seconds)} sounds are longer than {longest:g} s; what follows is not read."
        findings.append(_finding("sounds-cut", f"data.parts.{name}", found, "Cut them into spans, or choose another tower."))
    return said, findings


def _texts(name: str, tower: TowerPortrait, values: Sequence[str]) -> Told:
    signal = tower.signal
    assert signal is not None
    rows = [signal.row(value) for value in values]
    lengths = [len(row["names"]["input_ids"]) + int(row["cut"]) for row in rows]
    cut = sum(bool(row["cut"]) for row in rows)
    if not cut:
        return f"{_range(lengths)} tokens", []
    found = f"{cut} of {len(rows)} texts are cut; the longest has {max(lengths)} tokens."
    return f"{_range(lengths)} tokens", [_finding("texts-cut", f"data.parts.{name}", found, "Shorten them, or choose a longer tower.")]


_TOLD: Mapping[str, Callable[[str, TowerPortrait, Any], Told]] = {"image": _pictures, "audio": _sounds, "text": _texts}


def _answers(portrait: Portrait, data: Outline) -> Iterator[Told]:
    for name, need in data.needs.answers.items():
        if need.modality not in ("category", "labels"):
            continue
        here, there = set(need.labels), set(portrait.labels)
        if not there:
            yield f"{name} ({len(here)} classes): the model has no head; one is made new", []
        elif here <= there:
            yield f"{name} ({len(here)} classes): all are among the {len(there)} of its head; a head is made new all the same", []
        else:
            shown = f"{len(here - there)} of {len(here)} classes are not among the {len(there)} of its head; a head is made new"
            yield f"{name}: {shown}", []


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _finding(code: str, where: str, message: str, remedy: str) -> Finding:
    return Finding(code, Severity.WARNING, where, message, remedy)
