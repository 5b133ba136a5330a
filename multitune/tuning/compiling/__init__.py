"""`train.compile`: the blocks of towers run compiled while steps are taken, and what that costs and saves."""

from multitune.tuning.compiling.blocks import Compiled, compiled_of

__all__ = ["Compiled", "compiled_of"]
