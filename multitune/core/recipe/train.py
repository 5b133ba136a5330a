"""The recipe's `train`: how long, how fast, in what batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from multitune.core.recipe.bucket import BucketSpec
from multitune.core.recipe.component import Component, Strict, Watched, step_or_share

# Fields of train that exclude others: null says that one is not stated.
TAKES_THE_PLACE = ("epochs", "steps", "decay", "batch_size", "batch_tokens", "micro_batch")


class EarlyStop(Strict):
    """Stop when `metric` has not become better for `patience` evaluations; the best checkpoint becomes the artifact."""

    metric: Watched
    patience: int = Field(default=3, ge=1)
    mode: Literal["auto", "max", "min"] = "auto"
    min_delta: float = Field(default=0.0, ge=0)


class Plateau(Strict):
    """Start the next phase early when `metric` has not become better for `patience` evaluations of this one."""

    metric: Watched
    patience: int = Field(default=2, ge=1)
    mode: Literal["auto", "max", "min"] = "auto"
    min_delta: float = Field(default=0.0, ge=0)


class TrainSpec(Strict):
    """How long, how fast, in what batches."""

    epochs: float = Field(default=3.0, gt=0, le=1_000_000)
    steps: int = Field(default=0, ge=0, description="optimizer steps; 0: from epochs")
    batch_size: int = Field(default=32, ge=1, description="rows of one optimizer step, over all micro-batches and ranks")
    batch_tokens: int = Field(default=0, ge=0, description="padded tokens of one optimizer step, in place of batch_size; 0: by rows")
    bucket: BucketSpec | None = Field(default=None, description="rows of like length go together: less padding; null: as they are drawn")
    micro_batch: int = Field(default=0, ge=0, description="rows in one forward; 0: the whole batch (of one rank)")
    lr: float = Field(default=1e-4, gt=0)
    optimizer: Component = Component(name="adamw")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0, description="on weights of two or more dimensions; none on biases, norms, scales")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: int | str = "5%"
    decay: int | str = Field(default="100%", description="steps at the end over which the rate comes down; flat before")
    l1: float = Field(default=0.0, ge=0, description="penalty on the absolute values of what decays")
    l2: float = Field(default=0.0, ge=0, description="penalty on half the squares of what decays, as a part of the gradient")
    l2_sp: float = Field(default=0.0, ge=0, description="penalty on half the squared distance of towers from where they started")
    drift: bool = Field(default=False, description="tell how far each block went from where it started")
    clip_norm: float = Field(default=1.0, ge=0, description="0: no clipping")
    clip_value: float = Field(default=0.0, ge=0, description="largest value in the gradient, in place of clip_norm; 0: none")
    checkpoint_activations: bool = Field(default=False, description="compute what blocks hold again on the way back: less memory")
    compile: bool = Field(default=False, description="blocks of towers run compiled by torch in training: faster steps, a slow start")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    batch_norm: Literal["eval", "moving"] = "eval"
    balance: str = Field(default="", description="answer whose classes are drawn equally often")
    evaluate_every: int = Field(default=0, ge=0, description="steps; 0: at the end of each epoch, at most 10 times")
    checkpoint_every: int = Field(default=0, ge=0, description="steps; 0: with an evaluation, two seconds apart at least")
    keep: int = Field(default=2, ge=1, description="checkpoints kept, beside the best")
    early_stop: EarlyStop | None = None
    plateau: Plateau | None = None
    statistics_every: int = Field(default=20, ge=0, description="steps between two looks at norms, updates, shares, times; 0: never")
    trackers: tuple[Component, ...] = Field(default=(), description="where figures go besides events.jsonl: tensorboard, wandb, mlflow")
    engine: Component = Component(name="accelerate")
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int = Field(default=0, ge=0, description="compute threads; 0: the machine's cores")
    allocator: Literal["auto", "system"] = Field(
        default="auto", description="on a CPU with glibc, memory is kept between steps; system: as the C library does by itself"
    )
    workers: int = Field(default=-1, ge=-1, description="loader processes; 0: the main process; -1: by the machine")
    prefetch: int = Field(default=2, ge=1)
    inputs_memory: int = Field(
        default=-1, ge=-1, description="MiB of a step's inputs in memory, the rest in a file; -1: 8 on a CPU, 1024 on a device"
    )

    @model_validator(mode="before")
    @classmethod
    def _null_leaves_out(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: inner for name, inner in value.items() if inner is not None or name not in TAKES_THE_PLACE}

    @field_validator("warmup", "decay")
    @classmethod
    def _step_or_share(cls, value: int | str) -> int | str:
        return step_or_share(value)

    @model_validator(mode="after")
    def _hangs_together(self) -> TrainSpec:
        if self.steps and self.given("epochs"):
            what = f"epochs {self.epochs:g} and steps {self.steps} are both stated, and only one can hold"
            raise ValueError(f"{what}: leave one out (on the command line train.steps=null or train.epochs=null)")
        if self.schedule == "constant" and self.given("decay"):
            raise ValueError(
                "a constant schedule has no decay: leave decay out, or choose cosine or linear (train.decay=null leaves it out)"
            )
        if self.clip_value and self.clip_norm and self.given("clip_norm"):
            what = f"clip_norm {self.clip_norm:g} and clip_value {self.clip_value:g} are both stated, and only one can hold"
            raise ValueError(f"{what}: leave one out")
        if self.batch_tokens and self.given("batch_size"):
            what = f"batch_size {self.batch_size} and batch_tokens {self.batch_tokens} are both stated, and only one can hold"
            raise ValueError(f"{what}: leave one out (train.batch_size=null or train.batch_tokens=null)")
        if self.micro_batch > self.batch_size and not self.batch_tokens:
            what = f"a micro_batch of {self.micro_batch} rows is more than the batch_size of {self.batch_size}"
            raise ValueError(f"{what}: make it smaller, or leave it out (train.micro_batch=null)")
        return self
