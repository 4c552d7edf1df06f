"""Messages to an address: Slack, Discord, Mattermost, Teams, or a program of one's own."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from progan.config import Config
from progan.errors import ConfigError, command
from progan.runs.callbacks.callback import Callback, RunStart
from progan.runs.logs import Stats

SECONDS = 10.0
"""How long an address may take to answer."""


class Webhook(Callback):
    """A POST of JSON to `track.url` at the beginning, at each new level and at the end.

    It has `text` (Slack, Mattermost, Teams) and `content` (Discord), a sentence each, and the facts by name.
    """

    def check(self, config: Config) -> None:
        """Raise a ConfigError if there is no address."""
        if not (config.track.url or "").startswith(("https://", "http://")):
            raise ConfigError("track.to webhook needs an address: --track.url https://...")

    def begin(self, run: RunStart) -> None:
        """Say that training starts."""
        self._url, self._run, self._last = str(run.config.track.url), run.folder.resolve(), Stats()
        what = f"goes on at {run.images_seen:,}" if run.images_seen else "begins"
        self._send("begin", f"training {what} of {run.total:,} images", run.images_seen)

    def log(self, stats: Stats) -> None:
        """Keep the numbers for the next message."""
        self._last = stats

    def growth(self, level: int, images_seen: int) -> None:
        """Say that a level begins."""
        self._send("growth", f"level {level} begins at {images_seen:,} images", images_seen)

    def end(self, how: str, images_seen: int) -> None:
        """Say how training ended."""
        on = "" if how == "done" else f"; to go on: {command('train', '--resume', Path(self._run))}"
        self._send("end", f"training {how} at {images_seen:,} images{on}", images_seen)

    def _send(self, moment: str, text: str, images_seen: int) -> None:
        message = f"{self._run.name}: {text}"
        facts = {"moment": moment, "run": str(self._run), "images_seen": images_seen, "stats": self._last}
        body = json.dumps({"text": message, "content": message, **facts}).encode()
        asked = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=SECONDS):
            pass
