"""The callbacks that a configuration chooses, and those that a call gives."""

from __future__ import annotations

from progan.config import Config, Part, made
from progan.errors import ConfigError
from progan.runs.callbacks.callback import Callback
from progan.runs.callbacks.csv_file import Csv
from progan.runs.callbacks.tensorboard import Tensorboard
from progan.runs.callbacks.trackers import Mlflow, Trackio, Wandb
from progan.runs.callbacks.webhook import Webhook

SHIPPED: tuple[type[Callback], ...] = (Tensorboard, Csv, Webhook, Wandb, Mlflow, Trackio)


def callbacks_of(config: Config) -> list[Callback]:
    """Return the callbacks of a run, which have all that they need.

    Raises:
        ProganError: if one lacks something, such as a package or an address.
    """
    shipped: dict[str, type[Part]] = {part.name: part for part in SHIPPED}
    known = shipped | config.parts.of(Callback.chosen_by)
    callbacks = [made(known[name], Callback, config.track) for name in config.track.to]
    for given in config.parts.followers:
        if not isinstance(given, Callback):
            raise ConfigError(f"callbacks: {given!r} is none; derive its class from progan.Callback")
        callbacks.append(given)
    for callback in callbacks:
        callback.check(config)
    return callbacks
