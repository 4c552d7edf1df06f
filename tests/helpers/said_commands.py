"""Commands that messages give: found in a text as a reader finds them, and taken apart as a shell does."""

from __future__ import annotations

import re
import subprocess

from progan.cli.app import make_app
from progan.config import Parts

_WORD = r"(?:[^\s;,'\"`$()]|'[^']*'|\"[^\"]*\"|\$'(?:[^'\\]|\\.)*')+"
app = make_app(Parts())
_NAMES = "|".join(name for name in app if not name.startswith("-"))
_COMMAND = re.compile(rf"\bprogan (?:{_NAMES})(?: {_WORD})*")


def said_commands(text: str) -> list[str]:
    """Return the commands in a message, which end at a comma, semicolon, backtick, full stop or line."""
    return [re.sub(r"[.:]$", "", found) for found in _COMMAND.findall(text)]


def shell_words(command: str) -> list[str]:
    """Return the words that bash makes of a command, without the first."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True, timeout=20
    )
    return done.stdout.decode(errors="surrogateescape").split("\0")[1:-1]
