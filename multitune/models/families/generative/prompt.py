"""The prompt: a template over text parts, and user text that cannot spell a special token."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from multitune.core.errors import ModelError, did_you_mean, one_of


@dataclass(frozen=True)
class Prompt:
    """A template such as `Question: {question} Answer:`, with the text parts that it names."""

    template: str
    parts: tuple[str, ...]

    def fill(self, values: Mapping[str, str]) -> str:
        """The template with each part's text in its place; a part that is absent leaves nothing."""
        return "".join(literal + (values.get(name, "") if name else "") for literal, name, _, _ in Formatter().parse(self.template))


def prompt(template: str, parts: Sequence[str], *, where: str) -> Prompt:
    """Check a template against the text parts of the recipe; an empty template is the parts, one a line.

    Raises: ModelError for a brace that does not close, a name that is no text part, or a text part that the template leaves out.
    """
    if not template:
        return Prompt("\n".join("{" + name + "}" for name in parts), tuple(parts))
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ModelError(where, f"found {template!r}: {error}.", "Write {part}, and {{ for a brace.") from None
    for name, spec, conversion in fields:
        if spec or conversion or name not in parts:
            found = f'"{{{name}}}" names no text part; text parts are {one_of(parts)}.'
            raise ModelError(where, found, did_you_mean(name, parts) or "Write {part} with a part's name alone, and {{ for a brace.")
    missing = [name for name in parts if name not in {field[0] for field in fields}]
    if missing:
        raise ModelError(where, f'the text part "{missing[0]}" is not in {template!r}.', f"Put {{{missing[0]}}} into it, or drop the part.")
    return Prompt(template, tuple(parts))


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Every text that a tokenizer reads as one special token, longest first."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(sorted({*tokenizer.all_special_tokens, *added}, key=lambda text: (-len(text), text)))


def neutral(text: str, special: Iterable[str]) -> str:
    """The text with a space inside whatever it spells of special tokens, so that `<image>` in a question is only words."""
    names = [name for name in special if name]
    if not names:
        return text
    pattern = re.compile("|".join(re.escape(name) for name in names))
    while pattern.search(text):
        text = pattern.sub(lambda found: _opened(found.group()), text)
    return text


def _opened(name: str) -> str:
    return f"{name[0]} {name[1:]}" if len(name) > 1 else " "
