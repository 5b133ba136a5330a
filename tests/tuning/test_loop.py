"""The loop: a run that was killed goes on to the same bits, stops when told, and ends with the best weights."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.core.errors import Fault, NoMemoryError, NonFiniteError, RecipeError, StateError, Stopped
from multitune.core.plan import Value
from multitune.core.recipe import TuningRow
from multitune.tuning import checkpoint, events
from tests.tuning.fitting import DyingSteps, Killed, bits, fit, nothing
from tests.tuning.small import Shape, Small, Steps, small


def killed_before(step: int, family: Small, folder: Path, **options: Any) -> None:
    loader = DyingSteps(family)
    loader.last = step
    with pytest.raises(Killed):
        fit(family, folder, loader=loader, **options)


@pytest.mark.parametrize("shape", ["classify", "speak", "embed"])
@pytest.mark.parametrize("step", [3, 6])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, shape: Shape, step: int) -> None:
    """With dropout, two epochs, two micro-batches a step, evaluation between, and one more kill on the way."""
    whole = small(shape, dropout=0.2)
    fit(whole, tmp_path / "whole")
    killed_before(step, small(shape, dropout=0.2), tmp_path / "killed")
    torch.manual_seed(1234)
    killed_before(step + 1, small(shape, dropout=0.2), tmp_path / "killed")
    resumed = small(shape, dropout=0.2)
    loader = Steps(resumed)
    fit(resumed, tmp_path / "killed", loader=loader)
    assert loader.taken[0] > 0
    assert bits(resumed) == bits(whole)


def test_a_killed_run_leaves_the_events_of_an_uninterrupted_one(tmp_path: Path) -> None:
    fit(small("classify"), tmp_path / "whole", watch=lambda _: {"valid/loss": 1.0})
    killed_before(5, small("classify"), tmp_path / "killed", watch=lambda _: {"valid/loss": 1.0})
    with (tmp_path / "killed" / "events.jsonl").open("a") as stream:
        stream.write('{"step": 5, "seco')
    fit(small("classify"), tmp_path / "killed", watch=lambda _: {"valid/loss": 1.0})
    one, other = (
        [(e["step"], e["name"], e["value"]) for e in events.read(tmp_path / name / "events.jsonl") if "/seconds/" not in e["name"]]
        for name in ("whole", "killed")
    )
    assert one == other


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_a_checkpoint_and_the_same_call_goes_on(tmp_path: Path, number: int) -> None:
    class Signalled(Steps):
        def steps(self, start: int, stop: int) -> Any:
            for batch in super().steps(start, stop):
                if batch.step == 2:
                    os.kill(os.getpid(), number)
                yield batch

    whole = small("classify", dropout=0.2)
    fit(whole, tmp_path / "whole")
    before = signal.getsignal(number)
    family = small("classify", dropout=0.2)
    with pytest.raises(Stopped) as stopped:
        fit(family, tmp_path / "run", loader=Signalled(family))
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert checkpoint.at(tmp_path / "run" / "checkpoints", 3).is_dir()
    resumed = small("classify", dropout=0.2)
    fit(resumed, tmp_path / "run")
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize("step", [4, 8])
def test_a_signal_within_an_evaluation_ends_it_at_once_and_the_same_call_goes_on(tmp_path: Path, step: int) -> None:
    looks: list[str] = []

    def watch(family: Small) -> dict[str, float]:
        looks.append("begun")
        if len(looks) == (1 if step == 4 else 3):
            os.kill(os.getpid(), signal.SIGTERM)
        looks.append("ended")
        return {"valid/loss": float(len(looks))}

    whole = small("classify", dropout=0.2)
    fit(whole, tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        fit(small("classify", dropout=0.2), tmp_path / "run", watch=watch)
    assert stopped.value.exit_code == 143
    assert looks[-1] == "begun"
    assert max(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == f"step-{step:06d}"
    resumed, before = small("classify", dropout=0.2), len(looks)
    outcome = fit(resumed, tmp_path / "run", watch=lambda family: looks.append("ended") or {"valid/loss": 7.0})
    assert bits(resumed) == bits(whole)
    assert len(looks) - before == (2 if step == 4 else 1)
    assert outcome.best_figures == {"valid/loss": 7.0}


def test_a_stop_before_a_due_evaluation_evaluates_on_resume(tmp_path: Path) -> None:
    class Signalled(Steps):
        def steps(self, start: int, stop: int) -> Any:
            for batch in super().steps(start, stop):
                if batch.step == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    seen: list[int] = []
    family = small("classify")
    with pytest.raises(Stopped):
        fit(family, tmp_path, loader=Signalled(family), watch=lambda _: seen.append(1) or {})
    assert seen == []
    fit(small("classify"), tmp_path, watch=lambda _: seen.append(1) or {})
    assert len(seen) == 2


@pytest.mark.parametrize(("seconds", "origin", "kept"), [(0.0, "derived", 4), (1e9, "derived", 1), (1e9, "recipe", 4)])
def test_checkpoints_that_nobody_asked_for_are_some_seconds_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, origin: Any, kept: int
) -> None:
    monkeypatch.setattr("multitune.tuning.engines.accelerate.loop.CHECKPOINT_SECONDS", seconds)
    fit(small("classify"), tmp_path, keep=9, evaluate_every=2, checkpoint_every=Value(2, origin))
    assert len([*(tmp_path / "checkpoints").glob("step-*")]) == kept


def test_early_stopping_ends_the_run_with_the_best_weights(tmp_path: Path) -> None:
    kept: dict[int, str] = {}
    figures = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.5])

    def watch(family: Small) -> dict[str, float]:
        kept[len(kept) + 1] = bits(family)
        return {"valid/accuracy": next(figures)}

    family = small("classify")
    options = {"metric": "valid/accuracy", "patience": 2}
    outcome = fit(family, tmp_path, watch=watch, evaluate_every=1, checkpoint_every=8, early_stop=options)
    assert (outcome.step, outcome.best_step, outcome.best_figures) == (4, 2, {"valid/accuracy": 0.9})
    assert "valid/accuracy" in outcome.stopped_by
    assert bits(family) == kept[2]


def test_a_run_that_stopped_early_and_was_killed_answers_alike(tmp_path: Path) -> None:
    options = {"metric": "valid/loss", "patience": 1}
    figures = iter([1.0, 2.0])
    fit(small("classify"), tmp_path, watch=lambda _: {"valid/loss": next(figures)}, evaluate_every=2, early_stop=options)
    again = small("classify")
    loader = Steps(again)
    outcome = fit(again, tmp_path, loader=loader, watch=nothing, evaluate_every=2, early_stop=options)
    assert (loader.taken, outcome.step, outcome.best_step) == ([], 4, 2)


def test_the_model_is_evaluated_at_rest(tmp_path: Path) -> None:
    modes: list[bool] = []
    family = small("classify", dropout=0.2)
    fit(family, tmp_path, watch=lambda model: modes.append(any(module.training for module in model.modules())) or {})
    assert modes == [False, False]


@pytest.mark.parametrize("shape", ["classify", "speak", "embed"])
def test_a_loss_that_is_not_finite_stops_before_anything_moves_and_names_the_row(tmp_path: Path, shape: Shape) -> None:
    healthy = small(shape)
    killed_before(2, healthy, tmp_path / "healthy")
    family = small(shape)
    family.sick = "row-205"
    with pytest.raises(NonFiniteError, match=r"step 3: .*samples row-205\. ") as caught:
        fit(family, tmp_path / "sick")
    assert caught.value.exit_code == 3
    assert bits(family) == bits(healthy)


def test_a_machine_without_memory_is_told_with_a_smaller_micro_batch(tmp_path: Path) -> None:
    family = small("classify")
    before = bits(family)
    family.head["drop"].register_forward_hook(lambda *_: torch.empty(1 << 52))
    with pytest.raises(NoMemoryError, match=r"step 1: .* a micro-batch of 5 rows\. Try train\.micro_batch=2: ") as caught:
        fit(family, tmp_path, loader=Steps(family, sizes=(5, 3)))
    assert caught.value.exit_code == 3
    assert bits(family) == before


def test_an_error_of_the_model_is_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    family = small("classify")
    family.head["drop"].register_forward_hook(lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        fit(family, tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_anything_moves_and_names_the_micro_batch(tmp_path: Path) -> None:
    family = small("classify")
    before = bits(family)

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan if len(gradient) == 3 else gradient

    def hook(_: Any, __: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(spoil)

    family.head["drop"].register_forward_hook(hook)
    with pytest.raises(NonFiniteError, match="samples row-5, row-6, row-7"):
        fit(family, tmp_path, loader=Steps(family, sizes=(5, 3)))
    assert bits(family) == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    killed_before(5, small("classify", seed=0), tmp_path)
    with pytest.raises(StateError, match="another than the run began with"):
        fit(small("classify", seed=1), tmp_path)


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    killed_before(5, small("classify"), tmp_path)
    with pytest.raises(StateError, match="plan"):
        fit(small("classify"), tmp_path, lr=0.5)


def test_a_broken_checkpoint_is_passed_over_and_the_bits_stay(tmp_path: Path) -> None:
    whole = small("classify", dropout=0.2)
    fit(whole, tmp_path / "whole")
    killed_before(7, small("classify", dropout=0.2), tmp_path / "run")
    file = checkpoint.at(tmp_path / "run" / "checkpoints", 6) / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    family = small("classify", dropout=0.2)
    loader = Steps(family)
    outcome = fit(family, tmp_path / "run", loader=loader)
    assert loader.taken[0] == 4
    assert [finding.code for finding in outcome.findings if finding.code != "did-not-move"] == ["checkpoint-bad"]
    assert bits(family) == bits(whole)


def test_a_tensor_that_starts_later_moves_only_then(tmp_path: Path) -> None:
    family = small("classify")
    table = (TuningRow(pattern="head"), TuningRow(pattern="words.encoder.layer.1", start=4))
    weight = family.tower["words"].encoder.layer[1].output.dense.weight
    start = weight.detach().clone()
    seen: list[bool] = []
    fit(family, tmp_path, table=table, watch=lambda _: seen.append(torch.equal(start, weight)) or {})
    assert seen == [True, False]


def test_events_say_what_each_step_gave(tmp_path: Path) -> None:
    fit(small("classify"), tmp_path, statistics_every=0)
    first, *lines = (tmp_path / "events.jsonl").read_text("utf-8").splitlines()
    assert json.loads(first) == {"form": 1}
    times = {f"train/seconds/{part}" for part in ("forward", "backward", "optimizer")}
    each = {"train/loss", "train/lr", "train/gradient_norm", "train/wait_seconds"} | times
    assert {json.loads(line)["name"] for line in lines} == each
    assert len(lines) == 8 * len(each)
    assert [json.loads(line)["step"] for line in lines if '"train/loss"' in line] == list(range(1, 9))


def test_stopping_early_by_a_figure_that_nothing_measures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match='"valid/accuracy" is not measured'):
        fit(small("classify"), tmp_path, early_stop={"metric": "valid/accuracy"})


def test_events_on_a_full_disk_are_a_fault_that_names_the_file(tmp_path: Path) -> None:
    written = events.Events(tmp_path / "events.jsonl", after=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(Fault, match=r"events\.jsonl: cannot be written"):
            written.write({f"figure/{number}": 1.0 for number in range(1000)}, step=1, seconds=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        written.close()
