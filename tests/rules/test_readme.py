"""The README in two languages says the same two commands, and they are targets of the Makefile."""

from __future__ import annotations

import re

import pytest

from tests.rules.source import ROOT


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_a_readme_has_exactly_the_two_commands(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert set(re.findall(r"^make (\w+)", text, flags=re.MULTILINE)) == {"demo", "test"}


def test_both_readmes_have_the_same_headings_and_code() -> None:
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md"))
    assert outline(english) == outline(chinese)


def test_the_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    assert {"demo", "test", "proof", "check"} <= targets


def outline(text: str) -> tuple[list[str], list[str]]:
    """The depth of each heading, and each line of code without its comment and without what is said about it in a second column."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    code = [re.split(r"\s{2,}", line.split("#")[0].strip())[0] for block in blocks for line in block.splitlines()]
    return re.findall(r"^(#+) ", text, flags=re.MULTILINE), [line for line in code if line]
