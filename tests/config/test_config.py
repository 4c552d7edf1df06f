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
from progan.config.documents import read_document
from progan.config.recipes import DEFAULT_RECIPE, read_recipe, recipe_names
from progan.errors import ConfigError

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


@pytest.mark.parametrize(
    "text", ["", "0", "12x", "x12", "0x4", "4x0", "-4", "4.5", "big", "4x4x4", "9" * 8, "4x" + "9" * 5000]
)
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
    path = tmp_path / "copy.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config
    # What a recipe says is there; what it does not say is the default, of its loss in particular.
    said, held = flatten(read_recipe(name)), flatten(config.model_dump())
    default = flatten(make_config({"loss": {"adversarial": config.loss.adversarial}}).model_dump())
    for key, value in held.items():
        if key in said:
            expected = tuple(said[key]) if isinstance(said[key], list) else said[key]
            assert value in (expected, (expected,)), key
        else:
            assert value == default[key], key


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
            ["schedule.batch_size: 0 is not allowed; expected a whole number, at least 1, or a list"],
        ),
        ({"schedule": {"batch_size": []}}, ["schedule.batch_size: needs at least one value"]),
        ({"schedule": {"batch_size": "many"}}, ["schedule.batch_size: 'many' is not allowed"]),
        ({"schedule": {"batch_size": [4, 0]}}, ["schedule.batch_size[1]: 0 is not allowed"]),
        ({"run": {"seed": -1}}, ["run.seed: -1", "a whole number, at least 0 and below 2^63"]),
        ({"run": {"memory_fraction": 2}}, ["run.memory_fraction: 2", "a number, above 0 and at most 1"]),
        ({"run": {"grid": 3}}, ["run.grid: 3", "2 values, each a whole number, at least 1"]),
        ({"run": {"compile": "perhaps"}}, ["run.compile: 'perhaps'", "expected 'auto', 'always' or 'never'"]),
        ({"run": {"device": 3}}, ["run.device: 3 is not allowed; expected text"]),
        ({"data": {"cache": 3}}, ["data.cache: 3 is not allowed; expected a path"]),
        ({"augment": {"target": 1.5}}, ["augment.target: 1.5", "expected a number from 0 to 1"]),
        ({"augment": {"policy": "color"}}, ["expected a list of 'color', 'translation' or 'cutout'"]),
        ({"model": {"generator": 3}}, ["model.generator: expected a mapping of options (given: 3)"]),
        (
            {"model": {"generator": {"kernel_size": 4}}},
            ["model.generator.kernel_size 4: expected an odd number"],
        ),
        ({"run": {"device": ["long" * 50]}}, ["run.device: ['longlong", "... is not allowed; expected text"]),
        ({"schedule": 5}, ["schedule: ", "given: 5"]),
        ({"schedule": None}, ["schedule: ", "given: None"]),
        (
            {"optimizer": {"reset": "sometimes"}},
            ["optimizer.reset: 'sometimes' is not allowed; expected 'never', 'level' or 'phase'"],
        ),
        ({"optimizer": {"g_lr": float("nan")}}, ["optimizer.g_lr: nan is not allowed", "a number, above 0"]),
        (
            {"data": {"split": [0.5, 0.2, 0.2]}},
            ["data.split: the shares [0.5, 0.2, 0.2] must not be negative and add up to 1, not 0.9"],
        ),
        ({"data": {"resolution": "huge"}}, ["data.resolution 'huge': expected a side such as 128"]),
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
    tree = {
        "schedule": {"fade": 1, "batch_size": [0, 4, 0]},
        "run": {"seed": -1},
        "modle": {},
        "data": {"resolution": "huge", "split": "a"},
        "loss": {"adversarial": "lsgan"},
    }
    with pytest.raises(ConfigError) as caught:
        make_config(tree)
    assert len(str(caught.value).splitlines()) == 8


@pytest.mark.parametrize(
    ("tree", "start"),
    [
        ({"loss": {"adversarial": "hinge", "drift": 0.001}}, "loss.drift 0.001 belongs to the wgan loss"),
        ({"optimizer": {"weight_decay": 0.1}}, "optimizer.weight_decay 0.1 has no effect"),
        ({"augment": {"adaptive": True}}, "augment.adaptive needs something to adapt"),
        ({"augment": {"policy": ["color"] * 2}}, "augment.policy color, color: name each"),
        ({"schedule": {"growth": "none", "start_level": 2}}, "schedule.growth none trains"),
        (
            {"schedule": {"morph_kimg": 5}},
            "schedule.morph_kimg 5.0 does nothing without schedule.growth morph",
        ),
        ({"schedule": {"growth": "morph", "fade_kimg": 5}}, "schedule.fade_kimg 5.0 does nothing without"),
    ],
)
def test_an_option_is_named_once(tree: dict[str, Any], start: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(tree)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    ("option", "given", "meant"),
    [
        ("loss.adversarial", "lsgan", "least_squares"),
        ("loss.adversarial", "WGAN-GP", "wgan"),
        ("loss.adversarial", "non-saturating", "logistic"),
        ("loss.adversarial", "leastsquares", "least_squares"),
        ("run.precision", "bf16", "bfloat16"),
        ("run.precision", "float-16", "float16"),
        ("model.generator.activation", "LeakyReLU", "leaky_relu"),
        ("model.discriminator.activation", "swish", "silu"),
        ("model.conditioning", "AC-GAN", "ac_gan"),
        ("augment.policy", ["colour"], "color"),
        ("optimizer.reset", "qqqq", None),
    ],
)
def test_values_that_are_nearly_right(option: str, given: Any, meant: str | None) -> None:
    tree: Any = given
    for part in reversed(option.split(".")):
        tree = {part: tree}
    with pytest.raises(ConfigError) as caught:
        make_config(tree)
    message = str(caught.value)
    assert message.startswith(f"{option}: {given[0] if isinstance(given, list) else given!r}"[:12])
    assert ("did you mean" in message) == (meant is not None)
    assert meant is None or message.endswith(f"; did you mean {meant!r}?")


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
    with pytest.raises(ConfigError, match=r"no recipe is called 'lsun256'; did you mean 'lsun-256'\?"):
        load_config("lsun256")
    with pytest.raises(ConfigError, match=r"Recipes: .*lsun-256.*; or give a file \(.yaml, "):
        load_config("qqqq")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "plain.txt").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"plain.txt: the ending .* expected .yaml, .yml, .json, .toml"):
        load_config(tmp_path / "plain.txt")


FILES: dict[str, str] = {
    "a.yaml": "# mine\nschedule: {batch_size: [8, 4]}\noptimizer: {g_lr: 1e-4}\nrun:\n  seed: 3\n",
    "a.yml": "{schedule: {batch_size: [8, 4]}, optimizer: {g_lr: 0.0001}, run: {seed: 3}}",
    "a.json": '{"$schema": "progan.json", "schedule": {"batch_size": [8, 4]}, '
    '"optimizer": {"g_lr": 1e-4}, "run": {"seed": 3}}',
    "a.toml": "[schedule]\nbatch_size = [8, 4]\n[optimizer]\ng_lr = 1e-4\n[run]\nseed = 3\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files_of_all_kinds(name: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name], encoding=encoding)
    expected = {"schedule": {"batch_size": [8, 4]}, "optimizer": {"g_lr": 1e-4}, "run": {"seed": 3}}
    assert read_document(tmp_path / name) == expected
    assert load_config(tmp_path / name) == make_config(expected)
    (tmp_path / name).write_text("", encoding=encoding)
    assert read_document(tmp_path / name) == {}


def test_precedence(tmp_path: Path) -> None:
    """Command line over file over recipe over defaults."""
    file = tmp_path / "mine.toml"
    file.write_text("[schedule]\nfade_kimg = 7\n[optimizer]\ng_lr = 0.01\n")
    config = load_config("quickstart", {"schedule": {"fade_kimg": 9}}, file=file)
    assert config.schedule.fade_kimg == (9.0,)  # option
    assert config.optimizer.g_lr == (0.01,)  # file
    assert config.optimizer.d_lr == (0.003,)  # recipe
    assert config.optimizer.beta2 == 0.99  # default
    alone = load_config(file=file)
    assert alone == make_config(read_recipe(DEFAULT_RECIPE), read_document(file))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.yaml", "[" * 5000, "nested too deeply"),
        ("r.yaml", "a: &x [1]\nb: *x\n", r"r.yaml, line 2: aliases \(\*name\) are not supported"),
        ("r.yaml", "- 1\n", "expected a mapping of options, found list"),
        ("r.yaml", "5", "found int"),
        ("r.yaml", "a: 1\nb: {", "r.yaml, line 2: not valid YAML"),
        ("r.yaml", "a: b: c", "line 1: not valid YAML"),
        ("r.yaml", "a: 1\nb: 2\na: 3\n", "r.yaml, line 3: 'a' stands twice"),
        ("r.yaml", "run:\n  {seed: 1, seed: 2}\n", "line 2: 'seed' stands twice"),
        ("r.yaml", "1: 2\n", "line 1: 1 cannot be the name of an option"),
        ("r.yaml", "? [a]\n: 2\n", "cannot be the name"),
        ("r.yaml", "a: \x07", "not valid YAML"),
        ("r.yaml", "!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("r.yaml", "a: " + "9" * 5000, "not valid YAML"),
        ("r.yaml", "a: !!int ''", r"a tag \(!!name\) that does not fit its value"),
        ("r.yaml", "a: !!set null", "not valid YAML"),
        ("r.yaml", "a: !!map [1, 2]", "not valid YAML"),
        ("r.yml", "a: [", "not valid YAML"),
        ("r.json", '{"a": 1,\n "b": {"c": 2},\n "a": 3}', "r.json, line 1 or 3: 'a' stands twice"),
        ("r.json", '{"a": 1,\n}', "r.json, line [12]: not valid JSON"),
        ("r.json", '{"run":\n {"seed": NaN}}', "r.json, line 2: NaN is no number of JSON"),
        ("r.json", '{"NaN":\n -Infinity}', "line 2: -Infinity is no number"),
        ("r.json", "[" * 50_000, "nested too deeply"),
        ("r.json", "[" * 100_000, "longer than 65,536 characters"),
        ("r.yaml", "a: " + "[" * 5_000, "nested too deeply"),
        ("r.yaml", "a: 1\n" * 20_000, "longer than 65,536 characters"),
        ("r.json", "[1]", "found list"),
        ("r.json", '{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("r.toml", "a = 1\nb = \n", "r.toml, line 2: not valid TOML"),
        ("r.toml", "a = 1\na = 2\n", "line 2: not valid TOML"),
        ("r.toml", "a = '", "line 1: not valid TOML"),
        ("r.toml", "b = 1\na" + ".a" * 30_000 + " = 1", "r.toml, line 2: more than 500 dots"),
        ("r.toml", "a = " + "[" * 50_000, "nested too deeply"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_document(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    for name in ("r.yaml", "r.json", "r.toml"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(file=tmp_path / name)


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
