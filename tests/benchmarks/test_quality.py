"""The quality benchmark asks both sides the same, scores them alike, and says when a peer cannot be had. No peer runs here."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.__main__ import main
from benchmarks.quality import OURS, PEERS, QUICK, SEEDS, environment, scores, summary
from benchmarks.quality.jobs import COMPARISONS, SPLITS, Comparison, Job, asked, written
from benchmarks.quality.ours import recipe
from multitune.core.recipe import make_recipe

TEXTS = next(one for one in COMPARISONS if one.kind == "retrieval")
SMALL = replace(TEXTS, rows=(12, 6))
SETTINGS = ("steps", "batch", "lr", "warmup", "weight_decay", "betas", "eps", "clip_norm", "seed", "model", "splits")


def script(comparison: Comparison) -> Path:
    return PEERS / f"{comparison.peer.replace('-', '_')}_peer.py"


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda one: one.peer)
def test_the_recipe_of_ours_says_every_number_of_the_job(comparison: Comparison, tmp_path: Path) -> None:
    job = asked(comparison, 3, tmp_path)
    made = make_recipe(recipe(job), [])
    train = made.train
    assert (made.seed, train.steps, train.batch_size, train.lr, train.warmup) == (3, job["steps"], job["batch"], job["lr"], job["warmup"])
    assert (train.weight_decay, list(train.betas), train.eps) == (job["weight_decay"], job["betas"], job["eps"])
    assert (train.clip_norm, train.schedule, train.optimizer.name, train.precision) == (job["clip_norm"], "linear", "adamw", "fp32")
    assert {spec["pretrained"] for spec in made.model.options["towers"].values()} == {job["model"]}


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda one: one.peer)
def test_the_peer_reads_every_number_of_the_job_and_nothing_of_ours(comparison: Comparison) -> None:
    text = script(comparison).read_text("utf-8")
    assert [name for name in SETTINGS if f'job["{name}"]' not in text] == []
    assert 'lr_scheduler_type="linear"' in text
    named = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    named |= {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    assert not any(name.split(".")[0] in {"multitune", "benchmarks"} for name in named)


def test_seeds_choose_the_training_rows_and_the_measured_rows_stay(tmp_path: Path) -> None:
    first, second = (written(tmp_path, SMALL, seed) for seed in (0, 1))
    ids = {split: [[row["id"] for row in job.rows(split)] for job in (first, second)] for split in SPLITS}
    assert set(ids["train"][0]).isdisjoint(ids["train"][1])
    assert ids["test"][0] == ids["test"][1]
    assert ids["elsewhere"][0] == ids["elsewhere"][1]
    assert (len(ids["train"][0]), len(ids["test"][0])) == (12, 6)
    assert not {*ids["train"][0], *ids["elsewhere"][0]} & {*ids["test"][0]}


def test_a_job_written_again_is_the_same_and_quick_takes_the_first_seeds(tmp_path: Path) -> None:
    before = written(tmp_path, SMALL, 0).path.read_bytes()
    assert written(tmp_path, SMALL, 0).path.read_bytes() == before
    assert SEEDS[: len(QUICK)] == QUICK


def test_the_interval_is_students_and_agreement_is_within_or_above_it() -> None:
    low, high = scores.interval([0.8, 0.9, 1.0])
    assert (low, high) == pytest.approx((0.9 - 4.302653 * 0.1 / 3**0.5, 0.9 + 4.302653 * 0.1 / 3**0.5), rel=1e-6)
    theirs = [0.80, 0.82, 0.81, 0.80, 0.82]
    low, high = scores.interval(theirs)
    assert scores.agrees([low + 1e-6] * 5, theirs)
    assert scores.agrees([high + 0.1] * 5, theirs)
    assert not scores.agrees([low - 1e-6] * 5, theirs)


def test_a_side_below_the_peer_is_not_in_agreement_whatever_stands_beside_it() -> None:
    row = {"elsewhere": 0.5, "seconds": 1.0}
    peer = [row | {"r_at_1": value} for value in (0.90, 0.91)]
    figures = summary(TEXTS, {OURS: [row | {"r_at_1": 0.2}] * 2, "more": [row | {"r_at_1": 1.0}] * 2, TEXTS.peer: peer})
    assert figures[f"{TEXTS.peer}/agree"] == 0.0
    assert figures[f"{TEXTS.peer}/ahead"] == pytest.approx(-70.5)


def test_recall_counts_a_query_whose_nearest_document_says_the_same(tmp_path: Path) -> None:
    job = Job(tmp_path, "retrieval", "r_at_1")
    rows = [{"id": str(n), "query": "q", "document": text} for n, text in enumerate(("a", "b", "a", "c"))]
    for split in ("test", "elsewhere"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    documents = np.eye(4, dtype=np.float32)
    queries = documents[[2, 1, 0, 1]]  # the first and third find each other's equal text, the last finds another
    save_file({"query": queries, "document": documents}, tmp_path / "vectors.safetensors")
    found = scores.score(
        job, {"test": str(tmp_path / "vectors.safetensors"), "elsewhere": str(tmp_path / "vectors.safetensors"), "seconds": 1}
    )
    assert found["r_at_1"] == 0.75


def test_a_class_that_was_not_said_for_every_row_is_no_score(tmp_path: Path) -> None:
    job = Job(tmp_path, "classification", "accuracy")
    for split in ("test", "elsewhere"):
        (tmp_path / f"{split}.jsonl").write_text('{"id": "1", "label": "a"}\n{"id": "2", "label": "b"}\n')
    assert scores.score(job, {split: {"1": "a", "2": "a"} for split in scores.MEASURED} | {"seconds": 2})["accuracy"] == 0.5
    with pytest.raises(AssertionError):
        scores.score(job, {split: {"1": "a"} for split in scores.MEASURED} | {"seconds": 2})


def test_every_pin_is_exact() -> None:
    assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", pin) for pin in environment.wanted(environment.PINS))


def test_where_the_peers_cannot_be_installed_it_ends_with_2_and_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"XDG_CACHE_HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert main(["quality", "--quick", "--json", "--run", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr()
    assert "benchmarks/peers.txt: the peers cannot be installed: ERROR: No matching distribution" in shown.err
    assert "PIP_INDEX_URL" in shown.err
    told = json.loads(shown.out.splitlines()[-1])
    assert (told["ok"], told["findings"][0]["code"]) == (False, "UserError")
    assert not (tmp_path / "run").exists()
