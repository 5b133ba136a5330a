"""Rows made up to try a family on: synthesized samples of different sizes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from multitune.core import catalog
from multitune.core.protocols import Needs, Part, Sample
from multitune.models.predictor import Forgetful

TRIED = 24


def probe_sample(needs: Needs, *, seed: int) -> Sample:
    """A made-up sample with every part and every answer."""
    parts: dict[str, Part] = {}
    for name, need in {**needs.parts, **needs.answers}.items():
        modality = catalog.find("modality", need.modality, need.options, where=f"data.parts.{name}").build()
        labels = needs.answers[name].labels if name in needs.answers else ()
        parts[name] = Part(need.modality, labels[0] if labels else modality.synthesize(seed), options=need.options)
    return Sample("probe", parts)


def probe_samples(needs: Needs, count: int = 3) -> list[Sample]:
    """Made-up samples, each another."""
    return [probe_sample(needs, seed=seed) for seed in range(count)]


def probe_rows(family: Any, count: int = 3) -> list[Mapping[str, Any]]:
    """Prepared rows of as many different sizes as there are, at most `count`, filled up with rows of sizes seen before."""
    made: dict[int, Mapping[str, Any]] = {}
    sizes: dict[Hashable, int] = {}
    for seed in range(TRIED):
        made[seed] = family.preparer.prepare(probe_sample(family.needs, seed=seed), Forgetful())
        sizes.setdefault(family.preparer.bucket(made[seed]), seed)
        if len(sizes) == count:
            break
    seeds = [*sizes.values(), *[seed for seed in made if seed not in sizes.values()]][:count]
    return [made[seed] for seed in seeds]
