"""What is compared: the settings (data, steps) and the arms (strategy, rate), as recipes.

Every arm of a setting reads the same rows in the same order for the same steps, on one thread. The rates of `frozen`, `full`, `partial`
and `lora` were chosen once among three, a factor of three apart, by the validation split of `chimes-200` under a seed that is none of
the five measured (`python -m benchmarks.strategies.rates`); the other arms have the rate of their kin. `scratch` has its best of
three by validation in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2, 3, 4)
SEED_FOR_RATES = 10
SCRATCH_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Setting:
    """Data and length. elsewhere: a source of the other domain, on which the tuned model is measured too."""

    name: str
    title: str
    answer: str
    parts: tuple[str, ...]
    data: Mapping[str, Any]
    steps: int
    elsewhere: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One way of tuning. rates: one, or several of which validation takes the best. more: further sections of the recipe."""

    name: str
    strategy: Any
    rates: tuple[float, ...]
    weights: str = "pretrained"
    more: Mapping[str, Any] = field(default_factory=dict)
    needs_two_towers: bool = False


def _chimes(a_class: int, steps: int) -> Setting:
    source = {"name": "chimes", "rows": 2000, "seed": 7, "domain": "target", "valid": 0.1, "test": 0.25}
    return Setting(
        name=f"chimes-{a_class}",
        title=f"chimes, domain target, pairing (4 classes), {a_class} rows a class, {steps} steps",
        answer="pairing",
        parts=("image", "audio"),
        data={"source": source, "split": {"column": "split"}, "limit": 4 * a_class},
        steps=steps,
        elsewhere={"name": "chimes", "rows": 250, "seed": 8, "domain": "base"},
    )


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        _chimes(20, 50),
        _chimes(200, 100),
        Setting(
            name="digits-10",
            title="digits (real scans, 10 classes), 10 rows a class, 80 steps",
            answer="label",
            parts=("image",),
            data={"source": "digits", "split": {"train": 0.6, "valid": 0.1, "test": 0.3}, "limit": 100},
            steps=80,
        ),
    )
}

HEAD = 5.0
FULL = {"name": "full", "head_rate": HEAD}
LOOKS = {"evaluate_every": 10, "keep": 10}
SOUP = {"soup": {"best": 3, "greedy": True}, "metric": "valid/accuracy"}  # of the evaluations, every 10 steps
WISE = {"interpolate": {"tuned": [0.25, 0.5, 0.75, 1.0]}, "metric": "valid/accuracy"}
LATER_SOUND = {"name": "per_modality", "towers": {"image": 1.0, "audio": {"rate": 0.5, "start": "30%"}}, "head_rate": HEAD}
ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("scratch", "full", SCRATCH_RATES, weights="random"),
        Arm("frozen", {"name": "partial", "blocks": 0}, (3e-3,)),
        Arm("full", FULL, (3e-4,)),
        Arm("partial", {"name": "partial", "blocks": 2, "head_rate": HEAD}, (9e-4,)),
        Arm("progressive", {"name": "progressive", "blocks": 2, "over": "60%", "head_rate": HEAD}, (3e-4,)),
        Arm("lp_ft", {"name": "lp_ft", "probe": "40%", "probe_rate": 10.0, "head_rate": HEAD}, (3e-4,)),
        Arm("per_modality", LATER_SOUND, (3e-4,), needs_two_towers=True),
        Arm("layer_decay", {"name": "full", "head_rate": HEAD, "layer_decay": 0.8}, (6e-4,)),
        Arm("adapter", {"name": "adapter"}, (2e-3,)),
        Arm("lora", {"name": "lora", "rank": 8}, (2e-3,)),
        Arm("dora", {"name": "lora", "rank": 8, "dora": True}, (2e-3,)),
        Arm("bitfit", {"name": "bitfit"}, (3e-3,)),
        Arm("norm", {"name": "norm"}, (3e-3,)),
        Arm("wise_ft", FULL, (3e-4,), more={"average": WISE}),
        Arm("ema", FULL, (3e-4,), more={"average": {"ema": {"decay": 0.95}}}),
        Arm("soup", FULL, (3e-4,), more={"average": SOUP, "train": LOOKS}),
    )
}
QUICK = ("scratch", "frozen", "full", "progressive", "lp_ft", "per_modality", "adapter", "lora")


def recipe(setting: Setting, arm: Arm, *, seed: int, rate: float) -> dict[str, Any]:
    """The recipe of one run; the seed also chooses the training rows and the split of what has no split of its own."""
    split = {**setting.data["split"], "seed": seed}
    towers = {part: {"pretrained": f"tiny/{part}", "weights": arm.weights} for part in setting.parts}
    return {
        "name": f"{setting.name}-{arm.name}",
        "task": "classification",
        "seed": seed,
        "data": {
            **setting.data,
            "split": split,
            "parts": {part: part for part in setting.parts} | {setting.answer: "category"},
            "answers": [setting.answer],
        },
        "model": {"name": "fusion_encoder", "fuse": "concat", "towers": towers},
        "strategy": arm.strategy,
        "train": {
            "steps": setting.steps,
            "batch_size": 32,
            "lr": rate,
            "warmup": "10%",
            "evaluate_every": setting.steps,
            "checkpoint_every": setting.steps,
            "keep": 1,
            "threads": 1,
            **arm.more.get("train", {}),
        },
        "evaluate": {"baselines": False, "ablations": False, "intervals": 0},
        **{name: section for name, section in arm.more.items() if name != "train"},
    }
