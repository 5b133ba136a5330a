"""Work in a process of its own: ended hard, held to limits, beside others, as another user."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

NOBODY = 65534
PATIENCE = 60  # seconds, after which a process that hangs ends itself


def together(*works: Callable[[], str]) -> list[str]:
    """What each of these gives, run at the same time in processes of their own; of one that fails its traceback, `killed` of one killed."""
    ends = [_begun(work) for work in works]
    return [_heard(*end) for end in ends]


def apart(work: Callable[[], str]) -> str:
    """The same of one."""
    return together(work)[0]


def ended_at(place: object, name: str, *, call: int = 0) -> None:
    """From now on this process ends as if its power were cut when this is called, for the `call`th time after the first."""
    calls: list[int] = []
    own = vars(place)[name]

    def end(*given: object, **more: object) -> object:
        calls.append(1)
        if len(calls) > call:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(*given, **more)

    setattr(place, name, end)


def without_rights(root: Path) -> None:
    """From now on this process may not write under a folder."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    if os.getuid() == 0:
        os.setuid(NOBODY)


def _begun(work: Callable[[], str]) -> tuple[int, int]:
    out, into = os.pipe()
    child = os.fork()
    if child:
        os.close(into)
        return child, out
    with ExitStack() as last:
        last.callback(os._exit, 0)
        last.push(lambda kind, error, _: bool(error and os.write(into, "".join(traceback.format_exception(error)).encode())))
        os.close(out)
        signal.alarm(PATIENCE)
        os.write(into, work().encode())
    raise AssertionError


def _heard(child: int, out: int) -> str:
    with os.fdopen(out) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else said


__all__: Sequence[str] = ["NOBODY", "apart", "ended_at", "together", "without_rights"]
