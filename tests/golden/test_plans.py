"""The plan of every recipe as text: what moves, rates, batch arithmetic, steps, bytes, each value's origin.

`MULTITUNE_GOLDEN=write python -m pytest tests/golden` writes them anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multitune.core.ledger import Ledger
from multitune.core.recipe import read_recipe
from multitune.verbs.plan import make_plan

HERE = Path(__file__).resolve().parent
OTHERS = "distill-student"  # its plan rests on a run of another recipe
RECIPES = sorted(
    path for path in (HERE.parents[1] / "recipes").glob("*.yaml") if not path.stem.startswith("pretrain") and path.stem != OTHERS
)


@pytest.mark.line
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_plan_of_a_recipe_is_as_it_was_read_and_agreed(recipe: Path) -> None:
    text = make_plan(read_recipe(recipe), Ledger()).plan.text(golden=True)
    golden = HERE / f"{recipe.stem}.txt"
    if os.environ.get("MULTITUNE_GOLDEN") == "write":
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")
