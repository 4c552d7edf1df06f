"""Trackers of experiments: Weights & Biases, MLflow and trackio, each an extra, imported where it is used.

A run goes on in the tracked run that it was begun in: `track.json` in its folder has the name of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from progan.config import Config, flatten
from progan.errors import DependencyError
from progan.runs.callbacks.callback import Callback, RunStart
from progan.runs.logs import Stats
from progan.system.files import parse_json, write_text

NAMES = "track.json"


class _Tracker(Callback, ABC):
    """What the trackers share: their module, flat options, and the name of the tracked run.

    Attributes:
        module: What is imported.
        install: What `pip install` is told.
    """

    module: ClassVar[str]
    install: ClassVar[str]

    def check(self, config: Config) -> None:  # noqa: ARG002 - every one asks for the module
        """Raise a DependencyError if the tracker is not installed."""
        try:
            self._api: Any = import_module(self.module)
        except ImportError as error:
            raise DependencyError(
                f"track.to {self.name} needs {self.module}: pip install 'progan[{self.install}]' ({error})"
            ) from None

    def begin(self, run: RunStart) -> None:
        """Begin a tracked run, or go on with the one that was begun."""
        self._run, self._last = run, Stats()
        track = run.config.track
        self._open(track.project, track.name or run.folder.resolve().name, self._options())

    def log(self, stats: Stats) -> None:
        """Add the numbers of a log point to the curves."""
        self._last = stats
        numbers = {name: value for name, value in stats.items() if not isinstance(value, str)}
        self._log(numbers, int(stats["images_seen"]))

    @abstractmethod
    def _open(self, project: str, name: str, options: dict[str, Any]) -> None:
        """Begin a tracked run, or go on with the one that is remembered."""

    @abstractmethod
    def _log(self, numbers: dict[str, float | int], clock: int) -> None:
        """Add numbers at a clock."""

    def _options(self) -> dict[str, Any]:
        return flatten(self._run.config.model_dump(mode="json"))

    def _known(self) -> str | None:
        """Return the name of the tracked run that this run was begun in."""
        return self._names().get(self.name)

    def _remember(self, name: str) -> None:
        write_text(self._run.folder / NAMES, json.dumps({**self._names(), self.name: name}, indent=2) + "\n")

    def _names(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            tree = parse_json((self._run.folder / NAMES).read_text(encoding="utf-8"))
            return {str(key): str(value) for key, value in dict(tree).items()}
        return {}


class Wandb(_Tracker):
    """Weights & Biases: options, curves over images seen, sample grids, the last numbers as the summary.

    Without an account: WANDB_MODE=offline; the files are then in the run folder, for `wandb sync`.
    """

    module = install = "wandb"

    def _open(self, project: str, name: str, options: dict[str, Any]) -> None:
        known = self._known() or uuid.uuid4().hex[:12]
        self._tracked = self._api.init(
            project=project, name=name, id=known, resume="allow", config=options, dir=str(self._run.folder),
            settings=self._api.Settings(silent=True),
        )  # fmt: skip
        self._remember(known)
        # Work that a kill took away is done and logged again: curves go by the clock, not by the calls.
        self._tracked.define_metric("images_seen")
        self._tracked.define_metric("*", step_metric="images_seen")

    def _log(self, numbers: dict[str, float | int], clock: int) -> None:
        self._tracked.log({**numbers, "images_seen": clock})

    def samples(self, picture: Path, images_seen: int) -> None:
        """Add a sample grid."""
        self._tracked.log({"samples": self._api.Image(str(picture)), "images_seen": images_seen})

    def end(self, how: str, images_seen: int) -> None:
        """Write the summary, and say how it ended."""
        self._tracked.summary.update({**self._last, "images_seen": images_seen, "ended": how})
        self._tracked.finish(exit_code=1 if how == "failed" else 0)


class Mlflow(_Tracker):
    """MLflow: options as parameters, curves over images seen, sample grids as artifacts.

    `track.url`, MLFLOW_TRACKING_URI or MLflow's own default says where.
    """

    module = install = "mlflow"

    def _open(self, project: str, name: str, options: dict[str, Any]) -> None:
        client = self._client = self._api.MlflowClient(self._run.config.track.url)
        if (known := self._known()) is not None:
            self._id = known
            client.update_run(known, status="RUNNING")
            return
        experiment = client.get_experiment_by_name(project)
        number = client.create_experiment(project) if experiment is None else experiment.experiment_id
        self._id = client.create_run(number, run_name=name).info.run_id
        self._remember(self._id)
        for key, value in options.items():
            client.log_param(self._id, key, value)

    def _log(self, numbers: dict[str, float | int], clock: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._id, name, float(value), step=clock)

    def samples(self, picture: Path, images_seen: int) -> None:  # noqa: ARG002 - it is in the name
        """Add a sample grid."""
        self._client.log_artifact(self._id, str(picture), "samples")

    def end(self, how: str, images_seen: int) -> None:
        """Say how it ended."""
        self._client.set_tag(self._id, "images_seen", str(images_seen))
        status = {"done": "FINISHED", "stopped": "KILLED"}.get(how, "FAILED")
        self._client.set_terminated(self._id, status)


class Trackio(_Tracker):
    """trackio: options, curves over images seen, sample grids; `trackio show` opens them on this machine."""

    module = install = "trackio"

    def _open(self, project: str, name: str, options: dict[str, Any]) -> None:
        known = self._known() or f"{name}-{uuid.uuid4().hex[:6]}"
        plain = {key: value for key, value in options.items() if value is not None}
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            self._tracked = self._api.init(
                project=project, name=known, resume="allow", config=plain, embed=False
            )
        self._remember(known)

    def _log(self, numbers: dict[str, float | int], clock: int) -> None:
        self._api.log(numbers, step=clock)

    def samples(self, picture: Path, images_seen: int) -> None:
        """Add a sample grid."""
        self._api.log({"samples": self._api.Image(str(picture))}, step=images_seen)

    def end(self, how: str, images_seen: int) -> None:
        """Close it."""
        self._api.log({"ended": how}, step=images_seen)
        self._api.finish()
