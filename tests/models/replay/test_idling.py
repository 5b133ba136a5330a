"""What nothing that is read of a tower depends on is not run to encode it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.models.replay import encode_rows, probe_rows, settle
from multitune.models.replay.idling import idle
from multitune.models.replay.recording import collated
from tests.models import seeing
from tests.models.features.conftest import moving, whole


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of pictures and text that reads the last block but one of its picture tower."""
    return whole(tmp_path_factory.mktemp("idling") / "llava", "llava")


def test_a_tower_read_at_its_last_block_but_one_is_encoded_without_the_last(sighted: Any) -> None:
    seam, rows, ran = settle(sighted, moving(sighted, "photo.")).seams["photo"], probe_rows(sighted), list[str]()
    (last,) = seam.idle
    assert last.endswith(f".layers.{seeing.SIGHT['num_hidden_layers'] - 1}")
    hook = sighted.get_submodule(f"{last}.mlp").register_forward_hook(lambda *_: ran.append(last))
    without = encode_rows(sighted, seam, rows)
    assert not ran
    usual = encode_rows(sighted, replace(seam, idle=()), rows)
    assert ran
    hook.remove()
    for one, other in zip(without, usual, strict=True):
        assert one is not None
        assert other is not None
        assert one.shapes == other.shapes
        assert all(map(torch.equal, one.tensors, other.tensors))


def test_a_block_that_changes_what_was_given_before_it_is_not_left_out(sighted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seam, rows = settle(sighted, moving(sighted, "photo.")).seams["photo"], probe_rows(sighted)
    last = sighted.get_submodule(seam.idle[0])
    forward = last.forward

    def written(states: torch.Tensor, *args: Any, **more: Any) -> Any:
        states += 1
        return forward(states, *args, **more)

    monkeypatch.setattr(last, "forward", written)
    sighted.eval()
    assert idle(sighted, seam, collated(sighted, rows[:1])) == ()


def test_a_tower_read_at_its_end_is_encoded_whole(tmp_path: Path) -> None:
    model = whole(tmp_path / "smolvlm", "smolvlm")
    assert settle(model, moving(model, "photo.")).seams["photo"].idle == ()
