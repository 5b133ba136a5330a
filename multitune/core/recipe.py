"""A Recipe is what was asked: YAML 1.2 core, checked, with overrides, before anything is expanded."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from multitune.core.catalog import explain
from multitune.core.errors import RecipeError
from multitune.core.notation.overrides import give_way, override
from multitune.core.notation.yaml import parse_yaml
from multitune.core.protocols import Rows
from multitune.core.store import canonical

MAX_BYTES = 1 << 20
Missing = Literal["drop", "mask", "refuse"]
RESERVED = ("id", "cause")
TAKES_THE_PLACE = ("epochs", "steps", "decay", "micro_batch")  # fields of train that exclude others: null says that one is not stated
# What binds speed, or how much may be lost before a run stops: it may be changed when a run goes on.
CHANGEABLE = {"train": ("workers", "prefetch", "checkpoint_every", "keep"), "data": ("max_loss",)}


class Strict(BaseModel):
    """A part of the recipe: unknown names are refused and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    def given(self, name: str) -> bool:
        """Whether the recipe states this field, or leaves it at its default."""
        return name in self.model_fields_set


class Component(Strict):
    """`{name, ...options}`, or just its name; `auto` leaves the choice to the task."""

    name: str = "auto"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and set(value) != {"name", "options"}:
            rest = {str(k): v for k, v in value.items() if k != "name"}
            return {"name": value.get("name", "auto")} | ({"options": rest} if rest else {})
        return value


class PartSpec(Strict):
    """How one part is read: its modality, its column, its augmentations, and what to do where it is missing."""

    modality: str
    column: str = ""
    missing: Missing | Literal["data"] = "data"
    augment: tuple[Component, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict, description="of the modality, such as max_length for text")

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        return {"modality": value} if isinstance(value, str) else value


class MixEntry(Strict):
    """One source of a mix; `weight` multiplies how often its rows are drawn in an epoch."""

    source: Component
    weight: float = Field(default=1.0, gt=0, le=1000)


class JoinSpec(Strict):
    """Other sources whose columns are joined to each row by equal values of the column `key`."""

    key: str
    sources: tuple[Component, ...]


class SplitSpec(Strict):
    """Fractions by a hash of the row's group or id; or a `column` that names the split; or `sources` for valid and test."""

    train: float = Field(default=0.8, ge=0, le=1)
    valid: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.1, ge=0, le=1)
    group: str = Field(default="", description="column whose rows stay in one split; empty: the source's own group, else the id")
    seed: int = 0
    column: str = Field(default="", description="column with train, valid or test")
    sources: dict[Literal["valid", "test"], Component] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _hangs_together(self) -> SplitSpec:
        shares = [name for name in ("train", "valid", "test") if self.given(name)]
        if self.column and self.sources:
            raise ValueError(f"column and sources exclude each other: the rows of {' and '.join(self.sources)} have a split already")
        if self.column and shares:
            raise ValueError(f'the column "{self.column}" decides the split, so {" and ".join(shares)} would have no effect: leave one out')
        twice = [name for name in shares if name in self.sources]
        if twice:
            raise ValueError(f"{twice[0]} has a source of its own, so its share would have no effect: leave one out")
        if not self.column and not self.sources and abs(self.train + self.valid + self.test - 1) > 1e-9:
            raise ValueError(f"train + valid + test is {self.train + self.valid + self.test:g}, it should be 1")
        return self


class DataSpec(Strict):
    """Where rows come from, what their parts are, which parts are answers, how rows are split."""

    source: Component | None = None
    mix: tuple[MixEntry, ...] = ()
    join: JoinSpec | None = None
    parts: dict[str, PartSpec] = Field(min_length=1)
    answers: tuple[str, ...] = ()
    split: SplitSpec = SplitSpec()
    missing: Missing = "refuse"
    max_loss: float = Field(default=0.01, ge=0, le=1, description="share of rows that may be quarantined before the run stops")
    limit: int = Field(default=0, ge=0, description="use only the first rows of the train split by hash order; 0: all")

    @field_validator("parts", mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("give each part its modality, such as {image: image, label: category}")
        return value

    @field_validator("parts")
    @classmethod
    def _are_names(cls, value: dict[str, PartSpec]) -> dict[str, PartSpec]:
        for name in value:
            if not re.fullmatch(r"[^\W\d][\w-]{0,63}", name) or name in RESERVED:
                found = "is kept for the row itself" if name in RESERVED else "is no name of a part"
                raise ValueError(f'"{name}" {found}; letters, digits, hyphens and underscores make one, at most 64, a letter first')
        return value

    @model_validator(mode="after")
    def _hangs_together(self) -> DataSpec:
        if (self.source is None) == (not self.mix):
            raise ValueError("give either source or mix")
        unknown = [name for name in self.answers if name not in self.parts]
        if unknown:
            raise ValueError(f'the answer "{unknown[0]}" is no part; parts are {", ".join(self.parts)}')
        changed = [name for name in self.answers if self.parts[name].augment]
        if changed:
            raise ValueError(f'"{changed[0]}" is an answer, which is never augmented: leave its augment out')
        return self

    @property
    def inputs(self) -> dict[str, PartSpec]:
        """The parts that the model reads."""
        return {name: part for name, part in self.parts.items() if name not in self.answers}

    @property
    def entries(self) -> tuple[MixEntry, ...]:
        """The sources with their weights, one or several."""
        return self.mix if self.source is None else (MixEntry(source=self.source),)


class TuningRow(Strict):
    """A row of the tuning table: shell-style `pattern` over tower paths; later rows win; unmatched is frozen."""

    pattern: str
    rate: float = Field(default=1.0, ge=0, description="multiplies train.lr; 0 freezes")
    start: int | str = 0
    stop: int | str | None = None
    insert: Component | None = Field(default=None, description="what is put into the matched modules, such as lora")

    @field_validator("start", "stop")
    @classmethod
    def _step_or_share(cls, value: int | str | None) -> int | str | None:
        return value if value is None else step_or_share(value)


class EarlyStop(Strict):
    """Stop when `metric` has not become better for `patience` evaluations; the best checkpoint becomes the artifact."""

    metric: str
    patience: int = Field(default=3, ge=1)
    mode: Literal["auto", "max", "min"] = "auto"
    min_delta: float = Field(default=0.0, ge=0)


class TrainSpec(Strict):
    """How long, how fast, in what batches."""

    epochs: float = Field(default=3.0, gt=0, le=1_000_000)
    steps: int = Field(default=0, ge=0, description="optimizer steps; 0: from epochs")
    batch_size: int = Field(default=32, ge=1, description="rows of one optimizer step, over all micro-batches and ranks")
    micro_batch: int = Field(default=0, ge=0, description="rows in one forward; 0: the whole batch (of one rank)")
    lr: float = Field(default=1e-4, gt=0)
    optimizer: Literal["adamw"] = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.98)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0, description="on weights of two or more dimensions; none on biases, norms, scales")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: int | str = "5%"
    decay: int | str = Field(default="100%", description="steps at the end over which the rate comes down; flat before")
    clip_norm: float = Field(default=1.0, ge=0, description="0: no clipping")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    batch_norm: Literal["eval", "moving"] = "eval"
    balance: str = Field(default="", description="answer whose classes are drawn equally often")
    evaluate_every: int = Field(default=0, ge=0, description="steps; 0: at the end of each epoch, at most 10 times")
    checkpoint_every: int = Field(default=0, ge=0, description="steps; 0: with each evaluation")
    keep: int = Field(default=2, ge=1, description="checkpoints kept, beside the best")
    early_stop: EarlyStop | None = None
    engine: Component = Component(name="accelerate")
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int = Field(default=0, ge=0, description="compute threads; 0: the machine's cores")
    workers: int = Field(default=-1, ge=-1, description="loader processes; 0: the main process; -1: by the machine")
    prefetch: int = Field(default=2, ge=1)

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
        if self.micro_batch > self.batch_size:
            what = f"a micro_batch of {self.micro_batch} rows is more than the batch_size of {self.batch_size}"
            raise ValueError(f"{what}: make it smaller, or leave it out (train.micro_batch=null)")
        return self


class EvaluateSpec(Strict):
    """What is measured, and beside what."""

    metrics: tuple[Component, ...] = Field(default=(), description="empty: the task's")
    match: str = Field(default="", description="retrieval: a hit is an equal value of this column; empty: the same id")
    intervals: int = Field(default=1000, ge=0, description="bootstrap draws; 0: no intervals")
    baselines: bool = Field(default=True, description="majority or chance, and the untuned model")
    ablations: bool = Field(default=True, description="each part left out and each shuffled, where a model takes several")
    generate: dict[str, Any] = Field(default_factory=dict, description="max_new_tokens, temperature, top_p; greedy by default")


class Recipe(Strict):
    """What was asked, checked. `request` is what its hash covers."""

    name: str
    task: Component
    seed: int = Field(default=0, ge=0)
    data: DataSpec
    model: Component = Component()
    strategy: Component | tuple[TuningRow, ...] = Component(name="full")
    loss: Component = Component()
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError("a name has letters, digits, dots, hyphens and underscores only, and at most 64 of them")
        return value

    def request(self) -> dict[str, Any]:
        """The recipe as plain data, only what was stated; what its hash covers."""
        return self.model_dump(mode="json", exclude_unset=True, fallback=_plain)

    def request_hash(self) -> str:
        """The sha256 (hex) of the request, without what may be changed when a run goes on."""
        asked = self.request()
        for section, names in CHANGEABLE.items():
            if section in asked:
                asked[section] = {name: value for name, value in asked[section].items() if name not in names}
        return hashlib.sha256(canonical({name: value for name, value in asked.items() if value != {}}).encode()).hexdigest()


def step_or_share(value: int | str) -> int | str:
    """A step count, or a share such as `50%`, checked.

    Raises: ValueError if it is neither.
    """
    if isinstance(value, int):
        if value < 0:
            raise ValueError("steps are not negative")
        return value
    if not re.fullmatch(r"\d+(\.\d+)?%", value) or float(value[:-1]) > 100:
        raise ValueError('give steps (100) or a share ("50%")')
    return value


def steps_of(value: int | str, *, total: int) -> int:
    """Steps meant by a count or a share of `total`, rounded to the nearest."""
    return value if isinstance(value, int) else round(float(value[:-1]) / 100 * total)


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with `key=value` overrides.

    Raises: RecipeError naming the file or path, what was found, and what would do.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(str(path), "there is no such file.", "Name a recipe, such as recipes/digits.yaml.")
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError(str(path), f"is {path.stat().st_size:,} bytes.", f"A recipe has at most {MAX_BYTES:,}.")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(str(path), f"is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    return make_recipe(parse_yaml(text, where=str(path)), overrides, where=str(path))


def make_recipe(values: Any, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """The recipe that a mapping states, with `key=value` overrides.

    Raises: RecipeError naming the path, what was found, and the nearest name.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(where, f"found {type(values).__name__}, not a mapping.", "Write `name:`, `task:`, `data:` ...")
    merged = _copied(values)
    for text in overrides:
        override(merged, text)
    give_way(merged, overrides)
    _refuse_non_finite(merged)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        location = tuple(step for step in first["loc"] if not _is_union_arm(step))
        place = ".".join(str(step) for step in location) or where
        raise RecipeError(place, *explain(dict(first) | {"loc": location}, Recipe)) from None


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(v) for v in value]
    return value


def _refuse_non_finite(value: Any, place: str = "") -> None:
    """Refuse infinity and NaN wherever they stand: no option means them, and no request can be hashed with them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(place, f"found {value}.", "Give a finite number.")
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_non_finite(inner, f"{place}.{name}" if place else str(name))


def _is_union_arm(step: str | int) -> bool:
    return isinstance(step, str) and (step in {"Component", "int", "str"} or step.startswith(("tuple[", "function-")))


def _plain(value: Any) -> Any:
    """Rows in memory stand in the request as their fingerprint, their number and their columns."""
    if isinstance(value, Rows):
        return {"memory": value.fingerprint, "rows": len(value), "columns": list(value.columns)}
    raise RecipeError("recipe", f"found an object of type {type(value).__name__}.", "A recipe holds plain data.")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Lines `path: old -> new` for every value that differs between two requests."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            was, now = ("not stated" if value is None else repr(value) for value in (before, after))
            yield f"{prefix}{name}: {was} -> {now}"
