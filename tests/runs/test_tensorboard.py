"""TensorBoard is given numbers, sample grids, a layout and what runs are compared by, named by the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from progan.data.packed import PackedSet
from progan.runs.run import train
from tiny import options


def events_of(folder: Path) -> list[Any]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    files = sorted(folder.glob("events.out.tfevents.*"))
    return [event for file in files for event in LegacyEventFileLoader(str(file)).Load()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_tensorboard_is_given(blobs: PackedSet, tmp_path: Path) -> None:
    run = Path(train(blobs.path, out=tmp_path / "runs" / "mine", options=options()))
    values = [(event.step, value) for event in events_of(run) for value in event.summary.value]
    grids = [(step, value.image) for step, value in values if value.tag == "samples"]
    assert [step for step, _ in grids] == [int(path.name[:9]) for path in sorted(run.glob("samples/0*.png"))]
    assert all(image.encoded_image_string.startswith(b"\x89PNG") for _, image in grids)
    plugins = {value.metadata.plugin_data.plugin_name for _, value in values}
    assert {"custom_scalars", "hparams"} <= plugins
    about = next(value for _, value in values if value.tag == "_hparams_/session_start_info")
    assert b"model.generator.fmap_max" in about.metadata.plugin_data.content
    losses = [step for step, value in values if value.tag == "D/loss"]
    assert losses[-1] == 240
