"""The help of commands with many options, short names, and what is said of options that do not exist."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from progan.__main__ import main
from progan.cli.terminal.help_pages import NEEDED
from progan.cli.terminal.option_names import MEANT
from progan.config import Options, load_config, make_config
from progan.config.recipes import recipe_names
from tiny import command, environment


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, words)))
    return int(caught.value.code or 0), *capsys.readouterr()


def shown(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, dict[str, object]]:
    """Return the configuration that the words make."""
    code, out, err = call(capsys, "config", "show", "--json", *words)
    assert code == 0, err
    tree: dict[str, dict[str, object]] = json.loads(out)
    return tree


@pytest.mark.parametrize(
    ("words", "branch", "option", "value"),
    [
        ("--data.mirror true", "data", "mirror", True),
        ("--mirror False --seed 3", "data", "mirror", False),
        ("--run.cuda-graphs false", "run", "cuda_graphs", False),
        ("--run.cuda_graphs no", "run", "cuda_graphs", False),
        ("--data.no-mirror true", "data", "mirror", False),
        ("--data.mirror=yes", "data", "mirror", True),
        ("--data.labels true", "data", "labels", "true"),  # no flag: a value of its own
    ],
)
def test_a_flag_takes_its_value_as_files_of_options_write_it(
    capsys: pytest.CaptureFixture[str], words: str, branch: str, option: str, value: object
) -> None:
    assert shown(capsys, *words.split())[branch][option] == value


def test_words_that_are_too_many_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "config", "show", "--data.mirror", "maybe") == (
        2,
        "",
        "error: 'maybe': more than this command takes; options begin with --: progan config show --help\n",
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_help_of_train_is_short(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = call(capsys, *["train", "--help"])[1]
    assert max(map(len, out.splitlines())) <= max(width, 82)  # examples are not broken
    assert len(out.splitlines()) < 75
    assert all(option in out for option in NEEDED["train"])
    assert "--schedule." not in out
    assert "[default: 16]" in out.replace("\n", " ")
    assert "progan train photos/ --time 2h" in out


def test_all_of_the_help_or_a_part(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    everything = call(capsys, *["train", "--help", "all"])[1]
    for option in ("--resume", "--schedule.batch-size", "--model.discriminator.stddev-group"):
        assert option in everything
    for branch in Options.model_fields:
        found = [
            word
            for word in call(capsys, "train", "--help", branch)[1].split()
            if word.startswith("--") and "." in word
        ]
        assert found, branch
        assert {word[2:].partition(".")[0] for word in found} == {branch}
    assert "--loss.penalty-interval" in call(capsys, "train", "--help", "penalty_interval")[1]
    code, out, err = call(capsys, "train", "--help", "modle")
    assert (code, out) == (2, "")
    assert "no option is called so" in err
    for words in (["bench", "--help"], ["config", "show", "-h"]):
        assert "--schedule." not in call(capsys, *words)[1]


def test_short_names(capsys: pytest.CaptureFixture[str]) -> None:
    given = "--kimg 3 --batch 32 16 --lr 0.1 --mirror --labels folders --resolution 64 --seed 4"
    tree = shown(capsys, *given.split(), "--precision", "float32")
    assert make_config(tree) == load_config(
        "paper-light-128",
        {
            "schedule": {"total_kimg": 3, "batch_size": [32, 16]},
            "optimizer": {"g_lr": 0.1, "d_lr": 0.1},
            "data": {"mirror": True, "labels": "folders", "resolution": 64},
            "run": {"seed": 4, "precision": "float32"},
        },
    )
    assert shown(capsys, "--lr", 0.1, "--optimizer.d-lr", 0.2)["optimizer"]["d_lr"] == [0.2]
    assert shown(capsys, "--recipe", "small-data-256", "--no-mirror")["data"]["mirror"] is False
    code, _, err = call(capsys, "config", "show", "--lr", 1, "--optimizer.g-lr", 1, "--optimizer.d-lr", 1)
    assert (code, "leave it out" in err) == (2, True)
    assert "gpus" in call(capsys, "train", "x", "--gpus", "two")[2]


def test_commas_stand_between_values(capsys: pytest.CaptureFixture[str]) -> None:
    for metrics in (["swd,ms_ssim"], ["swd", "ms_ssim"], ["swd,", "ms_ssim"]):
        tree = shown(capsys, "--monitor.metrics", *metrics, "--batch", "32,16", "--data.crop", "8,8,16")
        assert tree["monitor"]["metrics"] == ["swd", "ms_ssim"]
        assert tree["schedule"]["batch_size"] == [32, 16]
        assert tree["data"]["crop"] == "8,8,16"


def test_what_is_meant_by_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for given, meant in (
        ("--batch-size", "--batch?"),
        ("--batch_size=8", "--batch?"),
        ("--num-gpus", "--gpus?"),
        ("--learning-rate", "--lr?"),
        ("--outdir", "--out?"),
        ("--gamma", "--loss.r1-gamma?"),
        ("--schedule.batch-sise", "--schedule.batch-size?"),
        ("--d-steps", "--loss.d-steps?"),
        ("--dataset", "progan train DATASET"),
        ("--zzz", "progan train --help all"),
    ):
        code, _, err = call(capsys, "train", "x", given, 3)
        assert code == 2
        assert meant in err
    assert "did you mean --n?" in call(capsys, "generate", "x", "--num-samples", 3)[2]
    assert "such as --loss.adversarial" in call(capsys, "train", "x", "--loss", "wgan")[2]
    assert "progan train PICTURES" in call(capsys, "train", "--data", "x")[2]


def test_every_option_that_is_suggested_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = ["train --help all", "generate --help", "evaluate --help", "prepare --help", "project --help"]
    monkeypatch.setenv("COLUMNS", "300")
    known = {word for page in pages for word in call(capsys, *page.split())[1].split()}
    assert {option for options in MEANT.values() for option in options} <= known


def test_recipes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert [each["name"] for each in json.loads(call(capsys, "recipes", "--json")[1])] == recipe_names()
    assert json.loads(call(capsys, "recipes", "quickstart", "--json")[1]) == load_config(
        "quickstart"
    ).model_dump(mode="json")


def test_validate_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run: {seed: 3}\n")
    told = json.loads(call(capsys, "config", "validate", file, "--json")[1])
    assert (told["valid"], told["options"]) == (True, 1)


def test_completion_is_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "progan.bash"
    assert call(capsys, "--install-completion", "bash", "--out", script)[0] == 0
    subprocess.run(["bash", "-n", script], check=True)
    assert "--kimg" in script.read_text()
    done = subprocess.run(
        command("--install-completion", "bash"),
        env=environment() | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "progan" in (tmp_path / ".bashrc").read_text()
