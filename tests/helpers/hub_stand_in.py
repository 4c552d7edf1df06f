"""A small stand-in of the hub's HTTP interface: repositories in memory, as huggingface_hub talks to them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".onnx", ".png", ".gif")
TOKEN = "hf_of_a_test"


@dataclass
class Hub:
    """What the stand-in holds.

    Attributes:
        address: Of its HTTP interface.
        repositories: Contents of files, by repository and path.
        stored: Contents of large files, by their SHA-256, before they are committed.
        calls: Method and path of each request.
    """

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def commit(self, name: str) -> str:
        """Return the name of the newest commit of a repository, which its contents decide."""
        contents = sorted(self.repositories[name].items())
        return hashlib.sha1(repr(contents).encode()).hexdigest()

    def environment(self, cache: Path, token: str = TOKEN) -> dict[str, str]:
        """Return the environment in which huggingface_hub talks to it."""
        return {
            **os.environ,
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(cache),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }


@contextmanager
def hub() -> Iterator[Hub]:
    """Run the stand-in on a port of this machine while the block runs."""
    held = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": held}))
    held.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body, path = self._body(), self.path.split("?")[0]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.hub.repositories.setdefault(name, {})
            self._json({"url": f"{self.hub.address}/{name}", "id": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": each["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular"}
                for each in json.loads(body)["files"]
            ]  # fmt: skip
            self._json({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.address}/store/{each['oid']}"},
                                     "verify": {"href": f"{self.hub.address}/verify"}}}
                for each in json.loads(body)["objects"]
            ]  # fmt: skip
            self._json({"objects": objects, "transfer": "basic"})
        elif "/commit/" in path:
            self._commit(path.removeprefix("/api/models/").split("/commit/")[0], body)
        else:
            self._json({}, 200 if path == "/verify" else 404)

    def do_PUT(self) -> None:
        body = self._body()
        name = self.path.removeprefix("/store/")
        assert hashlib.sha256(body).hexdigest() == name
        self.hub.stored[name] = body
        self._json({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._body()
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            name, _, rest = path.removeprefix("/api/models/").partition("/revision/")
            name = name.split("/tree/")[0]
            if name not in self.hub.repositories:
                self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            elif "/tree/" in path:
                files = self.hub.repositories[name].items()
                self._json(
                    [
                        {"type": "file", "path": key, "size": len(value), "oid": _oid(value)}
                        for key, value in files
                    ]
                )
            else:
                siblings = [{"rfilename": file} for file in self.hub.repositories[name]]
                self._json(
                    {
                        "id": name,
                        "modelId": name,
                        "sha": self.hub.commit(name),
                        "siblings": siblings,
                        "private": False,
                        "tags": [],
                    }
                )
            return
        name, _, rest = path.strip("/").partition("/resolve/")
        content = self.hub.repositories.get(name, {}).get(rest.partition("/")[2])
        if content is None:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        else:
            self._send(content, 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": self.hub.commit(name)})

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                self.hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                self.hub.repositories[name][value["path"]] = self.hub.stored[value["oid"]]
        commit = self.hub.commit(name)
        url = f"{self.hub.address}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _body(self) -> bytes:
        self.hub.calls.append(f"{self.command} {self.path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, tree: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(tree).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
