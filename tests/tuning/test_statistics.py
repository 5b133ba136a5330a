"""Statistics of steps: the numbers of a hand computation, and not one bit of the run changed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from multitune.core.finding import Finding
from multitune.core.protocols import Batch, Features
from multitune.core.recipe import TuningRow
from multitune.tuning import events
from multitune.tuning.events import Probe
from multitune.tuning.events.waiting import Waiting
from multitune.tuning.gradients import Gradients
from multitune.tuning.ranks import Ranks
from multitune.tuning.step import Step
from tests.tuning.fitting import bits, fit
from tests.tuning.small import EVERYTHING, Shape, Small, cut, rows, scope_of, small
from tests.tuning.test_gradients import loss_for

HEAD_ALONE = (TuningRow(pattern="head"), TuningRow(pattern="scale"))


def looked_at(family: Small, batch: Batch, *, sizes: tuple[int, ...] = (4, 4), clip: float = 0.0) -> tuple[dict[str, float], float]:
    """One step of plain gradient descent, with what the probe says of it and the norm of the gradient."""
    scope, probe = scope_of(family), Probe(every=1, parts=tuple(family.needs.parts))
    optimizer = torch.optim.SGD([entry.parameter for entry in scope.entries], lr=0.5)
    step = Step(Gradients(family, loss_for(family.needs), 0, probe=probe), scope=scope, optimizer=optimizer, clip_norm=clip)
    probe.begin(0)
    report = step(0, cut(batch, sizes))
    return probe.values({"one": 3.0, "other": -1.0}) | probe.times(), report.gradient_norm


def of_tower(family: Small, tower: str) -> list[torch.nn.Parameter]:
    return [entry.parameter for entry in scope_of(family).entries if (entry.tower or entry.name.split(".")[0]) == tower]


@pytest.mark.parametrize("shape", ["classify", "speak", "embed"])
@pytest.mark.parametrize("table", [EVERYTHING, HEAD_ALONE], ids=["all", "head"])
def test_looking_changes_no_bit(tmp_path: Path, shape: Shape, table: tuple[TuningRow, ...]) -> None:
    seen, unseen = small(shape, dropout=0.2), small(shape, dropout=0.2)
    fit(seen, tmp_path / "seen", table=table, statistics_every=1)
    fit(unseen, tmp_path / "unseen", table=table, statistics_every=0)
    assert bits(seen) == bits(unseen)


def test_a_tower_s_gradient_norm_is_that_before_clipping_and_squares_add_up() -> None:
    family = small("embed")
    found, whole = looked_at(family, rows(family, 8), clip=1e-3)
    norms = {name: value for name, value in found.items() if name.startswith("train/gradient_norm/")}
    assert set(norms) == {f"train/gradient_norm/{tower}" for tower in ("left", "right", "head", "scale")}
    assert whole > 1e-2
    assert sum(value**2 for value in norms.values()) == pytest.approx(whole**2, rel=1e-5)


def test_an_update_ratio_is_what_the_step_changed_over_what_stood_there() -> None:
    family, before = small("embed"), small("embed")
    found, _ = looked_at(family, rows(family, 8))
    for tower in ("left", "right", "head"):
        now, then = of_tower(family, tower), of_tower(before, tower)
        changed = sum(float((a - b).detach().double().square().sum()) for a, b in zip(now, then, strict=True)) ** 0.5
        size = sum(float(b.detach().double().square().sum()) for b in then) ** 0.5
        assert changed > 0
        assert found[f"train/update_ratio/{tower}"] == pytest.approx(changed / size, rel=1e-4)


def test_a_part_s_share_is_gradient_times_output_at_its_tower() -> None:
    family = small("embed")
    batch, loss = rows(family, 8), loss_for(family.needs)
    scope_of(family)  # puts the batch norm into the mode of a step
    features = family.encode(batch)
    outputs = {part: tree["tokens"] for part, tree in features.parts.items()}
    value = loss.sums(family.join(Features(features.parts), batch), batch)["left_right"] / loss.weights(batch)["left_right"]
    gradients = dict(zip(outputs, torch.autograd.grad(value, list(outputs.values())), strict=True))
    pulls = {part: float((gradients[part].norm(dim=-1) * outputs[part].detach().norm(dim=-1)).sum()) for part in outputs}
    found, _ = looked_at(family, batch, sizes=(3, 3, 2))
    for part in ("left", "right"):
        assert found[f"train/part_share/{part}"] == pytest.approx(pulls[part] / sum(pulls.values()), rel=1e-4)


def test_a_part_has_the_same_share_whether_its_tower_moves_or_is_frozen(tmp_path: Path) -> None:
    shares: list[float] = []
    for name, table in (("all", EVERYTHING), ("head", HEAD_ALONE)):
        fit(small("embed"), tmp_path / name, table=table, steps=1)
        shares += [event["value"] for event in events.read(tmp_path / name / "events.jsonl") if event["name"] == "train/part_share/left"]
    assert shares[0] == pytest.approx(shares[1], rel=1e-6)
    assert 0 < shares[0] < 1


def test_shares_add_up_to_one_in_magnitude() -> None:
    family = small("embed")
    found, _ = looked_at(family, rows(family, 8))
    assert (found["train/loss_share/one"], found["train/loss_share/other"]) == (0.75, 0.25)
    assert found["train/part_share/left"] + found["train/part_share/right"] == pytest.approx(1.0)


def test_the_time_of_a_step_is_divided_among_its_phases() -> None:
    family = small("speak")
    found, _ = looked_at(family, rows(family, 8))
    assert {name for name in found if "seconds" in name} == {f"train/seconds/{phase}" for phase in ("forward", "backward", "optimizer")}
    assert all(value > 0 for name, value in found.items() if "seconds" in name)


def test_of_a_cached_step_the_second_pass_is_told_apart_and_is_in_forward() -> None:
    family = small("embed")
    found, _ = looked_at(family, rows(family, 8), sizes=(4, 4))
    whole, _ = looked_at(family, rows(family, 8), sizes=(8,))
    assert 0 < found["train/seconds/forward_again"] < found["train/seconds/forward"]
    assert "train/seconds/forward_again" not in whole  # one micro-batch runs once


@pytest.mark.parametrize("shape", ["classify", "speak", "embed"])
def test_the_parts_of_a_step_add_up_to_no_more_than_the_step(shape: Shape) -> None:
    family = small(shape)
    began = time.perf_counter()
    found, _ = looked_at(family, rows(family, 8))
    parts = (found[f"train/seconds/{phase}"] for phase in ("forward", "backward", "optimizer"))
    assert 0 < sum(parts) <= time.perf_counter() - began


def test_a_device_that_would_have_to_be_waited_for_is_timed_only_where_it_is_looked_at() -> None:
    probe = Probe(Ranks(device=torch.device("mps")), 10)
    probe.begin(7)
    assert probe.times() == {}
    probe.begin(9)
    assert probe.times() == {"train/seconds/forward": 0.0}


def test_steps_that_starve_are_told_and_short_or_busy_ones_are_not() -> None:
    def told(waited: float, worked: float, workers: int = 0) -> list[Finding]:
        waiting = Waiting()
        for _ in range(10):
            waiting.add(waited / 10, worked / 10)
        return list(waiting.findings(workers))

    (finding,) = told(80, 120)
    assert (finding.code, "80 s (40% of" in finding.message, "train.workers: 2;" in finding.remedy) == ("starved-loader", True, True)
    assert "train.workers: 6, if there are cores" in told(80, 120, workers=3)[0].remedy
    assert not told(80, 300)
    assert not told(30, 1)


def test_the_first_three_steps_are_looked_at_and_then_every_nth(tmp_path: Path) -> None:
    fit(small("classify"), tmp_path, statistics_every=4)
    steps = [event["step"] for event in events.read(tmp_path / "events.jsonl") if event["name"] == "train/update_ratio/words"]
    assert steps == [1, 2, 3, 4, 8]


def test_of_a_tower_too_large_to_copy_every_nth_tensor_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    family = small("classify")
    whole, _ = looked_at(family, rows(family, 8))
    monkeypatch.setattr("multitune.tuning.events.statistics.LARGEST", 2000)
    part, _ = looked_at(small("classify"), rows(family, 8))
    assert part["train/update_ratio/words"] != whole["train/update_ratio/words"]
    assert part["train/update_ratio/words"] == pytest.approx(whole["train/update_ratio/words"], rel=1.0)


def test_a_probe_that_is_not_asked_says_nothing() -> None:
    probe = Probe(Ranks(), 10)
    probe.begin(7)
    assert probe.values({"one": 1.0, "other": 1.0}) == {}
