"""Where a model's folder is, and whether it may be opened: a name becomes a checked local folder.

Safetensors and JSON only; nothing in a folder is ever run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from safetensors import SafetensorError, safe_open

from multitune.core import catalog
from multitune.core.errors import ModelError, PluginError, did_you_mean
from multitune.models.weights.hub import INDEX, WEIGHTS, HubId, fetch

BASES = Path(__file__).resolve().parent / "bases"
OWN = "multitune-"  # how the `model_type` of a tower plug-in begins; its name follows
Origin = Literal["plug-in", "embedded", "folder", "hub", "artifact"]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_DTYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "I64": "int64", "I8": "int8"}
_PROCESSOR_FILES = {
    "image": ("preprocessor_config.json", "processor_config.json"),
    "audio": ("preprocessor_config.json", "processor_config.json"),
    "text": ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model"),
    "video": ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json"),
    "any": ("processor_config.json", "preprocessor_config.json"),
}


@dataclass(frozen=True)
class Provenance:
    """Where a model came from.

    origin: a plug-in of models/towers, a base that is embedded in the package, a local folder, a hub id, or an artifact.
    revision: the hub's commit. weights: `pretrained`, or `random` (from the folder's config alone).
    """

    origin: Origin
    name: str
    folder: Path | None = None
    revision: str = ""
    weights: Literal["pretrained", "random"] = "pretrained"

    def line(self) -> str:
        """For the plan: `embedded tiny/image`."""
        commit = f" at {self.revision[:12]}" if self.revision else ""
        return f"{self.origin} {self.name}{commit}" + (" with random weights" if self.weights == "random" else "")


@dataclass(frozen=True)
class Stored:
    """What a folder's safetensors hold, read from their headers: numbers by type, bytes on disk, files they are spread over."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    num_bytes: int = 0
    num_files: int = 0


def bases() -> list[str]:
    """The embedded bases: `tiny/image`, ..."""
    return sorted(path.parent.relative_to(BASES).as_posix() for path in BASES.glob("*/*/config.json"))


def locate(pretrained: str, *, where: str, read_weights: bool) -> Provenance:
    """The place that a name means: a tower plug-in, an embedded base, a local folder, a hub id (`org/name@revision`); in this order.

    read_weights: whether a hub id's weights are needed too, or its small files only.
    Raises: ModelError if there is no such place.
    """
    if pretrained in catalog.names("tower"):
        return Provenance("plug-in", pretrained)
    if pretrained in bases():
        return Provenance("embedded", pretrained, BASES / pretrained)
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        return Provenance("folder", pretrained, folder)
    local, pinned, _ = pretrained.partition("@")
    if pinned and (local in (*catalog.names("tower"), *bases()) or Path(local).expanduser().is_dir()):
        raise ModelError(where, f'"{local}" is on this machine; a revision belongs to a hub id.', "Leave it out.")
    if folder.exists():
        raise ModelError(where, f'"{pretrained}" is a file.', "Name the folder that holds config.json and the weights.")
    if folder.is_absolute() or pretrained.startswith((".", "~")) or local.count("/") > 1 or "\\" in pretrained:
        raise ModelError(where, f'there is no folder "{pretrained}".', "Name a folder with config.json and *.safetensors.")
    return _from_hub(pretrained, where=where, read_weights=read_weights)


def _from_hub(text: str, *, where: str, read_weights: bool) -> Provenance:
    if "/" not in text:
        known = [*bases(), *catalog.names("tower")]
        near = did_you_mean(text, known) or f"There are {', '.join(known)}."
        raise ModelError(where, f'"{text}" is no tower, no base and no folder.', near)
    asked = HubId.of(text, where=where)
    try:
        folder = fetch(asked, where=where, read_weights=read_weights)
    except ModelError as error:
        raise ModelError(where, error.found, did_you_mean(asked.name, bases()) or error.remedy) from None
    return Provenance("hub", asked.name if folder.name == asked.revision else text, folder, revision=folder.name)


def check_folder(folder: Path, *, where: str, need_weights: bool) -> Stored:
    """Refuse what is not a safetensors model folder; gives what its weight files hold.

    Raises: ModelError for a missing or broken config.json, pickled weights, broken safetensors, or an index that leaves the folder.
    """
    config = read_json(folder / "config.json", where=where)
    if any("/" in str(value) for name, value in config.items() if name.strip("_").startswith("attn_implementation")):
        raise ModelError(where, "config.json asks for attention code from elsewhere.", "Remove attn_implementation from it.")
    files = _weight_files(folder, where=where)
    if not files and need_weights:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        if pickles:
            raise ModelError(where, f"{folder}: {pickles[0]} is a pickle where safetensors belong.", "Convert it to model.safetensors.")
        raise ModelError(where, f"{folder} has no model.safetensors.", "Add it, or ask for {weights: random}.")
    numbers: Counter[str] = Counter()
    for file in files:
        numbers.update(_numbers_in(file, where=where))
    return Stored(dict(sorted(numbers.items())), sum(file.stat().st_size for file in files), len(files))


def has_weights(folder: Path, *, where: str) -> bool:
    """Whether a folder holds safetensors. Raises: ModelError for an index that names others than it holds."""
    return bool(_weight_files(folder, where=where))


def check_processor(folder: Path, modality: str, *, where: str) -> None:
    """Refuse a folder without the files of its processor: a tokenizer made of nothing would go unnoticed.

    modality: image, audio, text, video, `any` for a processor that joins several, or a name that a tower plug-in states.
    """
    wanted = _PROCESSOR_FILES.get(modality, _PROCESSOR_FILES["audio"])
    if not any((folder / name).is_file() for name in wanted):
        word = _PROCESSOR_WORDS.get(modality, "processor")
        raise ModelError(where, f"{folder} has no {' or '.join(wanted[:2])}.", f"Add the {word} that belongs to these weights.")


def refuse_pictures(folder: Path, *, where: str) -> None:
    """Refuse an image processor where sounds are read: Transformers would pass over it, and take the settings that a model of
    that kind has by default.
    """
    path = folder / "preprocessor_config.json"
    named = read_json(path, where=where) if path.is_file() else {}
    if "image_processor_type" in named and "feature_extractor_type" not in named:
        found = f"{path} is an image processor ({named['image_processor_type']})."
        raise ModelError(where, found, "Add the feature extractor that belongs to these weights.")


_PROCESSOR_WORDS = {
    "image": "image processor",
    "audio": "feature extractor",
    "text": "tokenizer",
    "any": "processor",
    "video": "video processor",
}


def import_own(config: Mapping[str, Any], *, where: str) -> None:
    """Import the tower plug-in, one of the catalog's, that a config.json was written by, so that Transformers knows its classes.

    Raises: PluginError if it is not in the catalog: another package's that is not installed, or a file's that is not named.
    """
    kind = str(config.get("model_type", ""))
    if not kind.startswith(OWN):
        return
    try:
        catalog.load("tower", kind.removeprefix(OWN))
    except PluginError as error:
        raise PluginError(where, f"its weights are of a tower plug-in: {error.found}", error.remedy) from None


def read_json(path: Path, *, where: str) -> dict[str, Any]:
    """A JSON object in a file.

    Raises: ModelError if it is missing or is none.
    """
    if not path.is_file():
        raise ModelError(where, f"{path.parent} has no {path.name}.", "A model folder has config.json beside its weights.")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(where, f"{path} is not JSON ({str(error)[:80]}).", "Get the file again.") from None
    if not isinstance(value, dict):
        raise ModelError(where, f"{path} holds no JSON object.", "Get the file again.")
    return cast("dict[str, Any]", value)


def _weight_files(folder: Path, *, where: str) -> list[Path]:
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [path for path in (folder / WEIGHTS,) if path.is_file()]
    names = sorted({str(name) for name in dict(read_json(index, where=where).get("weight_map", {})).values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(where, f'{index.name} names "{name}".', "It may name safetensors files beside it only.")
        if not (folder / name).is_file():
            raise ModelError(where, f"{folder} has no {name}, which {index.name} names.", "Get the file again.")
    return [folder / name for name in names]


def _numbers_in(file: Path, *, where: str) -> Counter[str]:
    numbers: Counter[str] = Counter()
    try:
        with safe_open(str(file), framework="numpy") as opened:
            for key in opened.keys():  # noqa: SIM118
                piece = opened.get_slice(key)
                size = 1
                for length in piece.get_shape():
                    size *= length
                stored = str(piece.get_dtype())
                numbers[_DTYPES.get(stored, stored.lower())] += size
    except (SafetensorError, OSError) as error:
        raise ModelError(where, f"{file} is not a safetensors file ({str(error)[:80]}).", "Get the file again.") from None
    return numbers
