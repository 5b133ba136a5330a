"""Compiled blocks in a run: what is looked at changes no graph, and two ranks are one, killed or not."""

from __future__ import annotations

import json
import os
import socket
import warnings
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from multitune.core.protocols import Batch, Features, Outputs
from multitune.core.recipe import TuningRow
from multitune.tuning import checkpoint, events
from multitune.tuning.compiling.blocks import Compiled
from tests.tuning.compiling.test_blocks import TRACED
from tests.tuning.fitting import DyingSteps, Killed, bits, fit
from tests.tuning.small import LENGTH, Small, Steps, small

pytestmark = pytest.mark.slow
ABOVE = (TuningRow(pattern="right.encoder*"), TuningRow(pattern="head"))
SIZES = (3, 2, 2)  # over two ranks: the first has three rows and then two, the second two alone


class Stacked(Small):
    """Blocks of the right tower read what both parts' features hold, before any of them can be told to be of one part."""

    def encode(self, batch: Batch) -> Features:
        """The left tower's tokens, and the right tower's words."""
        features = {"left": self.tower["left"](**batch.inputs["left"]).last_hidden_state}
        features["right"] = self.towers["right"].embeddings(batch.inputs["right"]["input_ids"])
        return Features({part: {"tokens": tokens} for part, tokens in features.items()})

    def join(self, features: Features, batch: Batch) -> Outputs:
        """Outputs of the shape."""
        both = torch.cat([tree["tokens"] for tree in features.parts.values()], dim=1)
        right = self.towers["right"].encoder(both).last_hidden_state[:, LENGTH:]
        return super().join(Features({"left": features.parts["left"], "right": {"tokens": right}}), batch)


def kept(folder: Path) -> list[str]:
    """What the newest checkpoint of a run holds of its compiled blocks, by rank."""
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return found.state.facts["compiled"]


@pytest.fixture
def _traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks run as `TRACED` says."""
    kwdefaults: Any = Compiled.__init__.__kwdefaults__
    monkeypatch.setitem(kwdefaults, "backend", TRACED)


def told(folder: Path) -> set[str]:
    return {event["name"].split("/")[1] for event in events.read(folder / "events.jsonl")}


@pytest.mark.usefixtures("_traced")
def test_looking_at_a_step_compiles_no_other_graph_and_tells_no_part_share(tmp_path: Path) -> None:
    found: list[tuple[list[str], str]] = []
    for name, every in (("seen", 1), ("unseen", 0)):
        family = Stacked("embed")
        family.load_state_dict(small("embed").state_dict())
        fit(family, tmp_path / name, table=ABOVE, steps=2, statistics_every=every, compile=True)
        found.append((kept(tmp_path / name), bits(family)))
    assert found[0] == found[1]
    assert json.loads(found[0][0][0])["calls"]
    assert "gradient_norm" in told(tmp_path / "seen")
    assert "part_share" not in told(tmp_path / "seen")


def train(folder: Path, *, rank: int = 0, world: int = 1, last: int = -1, **changes: Any) -> Mapping[str, torch.Tensor]:
    """What a run of six steps comes to. last: it is killed before this step, and goes on."""
    family = small("embed")
    if last > 0:
        dying = DyingSteps(family, sizes=SIZES, rank=rank, world=world)
        dying.last = last
        with pytest.raises(Killed):
            fit(family, folder, loader=dying, steps=6, **changes)
        family = small("embed")
    fit(family, folder, loader=Steps(family, sizes=SIZES, rank=rank, world=world), steps=6, **changes)
    return {name: tensor.clone() for name, tensor in family.state_dict().items()}


def one_rank_of(world: int, rank: int, port: int, folder: str) -> None:
    """The body of a process."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    warnings.simplefilter("ignore")
    kwdefaults: Any = Compiled.__init__.__kwdefaults__
    kwdefaults["backend"] = TRACED
    for name, last in (("whole", -1), ("killed", 5)):
        found = train(Path(folder) / name, rank=rank, world=world, last=last, compile=True)
        save_file(dict(found), Path(folder) / f"{name}-{rank}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks trained, once in one go and once killed."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [get_context("spawn").Process(target=one_rank_of, args=(2, rank, port, str(folder))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=500)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


def apart(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return max(float((tensor.float() - other[name].float()).abs().max()) for name, tensor in one.items())


@pytest.mark.usefixtures("_traced")
def test_two_compiled_ranks_train_what_one_rank_trains_compiled_or_not(two_ranks: Path, tmp_path: Path) -> None:
    first, second = (load_file(two_ranks / f"whole-{rank}.safetensors") for rank in range(2))
    moved = {name: tensor for name, tensor in first.items() if "running" not in name and "batches" not in name}
    assert apart(moved, second) == 0.0
    for name, compiles in (("compiled", True), ("plain", False)):
        assert apart(first, train(tmp_path / name, compile=compiles)) < 1e-5, name


def test_two_compiled_ranks_keep_what_each_compiled_and_go_on_to_the_same_bits(two_ranks: Path) -> None:
    first, second = (json.loads(text)["calls"] for text in kept(two_ranks / "whole"))
    assert 0 < len(second) < len(first), "the second has seen one number of rows"
    assert kept(two_ranks / "killed") == kept(two_ranks / "whole")
    for rank in range(2):
        whole, killed = (load_file(two_ranks / f"{name}-{rank}.safetensors") for name in ("whole", "killed"))
        assert apart(whole, killed) == 0.0
