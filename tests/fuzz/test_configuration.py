"""Any tree of options is a configuration or an error in words; a configuration can be written down."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from progan.config import Config, load_config, make_config, to_recipe, to_yaml
from progan.config.reading import flatten
from progan.errors import ConfigError

DEFAULTS = flatten(Config().model_dump(mode="json"))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([0, 1, 2, 4, 0.5, 1e-9, 1e300, 2**70, "auto", "none", "128", "96x144", "1e-3", "\ud800"]),
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def near(default: Any) -> st.SearchStrategy[Any]:
    """Return values of the kind of a default, most of which are allowed."""
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(0, 4) | st.sampled_from([8, 16, 64, 512])
    if isinstance(default, float):
        return st.floats(0, 2) | st.sampled_from([1.0, 100.0])
    if isinstance(default, list):
        return st.lists(st.integers(1, 64) | st.floats(0, 1000), max_size=4)
    return st.just(default)


def tree_of(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        branch = tree
        *above, last = key.split(".")
        for name in above:
            branch = branch.setdefault(name, {})
        branch[last] = value
    return tree


@st.composite
def options(draw: st.DrawFn, of: Any) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(sorted(DEFAULTS)), max_size=4, unique=True))
    return tree_of({key: draw(of(DEFAULTS[key])) for key in keys})


@settings(max_examples=200)
@given(st.one_of(options(lambda _: junk), st.dictionaries(st.sampled_from(list(Config.model_fields)), junk)))
def test_any_tree_is_a_configuration_or_an_error_in_words(tree: dict[str, Any]) -> None:
    try:
        config = make_config(tree)
    except ConfigError:
        return
    assert make_config(config.model_dump(mode="json")) == config


@settings(max_examples=200)
@given(options(near))
def test_what_is_allowed_can_be_written_down(tree: dict[str, Any]) -> None:
    try:
        config = make_config(tree)
    except ConfigError:
        return
    with tempfile.TemporaryDirectory() as folder:
        whole, recipe = Path(folder) / "c.yaml", Path(folder) / "c.json"
        whole.write_text(to_yaml(config))
        assert load_config(whole) == config
        recipe.write_text(to_recipe(config, "json"))
        assert to_recipe(load_config(recipe), "json") == recipe.read_text()
