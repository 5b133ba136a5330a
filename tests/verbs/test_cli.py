"""The command line: cheap to start, plain in its words, exact in its exit codes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import multitune
from multitune.core import catalog
from multitune.core.errors import PluginError


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "multitune", *words], capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


def test_help_lists_the_verbs_by_the_first_line_of_their_files() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for verb in ("demo", "evaluate", "list", "plan", "predict", "train", "verify-resume"):
        assert verb in shown.stdout


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["list", "task"]])
def test_no_torch_is_imported_before_it_is_needed(words: list[str]) -> None:
    script = "import sys; from multitune.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout.splitlines()[-1] == "False"


def test_help_takes_at_most_its_budget_of_cpu() -> None:
    used = []
    for _ in range(3):  # 0.3 s is a stated budget; the least of three is what it takes on a busy machine
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(used) <= 0.3


def test_the_last_line_is_one_json_object() -> None:
    shown = run("list", "task", "--json")
    told = json.loads(shown.stdout.splitlines()[-1])
    assert told["ok"] is True
    assert told["figures"]["task"] >= 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian", "x.yaml"], 'Did you mean "train"?'),
        (["train", "missing.yaml"], "there is no such file"),
        (["plan", "missing.yaml"], "there is no such file"),
        (["evaluate", "nowhere"], "nowhere"),
        (["list", "los"], 'Did you mean "loss"?'),
    ],
)
def test_a_mistake_ends_with_2_and_no_traceback(words: list[str], said: str, tmp_path: Path) -> None:
    shown = run(*words, cwd=tmp_path)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_mistake_is_told_in_json_too(tmp_path: Path) -> None:
    shown = run("train", "missing.yaml", "--json", cwd=tmp_path)
    told = json.loads(shown.stdout.splitlines()[-1])
    assert told["ok"] is False
    assert "no such file" in told["findings"][0]["message"]


def test_every_verb_takes_json_run_and_fresh_and_python_has_it() -> None:
    for verb in catalog.names("verb"):
        fields = catalog.load("verb", verb).Options.model_fields
        assert {"run", "fresh"} <= set(fields), verb
        assert callable(getattr(multitune, verb.replace("-", "_"))), verb


def test_a_verb_called_by_its_options_gives_its_result_and_names_a_wrong_option(tmp_path: Path) -> None:
    listed = multitune.list(kind="source", run=tmp_path)
    assert "digits" in (tmp_path / "list.txt").read_text("utf-8")
    assert listed.figures["source"] >= 6
    with pytest.raises(PluginError, match="kindd"):
        multitune.list(kindd="source")
