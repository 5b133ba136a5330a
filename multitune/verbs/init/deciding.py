"""What the columns are taken for: the task, what is read, what is answered; each choice with its reason and what would change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from multitune.core import catalog
from multitune.core.errors import DataError, did_you_mean, one_of
from multitune.core.protocols import TaskPreset
from multitune.verbs.init.looking import LABELS, MEDIA, Column

ANSWERED = ("category", "labels", "number")
NOTHING = ("none", "id", "split", "lost")
SPOKEN = {"transcript", "transcription", "transcribed", "sentence", "text", "文本", "转写", "字幕", "台词"}
REPLIES = {"answer", "reply", "response", "target", "summary", "translation", "答案", "回答", "译文", "摘要"}
SPEAKS = ("captioning", "transcription", "text_to_text")


@dataclass(frozen=True)
class Choice:
    """What is to be done with the columns. because: why this task. left: column -> why it is not read. doubts: what may be changed."""

    task: str
    because: str
    inputs: Mapping[str, str]
    answers: Mapping[str, str]
    split: str = ""
    left: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def choose(columns: Sequence[Column], *, task: str, answers: Sequence[str], where: str) -> Choice:
    """The task and the parts.

    Raises: DataError where the columns allow none, or several and the user has to say which.
    """
    known = {column.name: column for column in columns}
    for name in answers:
        if name not in known:
            raise DataError("--answer", f'there is no column "{name}"; there are {one_of(known)}.', did_you_mean(name, list(known)))
        if known[name].guess in NOTHING or known[name].guess in MEDIA:
            found = f'"{name}" is {_a(known[name].guess)} ({known[name].because}).'
            raise DataError("--answer", found, f"An answer is a category, labels, a number or a text: --part {name}=category, say.")
    lost = [column for column in columns if column.guess == "lost"]
    if lost:
        raise DataError(
            where, f'"{lost[0].name}" holds {lost[0].because}.', f"{lost[0].or_else}; --part {lost[0].name}=none leaves it out."
        )
    if answers:
        return _with(columns, *_task_of(columns, answers, task), chosen=answers)
    if task:
        return _with(columns, task, "as --task says", chosen=_answers_of(columns, task, where))
    return _guessed(columns, where)


def _guessed(columns: Sequence[Column], where: str) -> Choice:
    """Where nothing is said: a category before labels before a number before a text, by its name where there are several."""
    for kind, task in (("category", "classification"), ("labels", "classification"), ("number", "regression")):
        found = [column.name for column in columns if column.guess == kind]
        if found:
            one = _the_one(found, LABELS, kind, where)
            why = f"{one} is {_a(kind)}" + (f", and of {len(found)} it is the one with the name of an answer" if len(found) > 1 else "")
            return _with(columns, task, why, chosen=[one])
    texts = [column.name for column in columns if column.guess == "text"]
    media = [column.guess for column in columns if column.guess in MEDIA]
    if not texts and len(media) < 2:
        held = _held(columns)
        found = f"nothing to learn from: its columns are {held}."
        raise DataError(
            where,
            found,
            "A model needs what it reads and what it is to say of it, such as a column of labels. --part NAME=category says so.",
        )
    spoken = [name for name in texts if name.lower() in SPOKEN]
    if media == ["audio"] and len(texts) == 1 and spoken:
        return _with(columns, "transcription", f"there are sounds and {texts[0]}, a text with the name of what is said", chosen=texts)
    replies = [name for name in texts if name.lower() in REPLIES]
    if len(texts) > 1 and len(replies) == 1:
        task = "captioning" if media else "text_to_text"
        return _with(columns, task, f"{replies[0]} is the one text with the name of an answer", chosen=replies)
    if len(texts) > 1:
        found = f"there are several texts ({one_of(texts)}) and no class: nothing says which of them is the answer, if any."
        raise DataError(where, found, f"Say --answer {texts[-1]}, or --task retrieval (each finds the other).")
    seen = " and ".join([*dict.fromkeys({"image": "pictures", "audio": "sounds"}[kind] for kind in media), *(["a text"] if texts else [])])
    return _with(columns, "retrieval", f"there are {seen} and no class, so that each can find the other", chosen=[])


def _task_of(columns: Sequence[Column], answers: Sequence[str], task: str) -> tuple[str, str]:
    """The task that gives these answers, and why."""
    if task:
        return task, "as --task says"
    kinds = {column.guess for column in columns if column.name in answers}
    read = {column.guess for column in columns if column.name not in answers and column.guess in (*MEDIA, "text")}
    if kinds == {"text"}:
        made = "text_to_text" if read == {"text"} else "transcription" if read == {"audio"} else "captioning"
    else:
        made = "regression" if kinds == {"number"} else "classification"
    return made, f"it gives {_kinds(kinds)}, as --answer says"


def _answers_of(columns: Sequence[Column], task: str, where: str) -> list[str]:
    """The columns that a task can answer with.

    Raises: DataError where there is none, or more than one and none by its name; PluginError for an unknown task.
    """
    preset: TaskPreset = catalog.find("task", task, where="--task").build()
    if not preset.min_answers:
        return []
    found = [column.name for column in columns if column.guess in preset.answers]
    if not found:
        held = _held(columns)
        kind, other = preset.answers[0], [column.name for column in columns if f"={preset.answers[0]}" in column.or_else]
        remedy = f"Say --part {other[0] if len(other) == 1 else 'NAME'}={kind} for the column that is the answer."
        raise DataError(where, f"{task} answers with {_a(preset.answers[0])}, and there is none: {held}.", remedy)
    return [_the_one(found, LABELS if preset.answers[0] in ANSWERED else REPLIES | SPOKEN | {"caption"}, preset.answers[0], where)]


def _the_one(found: Sequence[str], names: set[str], kind: str, where: str) -> str:
    """The only one, or the only one of these names.

    Raises: DataError where neither holds.
    """
    named = [name for name in found if name.lower() in names]
    if len(found) == 1 or len(named) == 1:
        return found[0] if len(found) == 1 else named[0]
    raise DataError(
        where, f"several columns can be the answer: {one_of(found)}, each {_a(kind)}.", f"Say which: --answer {(named or found)[0]}."
    )


def _with(columns: Sequence[Column], task: str, because: str, *, chosen: Sequence[str]) -> Choice:
    inputs = {c.name: c.guess for c in columns if c.guess in (*MEDIA, "text") and c.name not in chosen}
    if not inputs or (not chosen and len(inputs) < 2):
        held = _held(columns)
        remedy = "Pictures, sounds and texts are read; --part NAME=text says that a column is one."
        raise DataError("init", f"the model would read {one_of(inputs) or 'nothing'} alone for {task}: {held}.", remedy)
    split = next((column.name for column in columns if column.guess == "split"), "")
    left = {c.name: _why_left(c, split) for c in columns if c.name not in inputs and c.name not in chosen and c.name != split}
    doubts = tuple(f"{c.name}: {c.or_else}" for c in columns if c.or_else and (c.name in inputs or c.name in chosen or c.guess in NOTHING))
    return Choice(task, because, inputs, {c.name: c.guess for c in columns if c.name in chosen}, split, left, doubts)


def _why_left(column: Column, split: str) -> str:
    if column.guess in ANSWERED:
        return f"{_a(column.guess)}, which no tower reads; --answer {column.name} makes it an answer"
    return "another split" if column.guess == "split" and split else column.because


def _held(columns: Sequence[Column]) -> str:
    """Every column with what it was taken for; of one that is not read the reason too."""
    return one_of(f"{c.name} ({_a(c.guess)}{f': {c.because}' if c.guess == 'none' else ''})" for c in columns)


def _a(kind: str) -> str:
    """`a category`, `an image`; what is not read, in words."""
    words = {
        "none": "not read",
        "id": "an id",
        "labels": "a set of labels",
        "split": "a split",
        "lost": "paths that lead nowhere",
        "image": "pictures",
        "audio": "sounds",
    }
    return words.get(kind, f"a {kind}")


def _kinds(kinds: set[str]) -> str:
    return " and ".join(_a(kind) for kind in sorted(kinds))
