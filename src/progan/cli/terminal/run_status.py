"""How runs stand, from outside: what their folders say, while they go on or after."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from progan.cli.terminal.console import PlainConsole, say
from progan.errors import ConfigError


def status(*runs: Path, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """Say how runs stand: phase, images seen, rate, end, last metrics, alarms; from their files alone.

    Parameters
    ----------
    runs
        Run folders.
    json_
        Print a JSON object a line, one for each run.
    """
    if not runs:
        raise ConfigError("name at least one run folder")
    console = PlainConsole()
    for run in runs:
        facts = state_of(run)
        if json_:
            print(json.dumps(facts))
            continue
        for line in _lines(facts):
            say(console, line)


def state_of(run: Path) -> dict[str, Any]:
    """Return how a run stands: what its last log point says, and what is to come.

    Returns:
        `run`, `images_seen`, `total` (images), `done` (share), `phase`, `resolution`, `images_per_second`,
        `seconds_left` (None if not known), `seconds_since` the last log point, `last` (the log point) and
        `alarms` (sentences with their clocks).

    Raises:
        ProganError: if it is no run, or its log is damaged.
    """
    from progan.data.packed import PackedSet
    from progan.performance.forecast import relative_costs
    from progan.performance.projection import kind_of, project
    from progan.runs.divergence import Alarm
    from progan.runs.logs import read_stats
    from progan.runs.resolve import restrict
    from progan.runs.run_folder import RunFolder
    from progan.training.spec import ImageSpec, make_spec

    folder = RunFolder(run)
    config, dataset, stats = folder.config(), folder.dataset(), read_stats(folder.stats_file)
    packed = restrict(PackedSet.open(dataset.packed), config)
    spec = make_spec(config, ImageSpec.of(packed), len(packed.indices(config.data.part)))
    alarm, alarms = Alarm(), list[str]()
    measured: dict[tuple[int, bool], float] = {}
    for point in stats:
        alarms += [f"at {int(point['images_seen']):,} images {told}" for told in alarm.observe(point)]
        if float(point["images_per_second"]) > 0:
            stage = int(point["level"]), point["phase"] != "stabilise"
            measured[stage] = 1 / float(point["images_per_second"])
    seen = int(stats[-1]["images_seen"]) if stats else 0
    total = spec.schedule.total
    made = (
        project(spec.schedule.phases, measured, relative_costs(spec)) if measured and seen < total else None
    )
    at = spec.schedule.at(seen)
    since = time.time() - folder.stats_file.stat().st_mtime if stats else None
    return {
        "run": str(run), "images_seen": seen, "total": total, "done": min(1.0, seen / total),
        "phase": at.phase.name, "stage": list(kind_of(at.phase)),
        "resolution": "x".join(map(str, spec.image.resolution(at.level))),
        "images_per_second": stats[-1]["images_per_second"] if stats else None,
        "seconds_left": 0.0 if seen >= total else made.left(seen) if made else None,
        "seconds_since": since, "last": stats[-1] if stats else {}, "alarms": alarms,
    }  # fmt: skip


def _lines(facts: dict[str, Any]) -> list[str]:
    """Return how a run stands in words."""
    from progan.runs.reporter import extras, loss
    from progan.system.progress import format_about

    done = f"{facts['images_seen']:,} of {facts['total']:,} images ({100 * facts['done']:.0f}%)"
    head = f"{facts['run']}: {done}, {facts['phase']} ({facts['resolution']})"
    last, warnings = facts["last"], [f"  warning: {each}" for each in facts["alarms"]]
    if facts["done"] >= 1:
        head += ", complete"
    if not last:
        return [f"{head}, no log point yet"]
    since = format_about(facts["seconds_since"])
    told = f"  {facts['images_per_second']:,.1f} images/s; last log point {since} ago"
    if facts["seconds_left"]:
        told += f"; from there about {format_about(facts['seconds_left'])} to the end"
    words = [f"{name} loss {loss(last, name)}" for name in ("D", "G")]
    return [head, told, "  " + ", ".join([*words, *extras(last)]), *warnings]
