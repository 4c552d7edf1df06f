"""What a run writes down of parts of one's own: names, and files that define them with their hashes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from progan.config import Config, Parts
from progan.config.parts.given import SESSION, source_of
from progan.errors import CheckpointError, ConfigError, command
from progan.models.weights import RECORD
from progan.system.files import parse_json, write_text


@dataclass(frozen=True)
class _Recorded:
    """A part, the option that chooses it, whether it has options, and the file that defined it last."""

    place: str
    name: str
    defined_in: str
    sha256: str | None = None
    has_options: bool = True


class PartsRecord:
    """The file `parts.json` of a run folder; a run of shipped parts alone has none."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / RECORD

    def parts(self) -> Parts:
        """Return what the configuration of the run names: parts of which no more than their names is known.

        Raises:
            CheckpointError: if the file is damaged.
        """
        return Parts(tuple(Parts.named(o.place, o.name, o.defined_in, o.has_options) for o in self._read()))

    def write(self, config: Config) -> None:
        """Write the parts that a configuration knows; nothing where there are none."""
        hashes = {file.path: file.sha256 for file in config.parts.files}
        known = {(one.place, one.name): one for one in self._read()}
        for part in config.parts.own:
            if not part.missing:
                place, has_options = source_of(part), bool(part.Options.model_fields)
                known[part.chosen_by, part.name] = _Recorded(
                    part.chosen_by, part.name, place, hashes.get(place), has_options
                )
        if known:
            lines = [asdict(one) for one in known.values()]
            write_text(self._file, json.dumps({"parts": lines}, indent=2) + "\n")

    def require_at_hand(self, config: Config) -> list[str]:
        """Check that what a configuration chooses is defined here, as a run that goes on needs it.

        Args:
            config: Of the run.

        Returns:
            What to tell: files that have changed since the run used them.

        Raises:
            ConfigError: naming what is missing, and the command that gives it.
        """
        chosen = config.parts.chosen(config.model_dump(mode="json"))
        if missing := [part for part in chosen if part.missing]:
            names = ", ".join(f"{part.chosen_by} {part.name}" for part in missing)
            places = list(dict.fromkeys(part.missing for part in missing))
            words = [word for place in places if place != SESSION for word in ("--plugin", place)]
            how = command("train", "--resume", self._folder, *words) if words else "progan.resume in Python"
            raise ConfigError(
                f"{self._folder} uses {names}, defined in {', '.join(places)}: go on with {how}"
            )
        files, told = {file.path: file.sha256 for file in config.parts.files}, list[str]()
        for one in self._read():
            now = files.get(one.defined_in)
            if now is not None and one.sha256 not in (None, now):
                told.append(
                    f"{one.defined_in} has changed since the run used it last (sha256 "
                    f"{str(one.sha256)[:12]} then, {now[:12]} now); it goes on with the file as it is"
                )
        return list(dict.fromkeys(told))

    def _read(self) -> list[_Recorded]:
        try:
            tree: Any = parse_json(self._file.read_text(encoding="utf-8"))
            return [_Recorded(**one) for one in tree["parts"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{self._file} cannot be read: {error}") from None
