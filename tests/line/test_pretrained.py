"""Folders of pretrained models, tuned with `model.pretrained` by the real verbs, come back as folders that plain Transformers opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForImageTextToText, AutoModelForSeq2SeqLM, AutoProcessor, AutoTokenizer

import multitune
from multitune.core.randomness import generator
from multitune.core.result import Result
from multitune.models.predictor import plain
from tests.models.conftest import write_clip
from tests.models.encoder_decoders import write_folders
from tests.models.test_generative_whole import write_smolvlm

pytestmark = pytest.mark.line
TRAIN = {"steps": 4, "batch_size": 4, "micro_batch": 2, "lr": 1e-3, "evaluate_every": 4, "threads": 1}
SHAPES = ("writes", "embeds", "speaks")


@pytest.fixture(scope="module", params=SHAPES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Result]:
    """A T5 with LoRA in it, a CLIP, a SmolVLM: each trained from its folder."""
    shape, root = str(request.param), tmp_path_factory.mktemp("pretrained")
    table = write_table(root)
    if shape == "writes":
        folder = write_folders(root / "models")["t5"]
        made = recipe("text_to_text", table, folder, {"question": "text", "caption": "text"}, strategy={"name": "lora", "rank": 2})
    elif shape == "embeds":
        folder = write_clip(root / "clip")
        made = recipe("retrieval", table, folder, {"picture": "image", "caption": "text"}, strategy="full")
    else:
        folder = write_smolvlm(root / "smolvlm")
        made = recipe("captioning", table, folder, {"picture": "image", "caption": "text"}, strategy="full")
    return shape, root / "run", multitune.train(made, run=root / "run")


def write_table(root: Path) -> Path:
    """Sixteen rows: a question, a picture, a caption; each part of the split has some."""
    lines: list[str] = []
    for place in range(16):
        picture = generator("picture", place).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / f"{place}.png")
        split = "train" if place < 8 else "valid" if place < 12 else "test"
        line = {
            "id": f"r{place}",
            "question": f"what is {place}?",
            "picture": f"{place}.png",
            "caption": f"a red star {place}",
            "split": split,
        }
        lines.append(json.dumps(line))
    (root / "rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return root / "rows.jsonl"


def recipe(task: str, table: Path, folder: Path, parts: Mapping[str, str], strategy: Any) -> dict[str, Any]:
    """A recipe that asks for a folder as it is."""
    answers = {} if task == "retrieval" else {"answers": ["caption"]}
    data = {"source": {"name": "table", "path": str(table)}, "parts": dict(parts), "split": {"column": "split"}}
    evaluate = {"intervals": 0, "baselines": False, "ablations": False} | ({"generate": {"max_new_tokens": 6}} if answers else {})
    made = {"name": "pretrained", "task": task, "data": data | answers, "model": {"pretrained": str(folder)}, "strategy": strategy}
    return made | {"train": dict(TRAIN), "evaluate": evaluate}


def test_evaluating_the_artifact_gives_the_figures_of_the_run(trained: tuple[str, Path, Result]) -> None:
    _, run, result = trained
    again = multitune.evaluate(run)
    assert {name: value for name, value in result.figures.items() if name.startswith("test/")} == dict(again.figures)


def test_predict_gives_every_row_what_it_gives_it_alone(trained: tuple[str, Path, Result]) -> None:
    shape, run, _ = trained
    artifact = multitune.load(run / "artifact")
    column = {"writes": "question", "embeds": "picture", "speaks": "picture"}[shape]
    rows = [json.loads(line) for line in (run.parent / "rows.jsonl").read_text("utf-8").splitlines()]
    given = [{"id": row["id"], column: run.parent / row[column] if column == "picture" else row[column]} for row in rows]
    together = artifact.predict(given)
    assert len(together) == 16
    assert [plain(artifact.predict(one)) for one in given[:3]] == [plain(one) for one in together[:3]]


def test_the_plan_names_the_towers_and_what_moves_is_what_moved(trained: tuple[str, Path, Result]) -> None:
    shape, run, result = trained
    values = json.loads((run / "plan.json").read_text("utf-8"))["values"]
    towers = {name.split(".")[2] for name in values if name.startswith("model.towers.")}
    assert towers == {"writes": {"encoder", "decoder"}, "embeds": {"picture", "caption"}, "speaks": {"picture", "lm"}}[shape]
    assert values["moves.parameters"]["value"] == result.figures["parameters_moved"]
    assert not [finding for finding in result.findings if finding.code in {"did-not-move", "moved-unplanned"}]


def test_plain_transformers_opens_the_folder_and_reads_a_row_the_same(trained: tuple[str, Path, Result]) -> None:
    shape, run, _ = trained
    family: Any = multitune.load(run / "artifact", merge=True).family
    model = run / "artifact" / "model"
    if shape == "writes":
        opened = AutoModelForSeq2SeqLM.from_pretrained(model)
        assert (
            AutoTokenizer.from_pretrained(run / "artifact" / "processor")("a")["input_ids"] == family.preparer.tokenizer("a")["input_ids"]
        )
        assert sorted(path.name for path in (run / "artifact" / "adapters").iterdir()) == ["decoder", "encoder"]
        return
    opened = (AutoModel if shape == "embeds" else AutoModelForImageTextToText).from_pretrained(model)
    AutoProcessor.from_pretrained(run / "artifact" / "processor")
    state = family.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in opened.state_dict().items())
