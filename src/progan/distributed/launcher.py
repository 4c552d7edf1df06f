"""Several processes of one command on this machine, started by PyTorch's own launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from progan.errors import ConfigError

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
"""What the launcher passes on to the processes, as far as it is not ignored here."""
SHUTDOWN_SECONDS = 120
"""How long processes may take to stop after that: for their last checkpoint."""


def to_launch(devices: int | None, environment: Mapping[str, str]) -> bool:
    """Return whether this process is to start others, rather than being one of them or alone.

    Args:
        devices: How many were asked for; None if nothing was.
        environment: Of this process.

    Raises:
        ConfigError: if it cannot be.
    """
    if devices is None:
        return False
    if devices < 1:
        raise ConfigError(f"--devices {devices}: expected at least 1")
    there = environment.get("LOCAL_WORLD_SIZE")
    if there is None:
        return devices > 1
    if there != str(devices):
        raise ConfigError(
            f"--devices {devices}: torchrun has started {there} processes on this machine; leave the option "
            f"out, as it is for starting them without torchrun"
        )
    return False


def launch(devices: int, words: Sequence[str]) -> int:
    """Run progan with the same words in several processes, until all have ended.

    A signal is passed on to them. If one fails, the others are stopped; none is started again.

    Args:
        devices: How many processes; on CUDA each has one GPU.
        words: The arguments of the command.

    Returns:
        What to exit with.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the processes say it themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_SECONDS))
    heard = [name for name in SIGNALS if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]
    newer: dict[str, Any] = {"signals_to_handle": ",".join(heard)}  # not in every version of PyTorch
    known = {field.name for field in fields(LaunchConfig)}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        **{name: value for name, value in newer.items() if name in known},
    )
    try:
        elastic_launch(config, sys.executable)("-m", "progan", *words)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        codes = [failure.exitcode for _, failure in sorted(error.failures.items())]
        return next((code for code in codes if code > 0), 1)
    return 0
