"""Output that outlives its reader, and shows what it can: no work ends because a terminal or a pipe does."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, cast


class PatientStream(io.TextIOBase):
    """A stream that writes to another one until that fails, and to nowhere from then on.

    Characters that the encoding of the other stream lacks are written as in Python's source (`\\u0444`).

    Args:
        stream: A text stream of this process; None where the process was started without.

    Attributes:
        failure: Why the other stream failed, if it did.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write, or drop, some text."""
        shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        if self._stream is not None and self.failure is None:
            try:
                self._stream.write(shown)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        if self._stream is not None and self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream."""
        if self._stream is None:
            raise io.UnsupportedOperation("there is no stream")
        return self._stream.fileno()

    def _give_up(self, error: OSError) -> None:
        """Let the descriptor lead nowhere, so that nothing fails later either, as at the exit of Python."""
        self.failure = error
        with contextlib.suppress(io.UnsupportedOperation):
            descriptor = self.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


@contextlib.contextmanager
def patient_output() -> Iterator[PatientStream]:
    """Within this block nothing that is written to stdout or stderr fails, whoever writes it.

    Yields:
        What stands for stdout.
    """
    before = sys.stdout, sys.stderr
    out, err = PatientStream(sys.stdout), PatientStream(sys.stderr)
    sys.stdout, sys.stderr = cast(IO[str], out), cast(IO[str], err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
