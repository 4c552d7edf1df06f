"""Whether memory holds the largest level, found out before training."""

from __future__ import annotations

import gc

import torch

from progan.config import format_resolution
from progan.data.packed import PackedSet
from progan.training.distributed import ALONE, Ranks
from progan.training.plan import Plan
from progan.training.updates import Updates


def try_largest(plan: Plan, packed: PackedSet, device: torch.device, ranks: Ranks = ALONE) -> str:
    """Make two iterations at the largest level that the run reaches, and forget them.

    Args:
        plan: What the run will do.
        packed: Its pictures.
        device: Where it will compute.
        ranks: The processes that share its batches.

    Returns:
        What was found, in words.

    Raises:
        ConfigError: if memory does not hold a single minibatch-stddev group of that level.
    """
    said: list[str] = []
    level = plan.schedule.phases[-1].level
    # The fade needs the most: it computes two levels.
    phase = next(phase for phase in plan.schedule.phases if phase.level == level)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    updates = Updates(plan, packed, device, said.append, ranks)
    # The second time Adam's moments are there; both are the first of the phase, where penalties are due.
    for _ in range(2):
        updates.state.images_seen = plan.schedule.entry(phase)
        updates.iterate(plan.schedule.at(updates.state.images_seen))
    size = format_resolution(plan.spec.resolution(level))
    found = f"memory check: level {level} ({size}) fits"
    if device.type == "cuda":
        found += f", at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB in use"
    updates.batches.rest()
    del updates
    gc.collect()  # compiled functions and their networks hold each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return "; ".join([found, *said])
