"""A folder of static files, shown to this machine's own browsers."""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from progan.errors import ConfigError

_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
          ".onnx": "application/octet-stream", ".bin": "application/octet-stream"}  # fmt: skip


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | _TYPES

    def end_headers(self) -> None:
        # Only a page that is shut off from others may use threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that go away amid an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of a folder that listens on 127.0.0.1; call its `serve_forever`.

    Args:
        folder: What it serves.
        port: 0 for any that is free.

    Raises:
        ConfigError: if the port cannot be had.
    """
    try:
        return _Server(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port {port} cannot be had ({error}); give another, or 0 for any") from None


def address(server: ThreadingHTTPServer) -> str:
    """Return where a browser finds it."""
    return f"http://127.0.0.1:{server.server_address[1]}/"
