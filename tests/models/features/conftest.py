"""Rows of pictures in files and of texts, and small families of the three shapes with frozen towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multitune.core import catalog
from multitune.core.protocols import AnswerNeed, Needs, Part, PartNeed, Sample
from multitune.data.sample import placed
from multitune.models import anatomy
from multitune.models.features.filling import Features
from multitune.models.features.keys import Asked
from multitune.models.features.ways import ways
from multitune.models.load import Weights
from multitune.models.replay import Seam, Settled, settle
from tests.models import encoder_decoders, seeing, speaking
from tests.models.conftest import write_clip
from tests.models.test_generative_whole import write_smolvlm

ASKED = Asked("fp32", 1)


def picture(folder: Path, name: str, seed: int) -> Part:
    """A picture in a file."""
    modality = catalog.find("modality", "image").build()
    suffix, data = modality.encode(modality.synthesize(seed))
    path = folder / f"{name}{suffix}"
    path.write_bytes(data)
    return Part("image", placed(str(path), None))


def written(folder: Path, count: int = 21) -> list[Sample]:
    """Rows of a picture, a text of some length and a class; some lack one of the two."""
    words = ("a small red circle", "two blue stars near a river", "a", "bright quiet river under two stars and a small red circle")
    made = []
    for number in range(count):
        parts = {"photo": picture(folder, f"p{number}", number), "words": Part("text", words[number % 4] + " a" * (number % 3))}
        lost = {5: "photo", 11: "words"}.get(number)
        made.append(
            Sample(
                f"row-{number}",
                {name: part for name, part in parts.items() if name != lost} | {"label": Part("category", "ab"[number % 2])},
            )
        )
    return made


@pytest.fixture(autouse=True)
def _long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests were all written just now; here none is so young that its stamp tells nothing."""
    monkeypatch.setattr("multitune.models.features.contents.FRESH_NANOSECONDS", 0)


@pytest.fixture
def rows(tmp_path: Path) -> list[Sample]:
    """Rows in files."""
    (tmp_path / "media").mkdir()
    return written(tmp_path / "media")


def classifier(folders: Mapping[str, Path], **options: Any) -> Any:
    """A fusion encoder of a picture tower and a text tower."""
    needs = Needs({"photo": PartNeed("image"), "words": PartNeed("text")}, {"label": AnswerNeed("category", ("a", "b"))})
    given = {"towers": {"photo": str(folders["vit"]), "words": str(folders["bert"])}, "fuse": "cross_attention"} | options
    return catalog.find("family", "fusion_encoder", given).build(needs, Weights())


def embedder(folders: Mapping[str, Path]) -> Any:
    """A dual encoder of the same towers."""
    needs = Needs({"photo": PartNeed("image"), "words": PartNeed("text")}, {})
    given = {"towers": {"photo": str(folders["vit"]), "words": str(folders["bert"])}}
    return catalog.find("family", "dual_encoder", given).build(needs, Weights())


def clip_embedder(folder: Path) -> Any:
    """A CLIP taken whole."""
    needs = Needs({"photo": PartNeed("image"), "words": PartNeed("text")}, {})
    return catalog.find("family", "dual_encoder", {"pretrained": str(write_clip(folder))}).build(needs, Weights())


def speaker(folder: Path) -> Any:
    """A picture tower, a connector and a language model, which answers with the words."""
    needs = Needs({"photo": PartNeed("image")}, {"words": AnswerNeed("text")})
    folders = speaking.write_folders(folder)
    given = {"lm": {"pretrained": str(folders["gpt2"])}, "towers": {"photo": {"pretrained": str(folders["vit"])}}}
    return catalog.find("family", "generative", given).build(needs, Weights())


SIGHTED = {"llava": seeing.write_llava, "qwen": seeing.write_qwen, "smolvlm": write_smolvlm}


def whole(folder: Path, kind: str, *more: str) -> Any:
    """A model that joins pictures and text itself; more: names of further pictures."""
    pictures = dict.fromkeys(("photo", *more), PartNeed("image"))
    needs = Needs({**pictures, "ask": PartNeed("text")}, {"words": AnswerNeed("text")})
    return catalog.find("family", "generative", {"pretrained": str(SIGHTED[kind](folder))}).build(needs, Weights())


def asking(rows: Sequence[Sample], *more: str) -> list[Sample]:
    """The rows with a question, and with further pictures in all but every third row."""
    made: list[Sample] = []
    for place, row in enumerate(without(row, "label") for row in rows if "words" in row.parts):
        asked = {"ask": Part("text", "what " * (place % 4) + "is it?")}
        others = {name: rows[(place + 1) % len(rows)].parts.get("photo") for name in more if place % 3}
        made.append(replace(row, parts=row.parts | asked | {name: part for name, part in others.items() if part is not None}))
    return made


def two_sided(folder: Path, kind: str) -> Any:
    """An encoder-decoder."""
    return encoder_decoders.built(encoder_decoders.write_folders(folder)[kind], encoder_decoders.needs(kind))


def moving(family: Any, *still: str) -> list[str]:
    """Public names of everything but what begins with one of these."""
    return [name for name in anatomy.find(family).parameters if not name.startswith(still)]


def opened(family: Any, names: Sequence[str], root: Path, asked: Asked = ASKED) -> Features:
    """The store for the cuts of a family in which these move; each must hold."""
    settled: Settled = settle(family, names)
    assert all(proof.equal for proof in settled.proofs), settled.lines()
    known = ways(family.preparer)
    return Features.open(family, {tower: seam for tower, seam in settled.seams.items() if tower in known}, root=root, asked=asked)[0]


def without(sample: Sample, *names: str) -> Sample:
    """The sample without these parts."""
    return replace(sample, parts={name: part for name, part in sample.parts.items() if name not in names})


@pytest.fixture(scope="module")
def family(folders: Mapping[str, Path]) -> Any:
    """A classifier over frozen towers."""
    return classifier(folders)


@pytest.fixture(scope="module")
def seams(family: Any) -> Mapping[str, Seam]:
    """Its cuts."""
    return settle(family, moving(family, "photo", "words")).seams
