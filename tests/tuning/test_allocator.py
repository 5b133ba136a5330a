"""What the plan says of the C library's memory is what the process does."""

from __future__ import annotations

import os
import resource
from dataclasses import replace

import pytest
import torch

from multitune.core.plan import Plan, Value
from multitune.tuning.plan import set_allocator
from multitune.tuning.plan.allocating import FIELD, KEPT, OWN, SYSTEM, allocator_value
from tests.tuning.test_plan import recipe

GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})
only_glibc = pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
BLOCKS, BLOCK, PAGE = 4, 24 << 20, 4096  # together more than glibc keeps by itself


def faults_of_a_second_round() -> int:
    """Pages asked of the system for memory that was there a moment ago."""
    faults = 0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.empty(BLOCK, dtype=torch.uint8).fill_(1) for _ in range(BLOCKS)]
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        del blocks
    return faults


@only_glibc
def test_memory_that_was_given_back_is_not_asked_for_again() -> None:
    assert set_allocator(Plan("x", {}, {FIELD: Value(KEPT, "machine", "speed")}))
    assert faults_of_a_second_round() < BLOCKS * BLOCK // PAGE / 2  # all of it without; a process that did much before may lack one place


@only_glibc
def test_on_the_cpu_the_plan_keeps_memory_as_the_machine_allows() -> None:
    told = allocator_value(recipe(), device="cpu", environment={})
    assert replace(told, note="") == Value(KEPT, "machine", "speed")


@pytest.mark.parametrize(("device", "environment"), [("cuda", {}), ("mps", {}), *(("cpu", {name: "1"}) for name in OWN)])
def test_elsewhere_and_where_a_user_set_thresholds_it_has_no_effect_and_says_why(device: str, environment: dict[str, str]) -> None:
    told = allocator_value(recipe(), device=device, environment=environment)
    assert (told.value, told.origin) == (SYSTEM, "machine")
    assert (device if not environment else next(iter(environment))) in told.note


def test_a_recipe_may_leave_the_c_library_alone() -> None:
    told = allocator_value(recipe(allocator="system"), device="cpu", environment={})
    assert (told.value, told.origin, told.binds) == (SYSTEM, "recipe", "speed")
    assert not set_allocator(Plan("x", {}, {FIELD: told}))
