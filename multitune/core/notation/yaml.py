"""YAML 1.2 core as plain data."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from multitune.core.errors import RecipeError

MAX_DEPTH = 24


def parse_yaml(text: str, *, where: str) -> Any:
    """YAML 1.2 core as plain data: no tags, no aliases, no key twice; dates stay text.

    Raises: RecipeError with the line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = False
    yaml.constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)
    try:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(io.StringIO(text)):
            kind = type(event).__name__
            depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
            if kind == "AliasEvent":
                raise RecipeError(f"{where}, line {event.start_mark.line + 1}", "found an alias (*name).", "Write the value out.")
            if depth > MAX_DEPTH:
                raise RecipeError(f"{where}, line {event.start_mark.line + 1}", f"is nested deeper than {MAX_DEPTH}.", "Flatten it.")
        return yaml.load(io.StringIO(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = str(error.problem or error).split("\n")[0]
        problem = re.sub(r"^found (duplicate key \".*?\") with value .*$", r"found the \1", problem, flags=re.DOTALL)
        hint = "Keep one of the two." if "duplicate key" in problem else "Mend the YAML."
        raise RecipeError(f"{where}, line {line}", f"{problem}.", hint) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(where, f"is not YAML: {str(error).splitlines()[0]}.", "Mend the YAML.") from None
