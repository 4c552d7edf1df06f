"""The configuration: merging, recipes, lists per level, resolutions, and errors that help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from progan.config import (
    Config,
    differing_keys,
    flatten,
    format_resolution,
    load_config,
    make_config,
    merge,
    parse_resolution,
    per_level,
    split_resolution,
    to_yaml,
)
from progan.errors import ConfigError
from progan.recipes import read_recipe, recipe_names, recipe_summary

sides = st.integers(1, 20)


@given(st.tuples(sides, sides), st.integers(0, 10))
def test_a_base_shape_times_a_power_of_two_is_split_exactly(base: tuple[int, int], level: int) -> None:
    resolution = (base[0] << level, base[1] << level)
    assert split_resolution(resolution, base) == (base, level)


@given(st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
def test_splitting_without_a_base_shape(resolution: tuple[int, int]) -> None:
    try:
        (height, width), level = split_resolution(resolution)
    except ConfigError as error:
        nearest = str(error).rsplit(": ", 1)[1]
        split_resolution(parse_resolution(nearest))  # what is proposed works
    else:
        assert (height << level, width << level) == resolution
        assert min(height, width) >= 4
        assert max(height, width) <= 16
        odd = height % 2 or width % 2
        assert odd or min(height, width) < 8, "as small as can be"


@given(st.tuples(sides, sides), st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_the_nearest_resolution_of_a_base_shape_works(
    base: tuple[int, int], resolution: tuple[int, int]
) -> None:
    try:
        assert split_resolution(resolution, base)[0] == base
    except ConfigError as error:
        near = parse_resolution(str(error).rsplit(": ", 1)[1])
        split_resolution(near, base)
        heights = [base[0] << level for level in range(20)]
        assert abs(near[0] - resolution[0]) == min(abs(height - resolution[0]) for height in heights)


@given(st.tuples(st.integers(1, 9999), st.integers(1, 9999)))
def test_resolutions_are_read_as_they_are_written(resolution: tuple[int, int]) -> None:
    assert parse_resolution(format_resolution(resolution)) == resolution
    assert parse_resolution(f" {resolution[0]}X{resolution[1]} ") == resolution
    assert parse_resolution(resolution[0]) == parse_resolution(str(resolution[0])) == (resolution[0],) * 2


@pytest.mark.parametrize("text", ["", "0", "12x", "x12", "0x4", "4x0", "-4", "4.5", "big", "4x4x4"])
def test_what_is_no_resolution(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a side such as 128, or HEIGHTxWIDTH"):
        parse_resolution(text)


@given(st.lists(st.integers(), min_size=1, max_size=9), st.integers(0, 20))
def test_per_level(values: list[int], level: int) -> None:
    expected = (values + [values[-1]] * 30)[level]
    assert per_level(tuple(values), level) == expected


names = st.sampled_from("abcde")
trees = st.recursive(
    st.dictionaries(names, st.integers(), max_size=3), lambda inner: st.dictionaries(names, inner, max_size=3)
)


@given(trees, trees)
def test_merging(a: dict[str, Any], b: dict[str, Any]) -> None:
    before = json.dumps([a, b])
    both = merge(a, b)
    assert json.dumps([a, b]) == before, "nothing given is changed"
    flat_a, flat_b, flat = flatten(a), flatten(b), flatten(both)
    for key, value in flat_b.items():
        assert flat[key] == value, "later ones win"
    for key, value in flat_a.items():
        covered = any(key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in flat_b)
        if not covered and key in flat:
            assert flat[key] == value
    assert merge(a, a) == a
    assert merge(a, {}) == merge({}, a) == merge(a) == a


def test_options_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("schedule: {batch_size: [8, 4], fade_kimg: 7}\nrun:\n  seed: 3\n")
    config = load_config(mine, {"schedule": {"fade_kimg": [9]}})
    assert config.schedule.batch_size == (8, 4)
    assert config.schedule.fade_kimg == (9.0,)
    assert config.run.seed == 3
    assert config.optimizer == Config().optimizer
    # A list replaces a list; it is not merged entry by entry.
    assert load_config(mine, {"schedule": {"batch_size": [2]}}).schedule.batch_size == (2,)
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    assert load_config(empty) == Config()


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert recipe_summary(name).endswith(".")
    path = tmp_path / "copy.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config
    # What a recipe says is there; what it does not say is the default.
    said, held, default = (
        flatten(read_recipe(name)),
        flatten(config.model_dump()),
        flatten(Config().model_dump()),
    )
    for key, value in held.items():
        if key in said:
            expected = tuple(said[key]) if isinstance(said[key], list) else said[key]
            assert value in (expected, (expected,)), key
        else:
            assert value == default[key], key


def test_the_recipes_there_are() -> None:
    assert {"light", "paper", "quickstart"} <= set(recipe_names())
    paper = load_config("paper")
    assert paper.schedule.stabilise_kimg == paper.schedule.fade_kimg == (800.0,)
    assert (paper.optimizer.g_lr, paper.optimizer.beta1, paper.optimizer.beta2) == ((0.001,), 0.0, 0.99)
    assert (paper.loss.gp_lambda, paper.loss.drift, paper.optimizer.ema_decay) == (10, 0.001, 0.999)


def test_yaml_round_trip_of_unusual_values(tmp_path: Path) -> None:
    tree: dict[str, Any] = {
        "data": {"resolution": "96x144", "cache": "/tmp/a b", "labels": "no", "split": [0.7, 0.2, 0.1]},
        "model": {"base_shape": [6, 9]},
        "optimizer": {"eps": 1e-8, "g_lr": [1e-4, 3e-5]},
        "run": {"seed": 2**63 - 1, "device": "cuda:1"},
    }
    config = make_config(tree)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config
    assert make_config(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"schedule": {"batchsize": 4}}, ["unknown option 'schedule.batchsize'", "'schedule.batch_size'?"]),
        ({"shedule": {}}, ["unknown option 'shedule'", "did you mean 'schedule'?"]),
        (
            {"model": {"generator": {"fmap_maxx": 4}}},
            ["'model.generator.fmap_maxx'", "did you mean 'model.generator.fmap_max'?"],
        ),
        ({"zzzz": 1}, ["unknown option 'zzzz'."]),
        (
            {"schedule": {"batch_size": 0}},
            ["schedule.batch_size.0", "greater than or equal to 1", "given: 0"],
        ),
        ({"schedule": {"batch_size": []}}, ["schedule.batch_size: needs at least one value"]),
        ({"schedule": {"batch_size": "many"}}, ["schedule.batch_size.0", "given: 'many'"]),
        ({"schedule": 5}, ["schedule: ", "given: 5"]),
        ({"schedule": None}, ["schedule: ", "given: None"]),
        ({"optimizer": {"reset": "sometimes"}}, ["optimizer.reset", "'never', 'level' or 'phase'"]),
        ({"optimizer": {"g_lr": float("nan")}}, ["optimizer.g_lr.0", "finite"]),
        (
            {"data": {"split": [0.5, 0.2, 0.2]}},
            ["data.split: the shares must not be negative and add up to 1, not 0.9"],
        ),
        ({"data": {"resolution": "huge"}}, ["resolution 'huge': expected a side such as 128"]),
        ({"data": {"resolution": "100"}}, ["resolution 100x100", "the nearest that is: 96x96"]),
        (
            {"data": {"resolution": "100"}, "model": {"base_shape": [4, 4]}},
            ["100x100 is not the base shape 4x4 times a power of two; the nearest that is: 128x128"],
        ),
        (
            {"data": {"resolution": "16"}, "schedule": {"start_level": 5}},
            ["schedule.start_level 5 is above the last level, 2"],
        ),
        (
            {"schedule": {"batch_size": [16, 6]}},
            ["schedule.batch_size 6 is not a multiple of model.discriminator.stddev_group 4"],
        ),
        ({"run": {"micro_batch": 6}}, ["run.micro_batch 6 would split minibatch-stddev groups of 4"]),
    ],
)
def test_errors_name_the_place_and_the_way_out(tree: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(tree)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"schedule": {"fade": 1}, "run": {"seed": -1}, "modle": {}})
    assert len(str(caught.value).splitlines()) == 3


def test_stddev_groups_that_fit() -> None:
    for sizes, branches in (
        ((16, 3), {}),  # a batch smaller than a group is one group
        ((7,), {"model": {"discriminator": {"stddev_group": 0}}}),
        ((16, 8), {"run": {"micro_batch": 8}}),
        ((4,), {"run": {"micro_batch": 6}}),  # never divided
    ):
        tree: dict[str, Any] = {"schedule": {"batch_size": sizes}, **branches}
        assert make_config(tree).schedule.batch_size == sizes


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe is called 'papper'; did you mean 'paper'\?"):
        load_config("papper")
    with pytest.raises(ConfigError, match=r"Recipes: .*light.*paper"):
        load_config("qqqq")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
    path = tmp_path / "bad.yaml"
    for text, message in (("a: [", "not valid YAML"), ("- a\n- b", "expected a mapping"), ("5", "found int")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


def test_differing_keys() -> None:
    one = Config()
    other = make_config({"schedule": {"batch_size": [8]}, "model": {"generator": {"fmap_max": 64}}})
    assert differing_keys(one, one) == []
    expected = ["model.generator.fmap_max", "schedule.batch_size"]
    assert differing_keys(one, other) == differing_keys(other, one) == expected
    assert differing_keys(make_config({"optimizer": {"g_lr": 0.001}}), one) == [], "written otherwise, equal"


def test_a_configuration_does_not_change() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.run.seed = 5  # type: ignore[misc]


@pytest.mark.parametrize("given", ["0.8,0.1,0.1", [0.8, 0.1, 0.1], (0.8, 0.1, 0.1), " 0.8, 0.1 ,0.1"])
def test_a_split_may_be_written_in_any_way(given: Any) -> None:
    data = make_config({"data": {"split": given}}).data
    assert data.split == "0.8,0.1,0.1"
    assert data.shares == (0.8, 0.1, 0.1)


@pytest.mark.parametrize("given", ["0.8,0.2", "a,b,c", "", [1], 3, "nan,0,0", "1.5,-0.5,0"])
def test_a_split_that_is_none(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.split"):
        make_config({"data": {"split": given}})


@pytest.mark.parametrize("text", ["[" * 5000, "a: &x [1]\nb: *x\n", "- 1\n", "{", "a: b: c"])
def test_recipe_files_that_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match="recipe"):
        read_recipe(tmp_path / "r.yaml")
