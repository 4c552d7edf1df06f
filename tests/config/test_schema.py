"""The JSON schema of configuration files, and the pages made from the models and recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from progan.config import Config, LossOptions, Options, file_schema, flatten, load_config, make_config
from progan.config.docs import older_systems, option_tables, options_page, recipes_page
from progan.config.recipes import read_recipe, recipe_names
from progan.config.schema import option_schema

SCHEMA = Draft202012Validator(file_schema())
DOCS = Path(__file__).parents[2] / "docs"


def leaves(schema: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return the schema of every option of a file by its dotted name."""
    found: dict[str, dict[str, Any]] = {}
    for name, option in schema["properties"].items():
        if "$ref" in option:
            branch = file_schema()["$defs"][option["$ref"].rsplit("/", 1)[1]]
            found |= leaves(branch, f"{prefix}{name}.")
        elif name != "$schema":
            found[prefix + name] = option
    return found


def test_the_schema_is_one() -> None:
    schema = file_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert all(branch["additionalProperties"] is False for branch in (schema, *schema["$defs"].values()))
    assert set(leaves(schema)) == set(flatten(Config().model_dump()))


def test_every_option_is_described() -> None:
    for name, option in leaves(file_schema()).items():
        assert option["description"].endswith((".", "...")), name


def test_the_marks_of_older_systems_are_of_options_and_explained() -> None:
    known = older_systems()
    tables = {title: set(names) for title, _, names in option_tables()}
    for title, options in known["options"].items():
        assert set(options) <= tables[title], title
    used = {name for options in known["options"].values() for systems in options.values() for name in systems}
    assert used == set(known["systems"])


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ({"schedule": {"batch_size": 0}}, "schedule"),
        ({"schedule": {"batch_size": [4, 0]}}, "schedule"),
        ({"schedule": {"batch_size": "many"}}, "schedule"),
        ({"shedule": {}}, None),
        ({"model": {"generator": {"fmap_maxx": 4}}}, "model"),
        ({"loss": {"adversarial": "lsgan"}}, "loss"),
        ({"augment": {"policy": ["colour"]}}, "augment"),
        ({"optimizer": {"beta1": 1}}, "optimizer"),
        ({"run": 5}, "run"),
        ({"run": {"grid": [1]}}, "run"),
    ],
)
def test_wrong_files(tree: dict[str, Any], place: str | None) -> None:
    errors = list(SCHEMA.iter_errors(tree))
    assert [error.path[0] if error.path else None for error in errors] == [place]


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"$schema": "schema.json"},
        {"schedule": {"batch_size": 16, "fade_kimg": [0.5, 2]}, "optimizer": {"g_lr": 1e-4}},
        {"data": {"resolution": 64, "split": [0.8, 0.1, 0.1]}, "model": {"base_shape": [4, 6]}},
        {"data": {"resolution": "96x144", "split": "1,0,0", "cache": None}, "run": {"micro_batch": None}},
        {"loss": {"drift": None}},
    ],
)
def test_right_files(tree: dict[str, Any]) -> None:
    assert not list(SCHEMA.iter_errors(tree))


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_resolved_is_a_file_too(name: str) -> None:
    assert not list(SCHEMA.iter_errors(load_config(name).model_dump(mode="json")))
    assert not list(SCHEMA.iter_errors(read_recipe(name)))


VALUES: list[Any] = [-2, 0, 0.5, 1, 3, 40, 5000, "wgan", "all", "x", "64", True, None]
VALUES += [[], [0], [1, 2], [0.5], [1, 0, 0], ["color"], ["x"], {}, [[1]]]


@pytest.mark.parametrize("name", leaves(file_schema()))
def test_the_schema_refuses_nothing_that_is_taken(name: str) -> None:
    """It may take more, because rules in code are not in it."""
    taken, option = 0, leaves(file_schema())[name]
    for value in [*VALUES, option["default"], *option.get("enum", [])]:
        tree: Any = value
        for part in reversed(name.split(".")):
            tree = {part: tree}
        try:
            Options.model_validate(tree)
        except ValidationError:
            continue
        taken += 1
        # Text that is a number, and 1 for true or the other way round, are taken and not advertised.
        converted = isinstance(value, bool | str) or value in (0, 1)
        assert not list(SCHEMA.iter_errors(tree)) or converted, tree
    assert taken


def test_the_pages_are_up_to_date() -> None:
    """`make docs` writes them."""
    assert (DOCS / "options.md").read_text(encoding="utf-8") == options_page()
    assert (DOCS / "recipes.md").read_text(encoding="utf-8") == recipes_page()


def test_the_page_of_options() -> None:
    page = options_page()
    for name in leaves(file_schema()):
        assert f"| `{name.rsplit('.', 1)[1]}` |" in page, name
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    # Those of both networks have one row together.
    shared = [name for name in leaves(file_schema()) if name.startswith("model.generator.")]
    both = [n for n in shared if n.replace("generator", "discriminator") in leaves(file_schema())]
    assert len(rows) == len(leaves(file_schema())) - len(both)
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert "| `r1_gamma` | Weight of \\|grad D(real)\\|^2 / 2;" in page


def test_schemas_of_options() -> None:
    assert option_schema(LossOptions, "d_steps")["minimum"] == 1
    assert make_config({"loss": {"d_steps": 1}}).loss.d_steps == 1
