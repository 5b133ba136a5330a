"""A hub on loopback: repositories in memory, and the calls that an upload of small files makes."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """files: repository@revision -> path -> bytes. refuses: a status for every call, 0 for none. tokens: what came as authorization."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    refuses: int = 0

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Make a repository."""
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        self.files.setdefault(f"{name}@main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        if asked.get("private") or asked.get("visibility") == "private":
            self.private.add(name)
        return {"url": f"{self.url}/{name}", "name": name, "id": "1"}

    def commit(self, place: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Add and delete files."""
        held = self.files[place]
        for line in lines:
            if line["key"] == "file":
                held[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del held[line["value"]["path"]]
        name = place.partition("@")[0]
        return {"success": True, "commitOid": "f" * 40, "commitUrl": f"{self.url}/{name}/commit/{'f' * 40}", "hookOutput": ""}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that stops by itself."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.tokens.add(self.headers.get("Authorization", ""))
            path = self.path.partition("?")[0]
            place = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|tree|branch)/([^/]+)", path)
            if hub.refuses:
                self._answer({"error": "refused"}, hub.refuses)
            elif path == "/api/repos/create":
                self._answer(hub.create(json.loads(body)))
            elif path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            elif place is None:
                self._answer({"error": path}, 404)
            elif place[2] == "branch":
                hub.files.setdefault(f"{place[1]}@{place[3]}", dict(hub.files[f"{place[1]}@main"]))
                self._answer({})
            elif place[2] == "preupload":
                files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]
                self._answer({"files": files})
            elif place[2] == "tree":
                held = hub.files[f"{place[1]}@{place[3]}"]
                self._answer([{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in held.items()])
            else:
                self._answer(hub.commit(f"{place[1]}@{place[3]}", [json.loads(line) for line in body.splitlines() if line]))

        do_GET = do_POST = _handle

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
