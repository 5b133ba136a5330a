"""Every exception that multitune raises on purpose, drawn as a tree.

MultituneError
├── UserError            exit 2: what the user gave, with where, what was found, what would do
│   ├── RecipeError      the recipe or an override
│   ├── PluginError      a name that no plug-in has, or options that it does not take
│   ├── DataError        a table, a file, a column, a split
│   │   └── LossBudgetError   more rows lost than `data.max_loss` allows
│   ├── ModelError       a model folder, its weights, a pattern over its towers
│   ├── RunError         a run folder: another request, in use, unreadable
│   └── ArtifactError    an artifact that does not verify
└── Fault                exit 3: the machine or the numbers
    ├── WriteFault       a file that the machine does not take
    ├── NoMemoryError    no memory left for a step; names a smaller micro-batch
    ├── NonFiniteError   a loss or a gradient that is not finite; names the samples
    ├── StateError       no checkpoint verifies
    ├── TrackerError     a tool that shows figures cannot be reached or refuses them
    └── HungError        exit 75: something stopped answering; try again
Stopped (BaseException)  exit 130 or 143: Ctrl-C or SIGTERM, after a checkpoint
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

NO_PLACE = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS})  # room would not help
MACHINE = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS})


class MultituneError(Exception):
    """The root of all errors raised on purpose."""

    exit_code = 3


class UserError(MultituneError):
    """A mistake in what was given; its text says where, what was found, and what would do."""

    exit_code = 2

    def __init__(self, where: str, found: str, remedy: str = "") -> None:
        self.where, self.found, self.remedy = where, found, remedy
        super().__init__(f"{where}: {found}" + (f" {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        return type(self), (self.where, self.found, self.remedy)


class RecipeError(UserError):
    """The recipe, or an override on the command line, does not hold."""


class PluginError(UserError):
    """No plug-in has that name, or it does not take these options."""


class DataError(UserError):
    """A table, a file, a column or a split does not hold."""


class LossBudgetError(DataError):
    """More rows were lost than `data.max_loss` allows."""


class ModelError(UserError):
    """A model folder, its weights, or a pattern over its towers does not hold."""


class RunError(UserError):
    """A run folder belongs to another request, is in use, or cannot be read."""


class ArtifactError(UserError):
    """An artifact is incomplete, was changed, or is of another kind."""


class Fault(MultituneError):
    """The machine or the numbers failed, not the user."""

    exit_code = 3


class WriteFault(Fault):
    """The machine does not take a file: no space, no permission, a broken disk."""


class NoMemoryError(Fault):
    """The machine has no memory left for a step; the run ends, and goes on from its last checkpoint."""


class NonFiniteError(Fault):
    """A loss or a gradient is not finite; the weights were not touched."""


class StateError(Fault):
    """No checkpoint of the run verifies."""


class TrackerError(Fault):
    """A tool that shows figures cannot be reached, or refuses them; no run ends by it."""


class HungError(Fault):
    """Something stopped answering and was ended."""

    exit_code = 75


class Stopped(BaseException):
    """The run was asked to stop and did so; not an error. kept: the checkpoint that it left, as in `step 12 in runs/x`, if it left one."""

    def __init__(self, signal_name: str, exit_code: int, *, kept: str = "") -> None:
        self.exit_code = exit_code
        super().__init__(f"stopped by {signal_name}" + (f"; the same command goes on from {kept}" if kept else ""))


@contextmanager
def writing(path: object, remedy: str = "") -> Generator[None]:
    """Within it, a file or folder that the machine does not take becomes a WriteFault naming `path`. remedy: by what it lacks."""
    try:
        yield
    except OSError as error:
        would = remedy or ("Name another place." if error.errno in NO_PLACE else "Free some space, or name another place.")
        raise WriteFault(f"{path}: cannot be written ({error.strerror or error}). {would}") from None


def one_of(names: Iterable[str]) -> str:
    """A readable list of names: `a, b, c`."""
    return ", ".join(sorted(names)) or "none"


def did_you_mean(word: str, names: Sequence[str]) -> str:
    """`Did you mean "x"?` where a name is near, else an empty text."""
    near = difflib.get_close_matches(word, list(names), n=1, cutoff=0.6)
    return f'Did you mean "{near[0]}"?' if near else ""
