"""Numbers, sample grids, a layout and options as TensorBoard events, in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from progan.config import flatten
from progan.generation.picture_form import flat
from progan.runs.callbacks.callback import Callback, RunStart
from progan.runs.logs import Stats
from progan.system.files import storage_errors

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LAYOUT = {
    "training": {
        "losses": ["Multiline", ["D/loss", "G/loss"]],
        "scores": ["Multiline", ["D/real_score", "D/fake_score"]],
        "gradient norms": ["Multiline", ["D/gradient_norm", "G/gradient_norm"]],
        "speed": ["Multiline", ["images_per_second"]],
    }
}
"""Curves that TensorBoard lays over one another, under Custom Scalars."""


class Tensorboard(Callback):
    """Events in the run folder, which TensorBoard names by it."""

    _events: SummaryWriter

    def begin(self, run: RunStart) -> None:
        """Open a file of events; a StorageError says that it cannot be written."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._folder, self._config, self._last = run.folder, run.config, Stats()
        with storage_errors(self._folder):
            purge = run.images_seen + 1 if run.images_seen else None
            self._events = SummaryWriter(str(run.folder), purge_step=purge)
        self._events.add_custom_scalars(LAYOUT)

    def log(self, stats: Stats) -> None:
        """Write the numbers of a log point."""
        with storage_errors(self._folder):
            step = int(stats["images_seen"])
            for name, value in stats.items():
                if isinstance(value, int | float) and name != "images_seen":
                    self._events.add_scalar(name, value, step)
            self._events.flush()
        self._last = stats

    def samples(self, picture: Path, images_seen: int) -> None:
        """Show a sample grid."""
        with Image.open(picture) as opened:
            pixels = np.asarray(flat(opened))
        with storage_errors(self._folder):
            form = "HWC" if pixels.ndim == 3 else "HW"
            self._events.add_image("samples", pixels, images_seen, dataformats=form)

    def end(self, how: str, images_seen: int) -> None:  # noqa: ARG002 - any end
        """Write what TensorBoard compares runs by: options, and the numbers of the last log point."""
        with storage_errors(self._folder):
            if self._last:
                self._write_options()
            self._events.close()

    def _write_options(self) -> None:
        from torch.utils.tensorboard import summary as summaries

        options = flatten(self._config.model_dump(mode="json"))
        plain = {
            key: value if isinstance(value, int | float | str) else json.dumps(value)
            for key, value in options.items()
            if value is not None
        }
        numbers = {name: float(value) for name, value in self._last.items() if not isinstance(value, str)}
        writer: Any = self._events.file_writer
        for made in summaries.hparams(plain, numbers):  # type: ignore[no-untyped-call]
            writer.add_summary(made)
