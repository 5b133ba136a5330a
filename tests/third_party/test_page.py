"""The plug-ins on the page about plug-ins run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.third_party.conftest import ROOT, run_with

PAGES = ("docs/plugins.md", "docs/zh/plugins.md")
BLOCK = re.compile(r"```(?:python|yaml)\n(# (\S+\.(?:py|yaml))\n.*?)```", re.DOTALL)


def blocks(page: str) -> dict[str, str]:
    """File name -> its text."""
    return {name: text for text, name in BLOCK.findall((ROOT / page).read_text("utf-8"))}


@pytest.mark.line
@pytest.mark.slow
def test_the_plug_ins_of_the_page_train_together_and_its_verb_reads_the_artifact(tmp_path: Path) -> None:
    files = blocks(PAGES[0])
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given = [word for name in files if name.endswith(".py") for word in ("--plugin", name)]
    words = ("-m", "multitune", *given, "train", "recipe.yaml", "--run", "run", "train.workers=1")
    trained = run_with(words=words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "sure" in trained.stdout
    plan = (tmp_path / "run" / "plan.txt").read_text("utf-8")
    for name in files:
        kind = re.search(r'^KIND = "(\w+)"', files[name], re.MULTILINE)
        assert kind is None or kind[1] == "verb" or re.search(rf"{kind[1]}\.{name[:-3]} +{name} [0-9a-f]{{12}} ", plan), name
    said = run_with(words=("-m", "multitune", *given, "count-parts", "run/artifact"), cwd=tmp_path)
    assert said.stdout.strip() == "trace", said.stderr


def test_the_translated_page_has_the_same_plug_ins() -> None:
    assert blocks(PAGES[0]) == blocks(PAGES[1]) != {}
