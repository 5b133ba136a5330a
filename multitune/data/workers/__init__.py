"""Micro-batches made in this process or in others: the same bits, whichever makes them."""

from multitune.data.workers.memo import Kept, Memo, Ready, Repeats
from multitune.data.workers.pool import Pool
from multitune.data.workers.work import Made, Note, Work, joined, prepared, read_sample, single

__all__ = ["Kept", "Made", "Memo", "Note", "Pool", "Ready", "Repeats", "Work", "joined", "prepared", "read_sample", "single"]
