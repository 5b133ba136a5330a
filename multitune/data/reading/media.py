"""Whether the files that rows name can be there, told from their paths alone; nothing is opened."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from multitune.core.protocols import Modality
from multitune.data.sample import placed

SIGNALS = ("image", "audio", "video", "text")


def absent(text: str, root: Path | None) -> str:
    """Why there is no file at a path, as the decode gate would find; empty where there is one. root: of a relative path."""
    try:
        path = placed(text, root).path
    except ValueError as error:
        return str(error)
    return "" if path is not None and path.is_file() else "is not there"


def misnamed(text: str, kind: Modality) -> str:
    """Which other signal the ending of a path speaks of; empty where it does not. What a file holds decides, not its ending."""
    signal = (mimetypes.guess_type(text)[0] or "").partition("/")[0]
    return f"has the ending of {signal}" if signal in SIGNALS and signal != kind.name else ""
