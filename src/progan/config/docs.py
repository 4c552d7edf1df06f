"""The pages of documentation that are made from the models and the recipes.

`python -m progan.config.docs FOLDER` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from progan.config.model import DiscriminatorOptions, GeneratorOptions, ModelOptions, NetworkOptions
from progan.config.recipes import DEFAULT_RECIPE, recipe_about, recipe_names
from progan.config.schema import in_words, option_schema
from progan.config.tree import Options

OPTIONS_HEAD = """\
# Options

Made by `make docs` from the models in `src/progan/config`; a test keeps it so.

An option has the same name everywhere: `schedule.batch_size` is the key `batch_size` of `schedule` in a
file, and `--schedule.batch-size` on the command line. The command line wins over the file (`--config FILE`:
YAML, JSON or TOML), the file over the recipe (`--recipe NAME`, see [recipes](recipes.md)), the recipe over
the defaults below. `progan config show` prints what comes of it (but what the pictures will decide),
`progan config validate FILE` checks a file, and `progan config schema` prints the JSON schema of files, for
editors.

A list is per level: entry i belongs to level i (0 is the base shape), the last entry to every level above;
one value stands for a list of one. Lengths and intervals in kimg count thousands of real images shown to D.
Sections, tables and appendices are those of the [paper](https://arxiv.org/abs/1710.10196).

"Seen in" names the older systems that had the option, or did it in a way of their own, as far as their code
was read; "-" means that none was found that had it.
"""

RECIPES_HEAD = """\
# Recipes

Made by `make docs` from the heads of the files in `src/progan/recipes`; a test keeps it so.

A recipe is a configuration that ships with progan: `progan train SOURCE --recipe NAME`. `progan recipes`
lists them and `progan recipes NAME` prints one with all its values. Without `--recipe` it is `{default}`.
Options and files of your own are laid over it ([options](options.md)).

Batch sizes are those of a whole update, in however many parts it is computed. progan trains on one device
today; the recipes for several GPUs differ in batch sizes and learning rates alone, and one GPU with enough
memory (or `--run.micro-batch`) runs each of them. What a recipe does not set is the default. "Published" are
figures of others; none of them was measured with progan.
"""


@cache
def older_systems() -> dict[str, dict[str, Any]]:
    """Return what `seen_in.yaml` says of the older systems of the field.

    Returns:
        `systems`: short name -> what it is; `options`: heading of a table -> option -> systems that had it.
    """
    text = resources.files("progan.config").joinpath("seen_in.yaml").read_text(encoding="utf-8")
    known: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return known


def options_page() -> str:
    """Return the table of every option as Markdown."""
    systems = "\n".join(f"- {name}: {what}" for name, what in older_systems()["systems"].items())
    tables = [_table(title, model, names) for title, model, names in option_tables()]
    return "\n".join([OPTIONS_HEAD, systems, "", *tables])


def recipes_page() -> str:
    """Return what every recipe says of itself as Markdown."""
    lines = [RECIPES_HEAD.format(default=DEFAULT_RECIPE)]
    for name in recipe_names():
        about = recipe_about(name)
        lines += [f"## {name}", "", about.what, ""]
        lines += [f"- Source: {about.source}", f"- Published: {about.published}"]
        lines += [f"- {about.note}"] if about.note else []
        lines.append("")
    return "\n".join(lines)


def option_tables() -> Iterator[tuple[str, type[BaseModel], list[str]]]:
    """Yield every table of options: its heading, its model, and the names of its options in order."""
    shared = list(NetworkOptions.model_fields)
    for title, field in Options.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)  # every branch is a model
        if model is not ModelOptions:
            yield title, model, list(model.model_fields)
            continue
        networks = ("generator", "discriminator")
        yield title, model, [name for name in model.model_fields if name not in networks]
        yield "model.generator and model.discriminator", NetworkOptions, shared
        for name, network in (("generator", GeneratorOptions), ("discriminator", DiscriminatorOptions)):
            yield f"model.{name}", network, [own for own in network.model_fields if own not in shared]


def _table(title: str, model: type[BaseModel], names: Iterable[str]) -> str:
    """Return the section of a branch."""
    rows = [f"## {title}", "", _cell(str(model.__doc__)), ""]
    rows += ["| option | meaning | default | values | seen in |", "| --- | --- | --- | --- | --- |"]
    had = older_systems()["options"].get(title, {})
    for name in names:
        schema = option_schema(model, name)
        systems = ", ".join(had.get(name, ())) or "-"
        cells = [f"`{name}`", schema["description"], _default(schema["default"]), in_words(schema), systems]
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([*rows, ""])


def _default(value: Any) -> str:
    """Write a default; none is written for what is decided otherwise, as the meaning says."""
    if value is None or value == []:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_default, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Write text on one line, with the bars that Markdown would take for columns escaped."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for page, text in (("options.md", options_page()), ("recipes.md", recipes_page())):
        (Path(sys.argv[1]) / page).write_text(text, encoding="utf-8")
