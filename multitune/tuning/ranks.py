"""Several processes as one: sums, gathered rows and agreed decisions over the ranks of a run.

Gradients are summed by one explicit all-reduce after the last local backward, not by wrapping the model in DDP: the losses are
scaled by the weight of the whole step, so their plain sum is the exact gradient; a rank whose share of a short batch is empty
takes part with zeros; a rank may run other branches of the graph (absent parts); and gradient caching may run backward as
often as it likes. On one process everything here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from multitune.core.errors import RunError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Ranks:
    """This process among `world`; the process group is Accelerate's."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks, in float64."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def highest(self, value: float) -> float:
        """The greatest of the ranks' values."""
        if self.world == 1:
            return value
        result = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(result, op=dist.ReduceOp.MAX)
        return float(result)

    def any(self, value: bool) -> bool:
        """Whether it is true on any rank."""
        return self.highest(float(value)) > 0

    def from_main(self, values: Sequence[int]) -> list[int]:
        """The main process's integers."""
        if self.world == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.int64, device=self.device)
        dist.broadcast(told, src=0)
        return told.tolist()

    def on_main(self, work: Callable[[], Found]) -> Found | None:
        """What `work` gives on the main process; None on the others, which wait until it is done there.

        Raises: what `work` raises; RunError on the others.
        """
        if self.world == 1:
            return work()
        if not self.main:
            if not self.from_main([0])[0]:
                raise RunError("run", "the main process refused it.", "Its message says why.")
            return None
        fine = False
        try:
            found = work()
            fine = True
        finally:
            self.from_main([int(fine)])
        return found

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Put the main process's values into these tensors, in place."""
        if self.world == 1:
            return
        for tensor in tensors:
            told = tensor.detach().clone(memory_format=torch.contiguous_format)
            told = told.to(torch.uint8) if tensor.dtype is torch.bool else told  # gloo sends no booleans
            dist.broadcast(told, src=0)
            put(told.to(tensor.dtype), into=tensor)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum gradients over the ranks in place; a parameter that no rank reached keeps none."""
        if self.world == 1 or not parameters:
            return
        reached = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([reached, *(part.float().flatten() for part in parts)])
        dist.all_reduce(flat)
        sizes = [len(parameters), *(p.numel() for p in parameters)]
        flags, *sums = flat.split(sizes)
        for parameter, flag, total in zip(parameters, flags.tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter).to(parameter.dtype).clone() if flag else None

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks one after another, by rank; ranks may hold different numbers of rows, also none."""
        if self.world == 1:
            return rows
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(rows)], dtype=torch.int64, device=self.device))
        counts = [int(size) for size in sizes]
        padded = torch.zeros((max(counts), *rows.shape[1:]), dtype=rows.dtype, device=self.device)
        padded[: len(rows)] = rows
        everyone = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(everyone, padded)
        return torch.cat([part[:count] for part, count in zip(everyone, counts, strict=True)])

    def gather_texts(self, texts: Sequence[str]) -> list[str]:
        """The texts of all ranks, by rank; none of them may hold a line break. Cheap where no rank has any."""
        if self.world == 1:
            return list(texts)
        if not self.any(bool(texts)):
            return []
        data = "".join(f"{text}\n" for text in texts).encode()
        rows = torch.tensor(list(data), dtype=torch.uint8, device=self.device)
        return bytes(self.gather(rows).tolist()).decode().split("\n")[:-1]


def put(value: Tensor, *, into: Tensor) -> None:
    """Copy values in place where they differ: a buffer may be an expanded view, which takes no writing."""
    value = value.to(into.device)
    if not torch.equal(value, into):
        into.copy_(value)


def world_size() -> int:
    """How many processes this run has, as its launcher (torchrun) says; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))
