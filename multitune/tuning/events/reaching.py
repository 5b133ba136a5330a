"""Whether a server answers at all, asked once and for a few seconds: some clients try for minutes."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from multitune.core.errors import TrackerError

SECONDS = 5.0
PORTS = {"http": 80, "https": 443}


def reach(url: str, *, name: str, remedy: str) -> None:
    """Open a connection to the server of a URL, and close it.

    Raises: TrackerError if none can be opened.
    """
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or PORTS[parts.scheme]), timeout=SECONDS):
            return
    except (OSError, KeyError, ValueError) as error:
        raise TrackerError(f"{name}: {parts.hostname}:{parts.port or ''} cannot be reached ({error}). {remedy}") from None
