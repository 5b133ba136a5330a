"""What each column of a table holds, with what that rests on; nothing is decided about what it is for."""

from __future__ import annotations

import mimetypes
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from multitune.core.protocols import Media, Part, Rows, Sound
from multitune.data.decode import BadPart, modality, opened
from multitune.data.manifest import Manifest
from multitune.data.modalities.labels import SEPARATOR
from multitune.data.sample import cell, is_absent, placed

LOOKED = 200  # rows whose cells are looked at
OPENED = 40  # media that are opened
MOST_COUNTED = 200_000  # rows over which values are counted
MOST_CLASSES = 1_000
SEVERAL = 0.1  # the share of cells with a mark between labels from which a column is taken for sets of labels
SHORT = 100  # characters; the name of a class is no longer
MEDIA = ("image", "audio")
SPLIT_WORDS = {"train", "training", "valid", "val", "validation", "dev", "test", "eval"}
LABELS = {
    "label",
    "labels",
    "class",
    "category",
    "target",
    "y",
    "标签",
    "类别",
    "分类",
    "类",
    "ラベル",
    "étiquette",
    "classe",
    "etiqueta",
    "clase",
}
TEXTS = {"caption", "captions", "description", "sentence", "text", "transcript", "transcription", "字幕", "描述", "文本", "说明", "转写"}
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{4}")
_COMMA = re.compile(r"[+-]?\d+,\d+|[+-]?\d+")
_CODE = re.compile(r"(?=.*\d)[\w.-]{1,64}", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Column:
    """One column. guess: a modality, `split`, `id`, or `none` (not read). because: what the guess rests on.

    or_else: what else it may be, with the option that says so. values: how often each value is there, where it is counted.
    unread: media of those looked at that cannot be opened, with the first cause.
    """

    name: str
    guess: str
    because: str
    filled: int
    rows: int
    or_else: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[int, int, str] = (0, 0, "")

    @property
    def missing(self) -> int:
        """Rows in which it holds nothing."""
        return self.rows - self.filled


def look(rows: Rows, *, said: Mapping[str, str]) -> list[Column]:
    """Every column in order. said: column -> what the user says that it is; `none` leaves it out."""
    return [_looked(rows, name, said.get(name, "")) for name in rows.columns]


def _looked(rows: Rows, name: str, said: str) -> Column:
    places = _places(len(rows))
    cells = [value for place in places if not is_absent(value := rows.row(place).get(name))]
    filled = _filled(rows, name)
    if said:
        found = _media(rows, name, said, cells) if said in MEDIA and cells else Column(name, said, "", 0, 0)
        told = f"as --part says; {found.because}" if found.because else "as --part says"
        values = _values(rows, name) if said == "category" or (said != "none" and cells and isinstance(cells[0], str)) else {}
        return Column(name, said, told, filled, len(rows), values=values, unread=found.unread)
    if not cells:
        return Column(name, "none", "its cells are empty", filled, len(rows))
    if name == "id" and cells[0] == rows.id(places[0]):
        return Column(name, "id", f"names the rows, such as {_shown(cells[0])}", filled, len(rows))
    found = _bytes(rows, name, cells) if any(not isinstance(value, str) for value in cells) else _texts(rows, name, [str(c) for c in cells])
    return Column(name, found.guess, found.because, filled, len(rows), found.or_else, found.values, found.unread)


def _places(number: int, most: int = LOOKED) -> list[int]:
    """At most `most` places, evenly over all rows."""
    return list(range(number)) if number <= most else [place * number // most for place in range(most)]


def _filled(rows: Rows, name: str) -> int:
    if isinstance(rows, Manifest):
        return int(rows.present(name).sum())
    return sum(not is_absent(value) for value in rows.column(name))


def _values(rows: Rows, name: str) -> dict[str, int]:
    """Value -> rows, the most frequent first; over the first rows of a very long table."""
    counts = Counter(str(cell(value)) for value in rows.column(name)[:MOST_COUNTED] if not is_absent(value))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _bytes(rows: Rows, name: str, cells: Sequence[Any]) -> Column:
    for kind in MEDIA:
        if _has_magic(cells[0], kind):
            return _media(rows, name, kind, cells)
    head = cells[0][:8] if isinstance(cells[0], bytes) else type(cells[0]).__name__
    return Column(name, "none", f"bytes that begin with {head!r}, no picture or sound that can be read", 0, 0)


def _has_magic(data: Any, kind: str) -> bool:
    marks = modality(kind).magic.values()
    return isinstance(data, bytes) and any(all(data[at : at + len(magic)] == magic for at, magic in mark) for mark in marks)


def _texts(rows: Rows, name: str, cells: Sequence[str]) -> Column:
    """What a column of texts is: paths, sets of labels, a split, ids, dates, numbers, classes or texts; asked in this order."""
    if all(_URL.match(value) for value in cells):
        return Column(name, "none", f"URLs such as {_shown(cells[0])}; nothing is fetched: download them and give paths", 0, 0)
    paths = _paths(rows, name, cells)
    if paths is not None:
        return paths
    labels = _labels(name, cells, _values(rows, name))
    if labels is not None:
        return labels
    if cells[0][0] in "[{" and all(value[0] in "[{" for value in cells):
        return Column(
            name, "none", f"lists or objects such as {_shown(cells[0])}", 0, 0, f"--part {name}=text takes them as they are written"
        )
    values = _values(rows, name)
    words = {value.lower() for value in values}
    if words <= SPLIT_WORDS and ("train" in words or "training" in words) and len(words) > 1:
        return _split(name, values)
    if len(values) == 1:
        return Column(name, "none", f"every row says {_shown(next(iter(values)))}", 0, 0, values=values)
    if all(map(_DATE.fullmatch, cells)):
        return Column(name, "none", f"dates such as {cells[0]}", 0, 0, f"--part {name}=category or text, if they are to be read")
    if any("," in value for value in cells) and all(map(_COMMA.fullmatch, cells)):
        told = f"numbers with a decimal comma, such as {_shown(cells[0])}"
        return Column(name, "none", told, 0, 0, f"write them with a point to have numbers; --part {name}=text takes them as they are")
    return _numbers(name, cells, values) or _words(name, cells, values)


def _labels(name: str, cells: Sequence[str], values: Mapping[str, int]) -> Column | None:
    """A column of sets of labels: cells such as `dog|ball` or `["dog", "ball"]`, of a few labels that come back; None where it is none."""
    listed = all(value.startswith("[") for value in cells)
    if not listed and sum(SEPARATOR in value for value in cells) < len(cells) * SEVERAL:
        return None
    counts: Counter[str] = Counter()
    try:
        for value, number in values.items():
            for label in modality("labels").decode(value):
                counts[label] += number
    except ValueError:
        return None
    total = sum(values.values())
    if len(counts) < 2 or len(counts) > max(2, min(total // 2, MOST_CLASSES)) or max(map(len, counts)) > SHORT:
        return None
    written = "lists" if listed else f'texts with "{SEPARATOR}" between labels'
    told = f"{written}, such as {_shown(next(iter(values)))}: {counted(dict(counts.most_common()))}"
    other = f"--part {name}=category, if each of the {len(values):,} combinations is a class of its own"
    return Column(name, "labels", told, 0, 0, other, dict(counts.most_common()))


def _split(name: str, values: Mapping[str, int]) -> Column:
    shown = ", ".join(f"{value} {number:,}" for value, number in values.items())
    wrong = [value for value in values if value not in {"train", "valid", "test"}]
    if wrong:
        return Column(
            name, "none", f'{shown}; a split is train, valid or test, so "{wrong[0]}" is not read', 0, 0, "rename it to use this split"
        )
    return Column(name, "split", shown, 0, 0, values=values)


def _numbers(name: str, cells: Sequence[str], values: Mapping[str, int]) -> Column | None:
    try:
        numbers = [modality("number").decode(value) for value in cells]
    except ValueError:
        return None
    span = f"{min(numbers):g} to {max(numbers):g}"
    whole = all(number.is_integer() for number in numbers)
    few = len(values) <= min(50, len(cells) // 2)
    if name.lower() == "id" or (whole and len(values) == sum(values.values()) and name.lower().endswith(("id", "index", "编号", "序号"))):
        return Column(name, "id", f"a different number in each row, {span}", 0, 0)
    if whole and few:
        other = f"--part {name}=number, if they are amounts"
        return Column(name, "category", f"whole numbers, {span}, only {len(values)} different: {counted(values)}", 0, 0, other, values)
    other = f"--part {name}=category, if each is a class" if whole and len(values) <= MOST_CLASSES else ""
    return Column(name, "number", f"numbers, {span}, {len(values):,} different", 0, 0, other)


def _words(name: str, cells: Sequence[str], values: Mapping[str, int]) -> Column:
    total, longest = sum(values.values()), max(map(len, values))
    lengths = [len(value.split()) for value in cells]
    unique = len(values) == total and total > 1
    if name.lower() == "id" or (unique and all(map(_CODE.fullmatch, cells))):
        return Column(
            name, "id", f"a different code in each row, such as {_shown(cells[0])}", 0, 0, f"--part {name}=text, if it is to be read"
        )
    repeated = len(values) <= max(2, min(total // 2, MOST_CLASSES)) and not (unique and name.lower() not in LABELS)
    repeated = repeated and not (name.lower() in TEXTS and median(lengths) > 1)  # its name says that it is a text; words alone are classes
    if longest <= SHORT and repeated and (median(lengths) < 4 or name.lower() in LABELS):
        other = f"--part {name}=text, if they are texts" if median(lengths) > 1 else ""
        other = _apart(values) or other
        return Column(name, "category", f"{len(values):,} different texts in {total:,} rows: {counted(values)}", 0, 0, other, values)
    other = f"--part {name}=category, if each is a class" if longest <= SHORT and len(values) <= total // 2 else ""
    told = f"{len(values):,} different texts in {total:,} rows, {min(map(len, cells))} to {longest} characters, such as {_shown(cells[0])}"
    return Column(name, "text", told, 0, 0, other, values if len(values) < total else {})


def _apart(values: Mapping[str, int]) -> str:
    """What to do where cells may hold several labels with a mark between them that is not ours; empty where they do not."""
    for mark in (";", ",", "/", "+"):
        labels = {label.strip() for value in values for label in value.split(mark)}
        if any(mark in value for value in values) and "" not in labels and len(labels) < len(values):
            several = next(value for value in values if mark in value)
            written = SEPARATOR.join(label.strip() for label in several.split(mark))
            return f'write {written} for {_shown(several)}, if a cell holds several labels with "{mark}" between them'
    return ""


def _paths(rows: Rows, name: str, cells: Sequence[str]) -> Column | None:
    """A column of paths, by their endings or because files of these names are there; None where it is none."""
    signals = Counter((mimetypes.guess_type(value)[0] or "").partition("/")[0] for value in cells)
    there = [value for value in cells[:OPENED] if len(value) < SHORT * 10 and _there(value, rows.root)]
    signal, number = signals.most_common(1)[0]
    if number < 0.9 * len(cells):
        signal = ""
    if signal == "video" and there:
        return Column(name, "none", f"films such as {_shown(cells[0])}; they are read from memory only", 0, 0)
    if signal == "text" and len(there) >= 0.9 * min(len(cells), OPENED):
        return Column(name, "none", f"files of text such as {_shown(cells[0])}; write the texts into the table", 0, 0)
    if signal not in MEDIA and len(there) < 0.9 * min(len(cells), OPENED):
        return None
    heads = Counter(kind for value in there for kind in MEDIA if _has_magic(_head(value, rows.root), kind))
    if heads:
        return replace(_media(rows, name, heads.most_common(1)[0][0], cells), values=_values(rows, name))
    if there:
        return Column(
            name,
            "none",
            f"files such as {_shown(cells[0])}, of no format that is read (pictures: JPEG, PNG, WebP; sounds: WAV, FLAC)",
            0,
            0,
        )
    told = f"paths such as {_shown(cells[0])}, and none of {min(len(cells), OPENED)} looked for is there, relative to {rows.root}"
    return Column(name, "lost", told, 0, 0, "--root FOLDER says what they are relative to")


def _there(value: str, root: Path | None) -> bool:
    try:
        path = placed(value, root).path
        return path is not None and path.is_file()
    except (ValueError, OSError):
        return False


def _head(value: str, root: Path | None) -> bytes:
    try:
        with open(placed(value, root).path or "", "rb") as stream:
            return stream.read(16)
    except (ValueError, OSError):
        return b""


def _media(rows: Rows, name: str, kind: str, cells: Sequence[Any]) -> Column:
    """A column of pictures or sounds: some of them opened through the gate, with their sizes or rates."""
    read: list[Any] = []
    causes: list[str] = []
    formats: Counter[str] = Counter()
    picked = [cells[place] for place in _places(len(cells), OPENED)]
    for value in picked:
        try:
            medium = placed(value, rows.root) if isinstance(value, str) else Media(key="", data=value)
            read.append(opened(Part(kind, medium)).value)
            formats[_format(value, kind, rows.root)] += 1
        except (BadPart, ValueError) as error:
            causes.append(f"{_shown(value)}: {error.cause if isinstance(error, BadPart) else error}")
    sizes = _sizes(read)
    told = ", ".join(f"{number} {form}" for form, number in formats.most_common()) + (f"; {sizes}" if sizes else "")
    where = "files" if isinstance(picked[0], str) else "cells of bytes"
    because = (
        f"{len(read)} of {len(picked)} {where} looked at can be opened: {told}" if read else f"none of {len(picked)} {where} can be opened"
    )
    return Column(name, kind, because, 0, 0, unread=(len(causes), len(picked), causes[0] if causes else ""))


def _format(value: Any, kind: str, root: Path | None) -> str:
    data = _head(value, root) if isinstance(value, str) else value[:16]
    marks = modality(kind).magic.items()
    return next((form for form, mark in marks if all(data[at : at + len(magic)] == magic for at, magic in mark)), "unknown")


def _sizes(read: Sequence[Any]) -> str:
    """Sizes of pictures (width x height), or rates and seconds of sounds."""
    sounds = [value for value in read if isinstance(value, Sound)]
    if sounds:
        rates = Counter(sound.rate for sound in sounds)
        seconds = sorted(len(sound.wave) / sound.rate for sound in sounds)
        shown = " and ".join(f"{rate:,} Hz" for rate, _ in rates.most_common(3))
        short, long = f"{seconds[0]:.2g}", f"{seconds[-1]:.2g}"
        return f"{shown}, {short} s" if short == long else f"{shown}, {short} to {long} s"
    if not read:
        return ""
    shapes = sorted(((value.shape[1], value.shape[0]) for value in read), key=lambda shape: shape[0] * shape[1])
    small, large = (f"{width} x {height}" for width, height in (shapes[0], shapes[-1]))
    return f"{small} pixels" if small == large else f"{small} to {large} pixels"


def counted(values: Mapping[str, int], most: int = 5) -> str:
    """`cat 40, dog 38, ... (12 more)`."""
    shown = [f"{value} {number:,}" for value, number in list(values.items())[:most]]
    return ", ".join(shown) + (f" and {len(values) - most:,} more" if len(values) > most else "")


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, str) else "bytes"
    return f'"{text[:60]}{"..." if len(text) > 60 else ""}"'
