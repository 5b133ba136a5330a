"""The blocks of towers, run by `torch.compile` while a step is taken and at no other time.

One forward is compiled for each class of blocks in a tower, so compiling takes no longer for a deep tower than for a shallow one. Between
steps every block has its own forward again: evaluations, stored features and the artifact see nothing of it.

What torch compiles follows from the first inputs that come, in their order: it takes sizes for fixed until another one comes, and tunes
loops for the first it saw. So these inputs are written down (shapes, not values), kept in checkpoints, and shown again in the same order
where a run goes on: it then has the same code, and the same bits. For the same reason torch's own memory of graphs, which is shared by all
runs of a machine, is not read; what it remembers of C++ files is, since the same file gives the same code.
"""

from __future__ import annotations

import functools
import json
import types
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import _dynamo, _functorch, nn  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]: what has no public name
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch._inductor.exc import CppCompileError, InductorError
from torch.fx.experimental import _config

from multitune.core.errors import Fault
from multitune.core.finding import Finding, Severity
from multitune.models.anatomy import block_paths
from multitune.models.layers.recomputing import around
from multitune.tuning.compiling import calls
from multitune.tuning.gradients import Precision, autocast
from multitune.tuning.ranks import Ranks
from multitune.tuning.scope import Scope

GRAPHS = 32  # of one class of blocks: what moves, shapes, with and without a way back
FIELD = "train.compile"
dynamo, functorch, sizes = cast("Any", _dynamo), cast("Any", _functorch), cast("Any", _config)
_CODE = {
    "fallback_random": True,  # dropout draws what it draws uncompiled, so that a second pass of gradient caching draws it again
    "fx_graph_cache": False,
    "compile_threads": 1,  # or processes of its own would outlive the run
}


class Kind:
    """The blocks of one class in a tower: one forward, compiled. graphs: how often torch did. over: it is to no longer."""

    def __init__(self, name: str, forward: Callable[..., Any], backend: str) -> None:
        self.name, self.graphs, self.over = name, 0, False
        self._backend = backend
        self.forward = _inside(forward, functools.partial(torch.compile, backend=self._compile))

    def _compile(self, graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        self.graphs += 1
        options = {"config_patches": dict(_CODE)} if self._backend == "inductor" else {}
        return dynamo.lookup_backend(self._backend)(graph, inputs, **options)


class Block:
    """A block of a tower. own: what stands in place of its class's forward outside steps, or None."""

    def __init__(self, name: str, module: nn.Module, kind: Kind, note: Callable[[Block, Any, Any], None]) -> None:
        self.name, self.module, self.kind, self._note = name, module, kind, note
        self.own = vars(module).get("forward")
        self._eager = types.MethodType(type(module).forward, module)
        called = functools.wraps(self._eager)(lambda *given, **named: self._run(given, named))
        self.compiled = called if self.own is None else around(self.own, called)

    def _run(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        known = self.kind.graphs
        try:
            outputs = self.kind.forward(self.module, *given, **named)
        except FailOnRecompileLimitHit:
            self.kind.over = True
            return self._eager(*given, **named)
        if self.kind.graphs != known:
            self._note(self, given, named)
        return outputs


class Compiled:
    """The compiled blocks of a family's towers; of one without any, and of a plan that asks for none, nothing.

    left: names of blocks that stay as they are, because something else stands in place of their forward.
    """

    def __init__(self, towers: Mapping[str, Any], *, precision: Precision = "fp32", device: str = "cpu", backend: str = "inductor") -> None:
        self._precision: Precision = precision
        self._device = torch.device(device)
        self._kinds: dict[tuple[str, type], Kind] = {}
        self._blocks: dict[str, Block] = {}
        self._known: list[dict[str, Any]] = []
        self._gathered: list[str] = []
        self._step, self.unknown, self.left = 0, 0, list[str]()
        if towers:
            dynamo.pgo.reset_code_state()  # which sizes differed in another run of this process is no matter of this one
        for tower, module in towers.items():
            for path in block_paths(module):
                self._add(tower, f"{tower}.{path}", module.get_submodule(path), backend)

    def _add(self, tower: str, name: str, block: nn.Module, backend: str) -> None:
        own = vars(block).get("forward")
        if any(block is known.module for known in self._blocks.values()):
            return
        if own is not None and around(own, own) is None:
            self.left.append(name)
            return
        at = tower, type(block)
        if at not in self._kinds:
            self._kinds[at] = Kind(f"{tower} ({type(block).__name__})", type(block).forward, backend)
        self._blocks[name] = Block(name, block, self._kinds[at], self._note)

    @property
    def graphs(self) -> int:
        """How many graphs were compiled."""
        return sum(kind.graphs for kind in self._kinds.values())

    @contextmanager
    def step(self, step: int) -> Generator[None]:
        """Inside, blocks run compiled: both passes of a step.

        Raises: Fault where this machine cannot compile them.
        """
        if not self._blocks:
            yield
            return
        self._step = step
        running = [block for block in self._blocks.values() if not block.kind.over]
        with _settings():
            try:
                for block in running:
                    vars(block.module)["forward"] = block.compiled
                yield
            except (TorchDynamoException, InductorError, CppCompileError) as error:
                raise Fault(f"{FIELD}: torch cannot compile the blocks here: {_first_line(error)} Leave {FIELD} out.") from error
            finally:
                for block in running:
                    del vars(block.module)["forward"]
                    if block.own is not None:
                        vars(block.module)["forward"] = block.own

    def _note(self, block: Block, given: Any, named: Any) -> None:
        call = calls.written((given, dict(named)))
        self.unknown += call is None
        self._known.append({"step": self._step, "block": block.name, "grad": torch.is_grad_enabled(), "call": call})

    def gather(self, ranks: Ranks) -> None:
        """Bring together what all ranks compiled, for the checkpoint that is to be kept; collective."""
        if self._blocks:
            over = [kind.name for kind in self._kinds.values() if kind.over]
            self._gathered = ranks.gather_texts([json.dumps({"calls": self._known, "over": over})])

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"compiled": self._gathered} if self._blocks else {}

    def restore(self, facts: Mapping[str, Any], *, scope: Scope, ranks: Ranks) -> None:
        """Compile what this rank had compiled when the checkpoint was kept, in the same order; buffers that this moves are the caller's."""
        if not self._blocks:
            return
        kept = json.loads(facts["compiled"][ranks.rank])
        for known in kept["calls"]:
            self._again(known, scope)
        for kind in self._kinds.values():
            kind.over = kind.name in kept["over"]

    def _again(self, known: Mapping[str, Any], scope: Scope) -> None:
        scope.enter(known["step"])
        if known["call"] is None:
            self._known.append(dict(known))
            self.unknown += 1
            return
        block = self._blocks[known["block"]]
        given, named = calls.read(known["call"])
        with self.step(known["step"]), torch.set_grad_enabled(known["grad"]), autocast(self._precision, self._device):
            block.module(*given, **named)

    def findings(self) -> list[Finding]:
        """What did not go as asked."""
        found: list[Finding] = []
        if self.left:
            message = f"{len(self.left)} blocks run uncompiled, such as {self.left[0]}: something else stands in place of their forward."
            found.append(Finding("not-compiled", Severity.INFO, FIELD, message))
        for kind in self._kinds.values():
            if kind.over:
                message = f"the blocks of {kind.name} asked for more than {GRAPHS} graphs, and ran uncompiled from there on."
                remedy = "Fewer shapes would do (train.bucket), or no train.compile."
                found.append(Finding("compile-limit", Severity.WARNING, FIELD, message, remedy))
        if self.unknown:
            message = f"{self.unknown} graphs were compiled for inputs that cannot be written down."
            remedy = "Had this run been killed, it would have gone on to other last bits."
            found.append(Finding("compile-not-kept", Severity.WARNING, FIELD, message, remedy))
        return found


@contextmanager
def _settings() -> Generator[None]:
    """How torch compiles inside: nothing that other runs left, sizes that are equal by chance are two, and no silence at the limit."""
    patch = dynamo.config.patch(
        recompile_limit=GRAPHS,
        fail_on_recompile_limit_hit=True,
        automatic_dynamic_local_pgo=False,
        automatic_dynamic_exclusion_guard=True,
    )
    with patch, sizes.patch(use_duck_shape=False), functorch.config.patch(enable_autograd_cache=False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")  # torch's own look at an input
        yield


def _inside(forward: Callable[..., Any], compiled: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` compiled inside what wraps it: Transformers' activation checkpointing, say, which stays as it is.

    The functions are copies with code of their own: torch keeps what it compiles beside the code, and drops it with it.
    """
    if not isinstance(forward, types.FunctionType):
        return compiled(forward)
    inner, cells = vars(forward).get("__wrapped__"), forward.__closure__ or ()
    wraps = [cell for cell in cells if _held(cell) is inner]
    if inner is None or not wraps:
        return compiled(_copied(forward, cells))
    within = types.CellType(_inside(inner, compiled))
    return _copied(forward, tuple(within if cell in wraps else cell for cell in cells))


def _held(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # an empty one
        return None


def _copied(function: types.FunctionType, cells: tuple[types.CellType, ...]) -> types.FunctionType:
    made = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, cells)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] + ("..." if len(text) > 300 else "")
