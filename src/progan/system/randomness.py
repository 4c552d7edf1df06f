"""Random numbers that are pure functions of what they are for."""

from __future__ import annotations

import zlib

import numpy as np


def random_generator(seed: int, purpose: str, clock: int, attempt: int = 0) -> np.random.Generator:
    """Return a generator that depends on nothing but its arguments.

    Args:
        seed: Seed of the run, at least 0.
        purpose: What the numbers are for; each purpose has its own stream.
        clock: Images seen, or another counter, at least 0.
        attempt: How often training has gone back and taken another way; each has its own numbers.
    """
    key = [seed, zlib.crc32(purpose.encode()), clock, *([attempt] if attempt else [])]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
