"""Two ranks are one rank: real processes over gloo on the loopback, for losses over rows, tokens and pairs."""

from __future__ import annotations

import os
import socket
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from multitune.core import catalog
from multitune.core.plan import Value
from multitune.core.recipe import TuningRow
from multitune.tuning import events
from multitune.tuning.engines.accelerate import loop, processes
from multitune.tuning.gradients import Gradients
from multitune.tuning.ranks import Ranks
from tests.tuning.fitting import fit
from tests.tuning.losses.test_learned import Warm, scope_with, several
from tests.tuning.small import Shape, Steps, cut, rows, small
from tests.tuning.test_caching import CHUNKS, EMBEDS, biased, cached, close, pair_losses

SHAPES: tuple[Shape, ...] = ("classify", "speak", "embed")
LEARNING: tuple[Shape, ...] = ("classify", "embed")
SIZES = (3, 2, 2)  # three micro-batches over two ranks: an uneven share


AVERAGED = {"average.ema": {"decay": 0.9, "start": 2, "warmup": True}, "average.interpolate": {"tuned": [0.5]}}

PHASED = {
    "table": (TuningRow(pattern="head", rate=2, stop=4), TuningRow(pattern="head", start=4), TuningRow(pattern="words", start=4)),
    "plateau": {"metric": "valid/loss", "patience": 1, "mode": "auto", "min_delta": 0.0},
    "evaluate_every": 1,
}


def train(
    folder: Path, shape: Shape, *, rank: int = 0, world: int = 1, sizes: tuple[int, ...] = SIZES, **changes: Any
) -> dict[str, torch.Tensor]:
    family = small(shape, dropout=0.1)
    loader = Steps(family, sizes=sizes, rank=rank, world=world)
    fit(family, folder, loader=loader, steps=6, watch=lambda _: {"valid/loss": 1.0}, **changes)
    return {name: tensor.clone() for name, tensor in family.state_dict().items()}


def one_rank_of(world: int, rank: int, port: int, folder: str) -> None:
    """The body of a process."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    warnings.simplefilter("ignore")
    for shape in SHAPES:
        for sizes in (SIZES, (4,)):  # of one micro-batch the second rank has none
            name = f"{shape}-{len(sizes)}"
            result = train(Path(folder) / name, shape, rank=rank, world=world, sizes=sizes)
            if rank == 0:
                save_file(result, Path(folder) / f"{name}.safetensors")
    averaged = train(Path(folder) / "averaged", "classify", rank=rank, world=world, **AVERAGED)
    save_file(averaged, Path(folder) / f"averaged-{rank}.safetensors")
    phased = train(Path(folder) / "phased", "classify", rank=rank, world=world, **PHASED)
    save_file(phased, Path(folder) / f"phased-{rank}.safetensors")
    loop.CHECKPOINT_SECONDS = 1e9 if rank else 0.0  # as two clocks that are far apart
    apart = train(Path(folder) / "apart", "classify", rank=rank, world=world, checkpoint_every=Value(1, "derived"))
    save_file(apart, Path(folder) / f"apart-{rank}.safetensors")
    for shape in LEARNING:
        found = learned_slopes(shape, processes())
        if rank == 0:
            save_file(found, Path(folder) / f"learned-{shape}.safetensors")
    for name in pair_losses():
        for chunk, sizes in CHUNKS.items():
            found = cached(biased(dropout=0.1), catalog.find("loss", name).build(EMBEDS), sizes, ranks=processes())
            if rank == 0:
                save_file(found, Path(folder) / f"cached-{name}-{chunk}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks trained, all shapes in one start."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("spawn")
    processes = [context.Process(target=one_rank_of, args=(2, rank, port, str(folder))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


@pytest.mark.line
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sizes", [SIZES, (4,)], ids=["uneven", "one-idle"])
def test_two_ranks_train_what_one_trains(two_ranks: Path, tmp_path: Path, shape: Shape, sizes: tuple[int, ...]) -> None:
    alone = train(tmp_path, shape, sizes=sizes)
    together = load_file(two_ranks / f"{shape}-{len(sizes)}.safetensors")
    untouched = small(shape, dropout=0.1).state_dict()
    assert any(not torch.equal(alone[name], untouched[name]) for name in alone)
    for name, tensor in alone.items():
        assert torch.allclose(tensor.float(), together[name].float(), atol=1e-5, rtol=0), name


def learned_slopes(shape: Shape, ranks: Ranks) -> dict[str, torch.Tensor]:
    """The gradients of three micro-batches, those of what the loss learns among them; rank 1 has one of the three."""
    family = small(shape)
    loss = Warm(family.needs) if shape == "embed" else several(family)
    scope = scope_with(family, loss)
    micro = [piece for piece in cut(rows(family, 7), SIZES) if piece[0] % ranks.world == ranks.rank]
    work = Gradients(family, loss, 0, ranks).work(0, micro)
    for position in work.order():
        work.backward(position)
    ranks.sum_gradients([entry.parameter for entry in scope.entries])
    return {entry.name: entry.parameter.grad for entry in scope.entries if entry.parameter.grad is not None}


@pytest.mark.line
@pytest.mark.parametrize("shape", LEARNING)
def test_two_ranks_give_what_a_loss_learns_the_gradient_of_one(two_ranks: Path, shape: Shape) -> None:
    alone, together = learned_slopes(shape, Ranks()), load_file(two_ranks / f"learned-{shape}.safetensors")
    assert any(name.startswith("loss.") for name in alone)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        assert (together[name] - value).norm() <= 1e-5 * value.norm() + 1e-7, name


@pytest.mark.line
@pytest.mark.parametrize("shape", SHAPES)
def test_two_ranks_tell_of_their_steps_what_one_tells(two_ranks: Path, tmp_path: Path, shape: Shape) -> None:
    train(tmp_path, shape)
    one, two = (
        {(e["step"], e["name"]): e["value"] for e in events.read(folder / "events.jsonl") if "seconds" not in e["name"]}
        for folder in (tmp_path, two_ranks / f"{shape}-3")
    )
    assert any("update_ratio" in name for _, name in one)
    assert two == pytest.approx(one, rel=1e-3, abs=1e-6)


@pytest.mark.line
def test_two_ranks_keep_the_checkpoints_of_the_main_process_whatever_their_clocks_say(two_ranks: Path, tmp_path: Path) -> None:
    alone = train(tmp_path, "classify")
    for rank in (0, 1):
        for name, tensor in load_file(two_ranks / f"apart-{rank}.safetensors").items():
            assert torch.allclose(alone[name].float(), tensor.float(), atol=1e-5, rtol=0), name
    assert [*(two_ranks / "apart" / "checkpoints").glob("step-*")]


@pytest.mark.line
def test_two_ranks_average_what_one_averages_and_hold_the_same(two_ranks: Path, tmp_path: Path) -> None:
    alone, first, second = (
        train(tmp_path, "classify", **AVERAGED),
        *(load_file(two_ranks / f"averaged-{rank}.safetensors") for rank in (0, 1)),
    )
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(tensor.float(), first[name].float(), atol=1e-5, rtol=0), name


@pytest.mark.line
def test_two_ranks_bring_a_phase_forward_together(two_ranks: Path, tmp_path: Path) -> None:
    alone = train(tmp_path, "classify", **PHASED)
    first, second = (load_file(two_ranks / f"phased-{rank}.safetensors") for rank in (0, 1))
    told = [event["step"] for event in events.read(two_ranks / "phased" / "events.jsonl") if event["name"] == "train/phase_brought_forward"]
    assert told == [2]
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(tensor.float(), first[name].float(), atol=1e-5, rtol=0), name


@pytest.mark.line
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", pair_losses())
def test_two_ranks_cache_the_gradient_that_one_caches(two_ranks: Path, name: str, chunk: str) -> None:
    alone = cached(biased(dropout=0.1), catalog.find("loss", name).build(EMBEDS), CHUNKS[chunk], ranks=Ranks())
    together = load_file(two_ranks / f"cached-{name}-{chunk}.safetensors")
    assert close(together, alone)
