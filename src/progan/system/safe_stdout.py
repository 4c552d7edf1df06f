"""Output that outlives its reader: training must not end because a terminal or a pipe was closed."""

from __future__ import annotations

import io
import os
from typing import IO, cast


def patient(stream: IO[str]) -> IO[str]:
    """Return a stream that writes to another one until that fails, and to nowhere from then on.

    Args:
        stream: A text stream of this process, such as `sys.stdout`.
    """
    return cast(IO[str], PatientStream(stream))


class PatientStream(io.TextIOBase):
    """A stream that writes to another one until that fails, and to nowhere from then on."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write, or drop, some text."""
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return self._stream.fileno()

    def _give_up(self) -> None:
        """Let the descriptor lead nowhere, so that nothing fails later either, as at the exit of Python."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
