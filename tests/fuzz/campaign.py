"""Many inputs against one reader, within bounds of time and memory."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

import torch

from fuzz.readers import Reader
from fuzz.runs import all_readers
from progan.errors import ProganError

MEMORY = 8 * 2**30
"""Address space of a process of its own; what asks for more fails."""
IN_MEMORY = Path("/dev/shm")
"""Where Linux keeps files that no disk has to write."""
SECONDS_AN_INPUT = 20.0
"""A reader that takes this long for a few kilobytes has no bound."""


class TooSlowError(BaseException):
    """An input took the processor longer than `SECONDS_AN_INPUT`; no reader catches it."""


@dataclass
class Result:
    """What came of a campaign.

    Attributes:
        inputs: How many were read.
        refused: How many of them were refused with a ProganError.
        seconds: How long it took.
        slowest: The longest time of one input, of the processor.
        grown: Bytes that the largest memory use of the process grew by.
        findings: What should not happen, by where it happened: number of the first input, and what it was.
    """

    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    grown: int = 0
    findings: dict[str, tuple[int, str]] = field(default_factory=dict)


def input_of(reader: Reader, number: int) -> bytes:
    """Return an input by its number: the same on every machine."""
    return reader.make(Random(f"{reader.name} {number}"))


def run(reader: Reader, numbers: Iterable[int]) -> Result:
    """Read the inputs of these numbers."""
    result, start, before = Result(), time.perf_counter(), _most_memory()
    for number in numbers:
        data, began = input_of(reader, number), time.process_time()
        result.inputs += 1
        try:
            with _time_limit(SECONDS_AN_INPUT):
                reader.read(data)
        except ProganError as error:
            result.refused += 1
            if not str(error).strip():
                result.findings.setdefault("error without words", (number, repr(error)))
        except (Exception, TooSlowError) as error:
            result.findings.setdefault(_where(error), (number, traceback.format_exc()))
        result.slowest = max(result.slowest, time.process_time() - began)
    result.seconds = time.perf_counter() - start
    result.grown = _most_memory() - before
    return result


def run_alone(name: str, inputs: int, first: int) -> Result:
    """Read the inputs of one reader, in a process that does nothing else."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faulthandler.enable(os.dup(2))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C print what is wrong with a picture
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        return run(all_readers(Path(folder))[name], range(first, first + inputs))


def _where(error: BaseException) -> str:
    """Return the kind of an error and the place that raised it, which tell findings apart."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {last.name}, line {last.lineno} of {last.filename}"


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooSlowError

    # Of the processor, so that a busy machine makes no findings.
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
