"""The errors that a user can cause or meet, and the one place that decides exit codes.

Every message says what is wrong, where, and what to do about it. The command line prints the message
alone; a traceback is shown only for errors that are not listed here, because those are our bugs. A message
may quote files of strangers: whatever is in them, it has no control characters and fits a screen.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_CHARACTERS = 4000
MAX_LINES = 40
"""Of a message."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, colours, turns the direction of writing, or has no code; not tab and newline."""


_OUT_OF_MEMORY = (
    "out of memory", "an't allocate memory", "annot allocate memory", "not enough memory", "bad_alloc",
    "can't start new thread", "ALLOC_FAILED",
)  # fmt: skip
"""What errors say that mean it: those of processors, CUDA, cuDNN, cuBLAS, MPS and decoders of pictures."""


def says_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory, the machine's or a device's, does not suffice."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def memory_reason(error: BaseException) -> str:
    """Return in a sentence what an error says of memory that does not suffice."""
    text = re.sub(r"^\[enforce fail at [^\]]*\] .*?\. ", "", str(error))  # a place in PyTorch's source
    return text.split("\n")[0].split(". ")[0] or type(error).__name__


def printable(text: str) -> str:
    """Return a text as a terminal may show it: control characters are written as in Python's source."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shown(value: object, length: int = 80) -> str:
    """Return a value of a stranger's file in a few characters, in a time that does not depend on the value.

    Args:
        value: Anything; it may be endless, or contain itself.
        length: Most characters.
    """
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 3, length, length
    if isinstance(value, int) and abs(value) > 10**80:  # Python refuses to write thousands of digits
        return "a number of more than 80 digits"
    text = printable(brief.repr(value)).replace("\n", " ")
    return text if len(text) <= length else f"{text[: length - 3]}..."


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return names with commas between them; of many, the first few and how many more there are."""
    few = [printable(name[:80]).replace("\n", "\\n") for name in names[:most]]
    return ", ".join(few) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _fitted(message: str) -> str:
    """Return a message that fits a screen; its end, which says what to do, is kept."""
    lines = printable(message).split("\n")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 2 : -1] = [f"... ({len(lines) - MAX_LINES + 1:,} lines more)"]
    text = "\n".join(lines)
    if len(text) <= MAX_CHARACTERS:
        return text
    start, end = text[: MAX_CHARACTERS * 3 // 4], text[-MAX_CHARACTERS // 5 :]
    return f"{start} ... ({len(text) - len(start) - len(end):,} characters more) ... {end}"


class ProganError(Exception):
    """Base of every error that progan raises on purpose.

    Args:
        message: What is wrong, where, and what to do; control characters are made visible, and what is longer
            than a screen is cut in the middle.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(_fitted(message))

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the message alone, as the command line does."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(ProganError, ValueError):
    """A configuration, recipe or option that cannot be used.

    A ValueError, so that pydantic collects it with the other problems of a configuration.
    """


class DataError(ProganError):
    """Pictures, labels or a packed set that cannot be used."""


class CheckpointError(ProganError):
    """A checkpoint or weight file that cannot be read, or that belongs to something else."""


class DependencyError(ProganError):
    """An optional package that is needed for what was asked; the message names the extra."""


class DivergenceError(ProganError):
    """Training produced a value that is not finite; the last checkpoint is untouched."""

    exit_code = 1


class StorageError(ProganError):
    """A file could not be written (no space, no permission); what was there before is whole."""


class RankError(ProganError):
    """A process of a run on several was lost, stands still, or differs; what is saved is whole.

    The message says which process, and where it was; the exit code is that of the process that finds it.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ToldElsewhere(ProganError):  # noqa: N818 - the error is another process's
    """An error that all processes of a run end with, and one of them tells.

    The message is that error, for those who look for it here; the exit code is that of the process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(ProganError):  # noqa: N818 - it is a wish of the user, not an error
    """A signal asked the work to stop, and it did so without losing anything.

    The message says what was saved and how to go on; the process exits with 128 + the signal, as shells
    expect.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def suggest(word: str, candidates: Iterable[str], parent: Iterable[str] = ()) -> str:
    """Return '; did you mean ...?' for the nearest candidate, or a full stop if none is near."""
    near = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {'.'.join([*parent, near[0]])!r}?" if near else "."


def shell_word(word: object) -> str:
    """Return a word as a shell takes it.

    What a terminal does not show as it is, control characters and bytes that are no UTF-8, is written in the
    form `$'...'` of bash and zsh. A path that begins with `-` would be taken for an option.
    """
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if printable(text) == text and "\n" not in text and "\t" not in text:
        return shlex.quote(text)
    plain = "".join(chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
                    for byte in os.fsencode(text))  # fmt: skip
    return f"$'{plain}'"


def command(*words: object) -> str:
    """Return a command of progan.

    Args:
        words: Behind `progan`, each of them one word for the shell, whatever is in it.
    """
    return " ".join(["progan", *map(shell_word, words)])


def option_words(options: Mapping[str, Any]) -> list[str] | None:
    """Return options as words of a command.

    Args:
        options: Plain values by dotted name, such as `{"schedule.batch_size": [16, 8]}`.

    Returns:
        The words, such as `--schedule.batch-size 16 8`; None if a value cannot be written so.
    """
    words: list[str] = []
    for name, value in options.items():
        branch, _, leaf = name.replace("_", "-").rpartition(".")
        dot = f"{branch}." if branch else ""
        if isinstance(value, bool):
            words.append(f"--{dot}{leaf}" if value else f"--{dot}no-{leaf}")
            continue
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not values or not all(isinstance(each, str | int | float) for each in values):
            return None
        words += [f"--{dot}{leaf}", *map(str, values)]
    return words
