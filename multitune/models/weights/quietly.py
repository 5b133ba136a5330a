"""Loading and saving without what Transformers prints of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from logging import CRITICAL

from transformers.utils import logging


@contextmanager
def quiet() -> Generator[None]:
    """Transformers reports by log and progress bars what we report in full ourselves."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
