"""Whether the installed packages fit multitune and each other: by what they declare, and by the builds that they name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from multitune.core.finding import Finding, Severity

OWN = "multitune"
# Packages that are built against one torch: their declared requirement and their build tag have to be its own.
BUILT_ON_TORCH = ("torchvision", "torchaudio", "torchcodec", "torchao", "xformers", "bitsandbytes", "flash-attn", "deepspeed", "vllm")
LOADED = ("torchvision", "torchaudio")  # whose parts in C do not load beside another torch
SHOWN = (
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
)


@dataclass(frozen=True)
class Installed:
    """A package: its version, and what it says it requires."""

    version: str
    requires: tuple[str, ...] = ()


def installed() -> dict[str, Installed]:
    """Every installed package by its canonical name."""
    found: dict[str, Installed] = {}
    for one in metadata.distributions():
        name = one.metadata["Name"]
        if name and canonicalize_name(name) not in found:  # the first on the path is the one that is imported
            found[canonicalize_name(name)] = Installed(one.version, tuple(one.requires or ()))
    return found


def judge(packages: Mapping[str, Installed]) -> Iterator[Finding]:
    """What does not fit: a package that is missing or outside what multitune or another of its packages needs, and other builds."""
    concerned = _closure(packages)
    for name in sorted(concerned):
        severity = Severity.ERROR if name == OWN or name in BUILT_ON_TORCH else Severity.WARNING
        for requirement in _active(packages[name].requires):
            yield from _unmet(name, requirement, packages, severity)
    yield from _other_builds(packages)


def _closure(packages: Mapping[str, Installed]) -> set[str]:
    """multitune, what it needs directly or through others, and the installed packages that are built on torch."""
    waiting = [name for name in (OWN, *BUILT_ON_TORCH) if name in packages]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += [needed for one in _active(packages[name].requires) if (needed := canonicalize_name(one.name)) in packages]
    return seen


def _active(texts: Sequence[str]) -> Iterator[Requirement]:
    """The requirements that hold here: no extras, and their markers true."""
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _unmet(name: str, requirement: Requirement, packages: Mapping[str, Installed], severity: Severity) -> Iterator[Finding]:
    needed = canonicalize_name(requirement.name)
    wanted = f"{requirement.name}{requirement.specifier}"
    has = packages.get(needed)
    if has is None:
        yield Finding("not-installed", severity, name, f"needs {wanted}, which is not installed.", _install(wanted))
    elif not _fits(has.version, requirement):
        found = f"needs {wanted}, and here is {needed} {has.version}."
        again = wanted if name == OWN else f"{name} {needed}"
        yield Finding("version-outside", severity, name, found, _install(again), {"needs": wanted, "found": has.version})


def _fits(version: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _install(wanted: str) -> str:
    quoted = f'"{wanted}"' if any(mark in wanted for mark in "<>=~!") else wanted
    return f"python -m pip install --upgrade {quoted}"


def _other_builds(packages: Mapping[str, Installed]) -> Iterator[Finding]:
    """Packages whose build tag (cu130, cpu) is another than torch's; where either names none, nothing is said."""
    torch = packages.get("torch")
    tag = _tag(torch.version) if torch is not None else ""
    for name in BUILT_ON_TORCH:
        own = _tag(packages[name].version) if name in packages else ""
        if tag and own and own != tag and torch is not None:
            found = f"is {packages[name].version}, built for {own}; torch is {torch.version}, built for {tag}."
            yield Finding("other-build", Severity.ERROR, name, found, "Install both from the same index, for the same build.")


def _tag(version: str) -> str:
    return version.partition("+")[2]


def loads(packages: Mapping[str, Installed]) -> Iterator[Finding]:
    """Whether torch, and what is built on it, can be imported beside each other."""
    for name in ("torch", *LOADED, "transformers", "accelerate", "peft"):
        if name not in packages:
            continue
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError, AttributeError, ValueError) as error:
            found = f"{packages[name].version} cannot be imported ({type(error).__name__}: {str(error).splitlines()[0]:.160})."
            yield Finding("cannot-be-imported", Severity.ERROR, name, found, f"python -m pip install --force-reinstall {name} torch")
