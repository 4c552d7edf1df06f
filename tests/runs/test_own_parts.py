"""A loss and penalties of one's own, from a file or from Python, keep the laws that the shipped ones keep."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import progan
from own_parts import PLUGIN, plugin
from progan.__main__ import main
from progan.config import make_config, merge, read_plugins
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.runs.logs import read_stats
from progan.runs.run import resume, train
from progan.runs.run_folder import RunFolder
from progan.training.compiled_gradients import CompiledGradients, relative_error, summed
from progan.training.iteration import Iteration
from progan.training.losses import Objective
from progan.training.spec import ImageSpec, make_spec
from progan.training.step import EagerGradients
from small_updates import CPU, SMOOTH, weights
from tiny import Listener, last_tensors, options, require_equal, words
from tiny import progan as progan_command

CHOSEN: dict[str, Any] = {
    "loss": {"adversarial": "tempered", "penalties": ["smooth"], "tempered": {"temperature": 3.0}}
}


class Squared(progan.AdversarialLoss):
    """Squares of scores."""

    class Options(progan.PartOptions):
        """Its options."""

        target: float = progan.option(1.0, "Score of reals.")

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        target: float = self.options.target
        return (real - target).square() + fake.square()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is None, "it is not paired"
        target: float = self.options.target
        return (fake - target).square()


class SquaredScores(progan.Penalty):
    """Squared scores of reals and fakes."""

    def discriminator(self, seen: progan.Seen) -> Tensor:
        assert seen.real is not None
        assert seen.fake is not None
        return seen.real.scores.square() + seen.fake.scores.square()


def command(*more: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["train", *map(str, more)])
    return 0 if end.value.code is None else int(end.value.code)


def test_on_the_command_line(blobs: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = plugin(tmp_path), tmp_path / "run"
    told = words(merge(options(run={"stop_after": "level"}), CHOSEN))
    assert command(blobs.path, "--out", out, "--plugin", file, *told) == 0
    config = RunFolder(out).config()
    assert str(config.loss.adversarial) == "tempered"
    assert config.loss.r1_gamma == 5, "what it says goes with it"
    assert (out / "config.yaml").read_text().count("temperature: 3.0") == 1
    first = read_stats(out / "stats.jsonl")[0]
    assert {"D/smooth", "G/smooth", "D/r1", "D/real_positive"} <= first.keys()
    record = json.loads((out / "parts.json").read_text())["parts"]
    assert {(each["place"], each["name"]) for each in record} == {
        ("loss.adversarial", "tempered"),
        ("loss.penalties", "smooth"),
    }
    assert {each["defined_in"] for each in record} == {str(file)}
    assert all(re.fullmatch("[0-9a-f]{64}", each["sha256"]) for each in record)

    capsys.readouterr()
    assert command("--resume", out) == 2
    assert f"progan train --resume {out} --plugin {file}" in capsys.readouterr().err
    assert command("--resume", out, "--plugin", file) == 0
    assert "has changed" not in capsys.readouterr().out
    file.write_text(PLUGIN + "# a word more\n")
    assert command("--resume", out, "--plugin", file) == 0
    assert f"{file} has changed since the run used it last" in capsys.readouterr().out
    assert last_tensors(out)[0].images_seen == 240
    with pytest.raises(SystemExit) as end:
        main(["info", str(out)])
    assert not end.value.code, "a run can be looked at without its parts"


def test_the_same_command_names_the_file(
    blobs: PackedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = words(merge(options(), CHOSEN))
    assert command(blobs.path, "--out", tmp_path / "run", *told) == 2
    assert "--plugin FILE" in capsys.readouterr().err


def test_a_file_of_options_runs_no_code(blobs: PackedSet, tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("loss: {adversarial: tempered}\nplugins: [mine.py]\n")
    plugin(tmp_path, "raise SystemExit('ran')")
    with pytest.raises(ConfigError, match="unknown option 'plugins'"):
        train(blobs.path, tmp_path / "run", file=file, options=options(), reporter=Listener())


def test_in_python(blobs: PackedSet, tmp_path: Path) -> None:
    own: Any = {"loss": Squared(target=2.0), "penalties": [SquaredScores(weight=0.5)]}
    stopped: Any = options(run={"stop_after": "level"})
    run = train(blobs.path, tmp_path / "a", options=stopped, reporter=Listener(), **own)
    config = RunFolder(run).config()
    assert (config.loss.adversarial, config.loss.penalties) == ("squared", ("squared_scores",))
    assert config.model_dump()["loss"]["squared"] == {"target": 2.0}
    assert config.model_dump()["loss"]["squared_scores"] == {"weight": 0.5}
    with pytest.raises(ConfigError, match=r"uses .*squared.*test_own_parts\.py"):
        resume(run, reporter=Listener())
    resume(
        run,
        options={"run": {"stop_after": "end"}},
        reporter=Listener(),
        loss=Squared,
        penalties=[SquaredScores],
    )
    assert RunFolder(run).config().model_dump()["loss"]["squared"] == {"target": 2.0}, "options stay"
    whole = train(blobs.path, tmp_path / "b", options=options(), reporter=Listener(), **own)
    require_equal(last_tensors(run)[1], last_tensors(whole)[1])


def test_a_shipped_loss_is_a_part_like_any_other(blobs: PackedSet, tmp_path: Path) -> None:
    from progan.training.terms.shipped import Hinge

    told: Any = options(schedule={"total_kimg": 0.016})
    run = train(blobs.path, tmp_path / "run", options=told, reporter=Listener(), loss=Hinge)
    assert RunFolder(run).config().loss.adversarial == "hinge"
    assert not (run / "parts.json").exists()


def iterated(blobs: PackedSet, file: Path, **run: Any) -> Iteration:
    config = make_config(options(run=run, optimizer=SMOOTH), CHOSEN, parts=read_plugins([file]))
    image = ImageSpec(blobs.channels, blobs.base_shape, blobs.max_level, blobs.label_names)
    spec = make_spec(config, image, blobs.count)
    updates = Iteration(spec, blobs, CPU, lambda _: None)
    for _ in range(5):
        updates(spec.schedule.at(updates.state.images_seen))
    return updates


def test_micro_batches_change_nothing(blobs: PackedSet, tmp_path: Path) -> None:
    whole, parts = (iterated(blobs, plugin(tmp_path), **run) for run in ({}, {"micro_batch": 4}))
    expected = weights(whole)
    for name, value in weights(parts).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


class Broken(progan.AdversarialLoss):
    """Whose D's loss a test replaces."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is None
        return -fake


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda real, fake: (fake - real).mean(), "one number a sample"),
        (lambda real, fake: (fake - real)[:, None], "one number a sample"),
        (lambda *_: None, "one number a sample"),
        (lambda real, fake: (fake - real).log(), "not finite"),
        (lambda real, fake: (fake - real).detach(), "no gradient"),
        (lambda real, fake: fake - real.mean(), "by several processes"),
        (lambda real, fake: (fake - real) * torch.rand(()), "the second time"),
        (lambda real, fake: (real - fake).nothing, "AttributeError: 'Tensor' object has no"),
    ],
)
def test_what_a_part_lacks_is_said_before_the_first_step(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, said: str
) -> None:
    monkeypatch.setattr(Broken, "discriminator", lambda _self, real, fake: value(real, fake))
    with pytest.raises(ConfigError, match=said) as caught:
        train(blobs.path, tmp_path / "run", options=options(), reporter=Listener(), loss=Broken)
    assert str(caught.value).startswith("loss.adversarial broken (Broken), discriminator: ")
    assert not (tmp_path / "run" / "stats.jsonl").exists()


class OfG(progan.Penalty):
    """A penalty of the generator alone."""

    def generator(self, seen: progan.Seen) -> Tensor:
        return seen.images.flatten(1).square().mean(1)


class Nothing(progan.Penalty):
    """Without a term."""


def test_a_penalty_has_a_term_of_one_of_the_networks(blobs: PackedSet, tmp_path: Path) -> None:
    told = options(schedule={"total_kimg": 0.064})
    for penalty in (OfG(weight=0.5), OfG(weight=0.0)):
        name = f"run-{penalty.weight}"
        train(blobs.path, tmp_path / name, options=told, reporter=Listener(), penalties=[penalty])
    weighted, free = (progan.load(tmp_path / name).state_dict() for name in ("run-0.5", "run-0.0"))
    assert any(not torch.equal(value, free[name]) for name, value in weighted.items())
    with pytest.raises(ConfigError, match="neither discriminator nor generator returns a term"):
        train(blobs.path, tmp_path / "no", options=told, reporter=Listener(), penalties=[Nothing])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import progan\nclass A(progan.AdversarialLoss):\n    pass\n", "lacks discriminator, generator"),
        ("x = 1\n", "defines no part"),
        ("x = 1\nx.y\n", "line 2: AttributeError"),
        ("def", "line 1: SyntaxError"),
        (PLUGIN.replace("class Smooth", "class R1"), "'r1' is a term of progan"),
        (PLUGIN.replace("class Tempered", "class Hinge"), "'hinge' ships with progan"),
        (
            PLUGIN.replace("class Smooth(progan.Penalty)", "class Smooth(progan.Lost)"),
            "line 24: AttributeError",
        ),
    ],
)
def test_files_that_define_no_part(tmp_path: Path, text: str, said: str) -> None:
    def read() -> None:
        Objective.of(make_config({}, parts=read_plugins([plugin(tmp_path, text)])))

    with pytest.raises(ConfigError, match=said):
        read()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_plugins([tmp_path / "none.py"])


def test_help_and_the_schema_know_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plugin(tmp_path)
    for arguments in (["train", "--help"], ["config", "schema"]):
        with pytest.raises(SystemExit):
            main([*arguments, "--plugin", str(file)])
        said = capsys.readouterr().out
        assert "temperature" in said
        assert "What scores are divided by." in re.sub(r"[│\s]+", " ", said)
    with pytest.raises(SystemExit):
        main(["config", "show", "--plugin", str(file), "--loss.tempered.temperature", "-1"])
    assert "loss.tempered.temperature: " in capsys.readouterr().err


def test_a_loss_is_compiled(blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **told: compiled(f, **told, backend="eager"))
    updates = iterated(blobs, plugin(tmp_path))
    config, state = updates.spec.config, updates.state
    at, networks = updates.conditions(updates.spec.schedule.at(state.images_seen)), (state.G, state.D)
    batch = updates.batches.discriminator(state.images_seen, 8, at.level, None)
    ways = CompiledGradients(networks, "D", config), EagerGradients(networks, "D", config)
    ours, expected = (summed(way(batch, at, 8)) for way in ways)
    assert relative_error(ours[0], expected[0]) < 1e-5
    assert ours[1].keys() == expected[1].keys() >= {"D/smooth", "D/adversarial", "D/loss"}


def test_names_come_from_classes() -> None:
    assert SquaredScores.name == "squared_scores"


class Invert(progan.Augmentation):
    """Turns black and white round."""

    draws = 1

    def __call__(self, images: Tensor, applied: Tensor, draws: Tensor) -> Tensor:
        amount = draws.to(images.dtype).view(-1, 1, 1, 1)
        return torch.where(applied.view(-1, 1, 1, 1), images * (1 - 2 * amount), images)


class Spread(progan.SetMetric):
    """Deviations of the pixels."""

    class Options(progan.PartOptions):
        """Its options."""

        factor: float = progan.option(2.0, "A factor.")

    def measure(self, reals: Any, fakes: Any) -> dict[str, float]:
        assert reals.shape == fakes.shape == (8, 3, *reals.shape[2:])
        factor: float = self.options.factor
        return {"reals": factor * float(reals.std()), "fakes": factor * float(fakes.std())}


class Faulty(progan.SetMetric):
    """Fails."""

    def measure(self, reals: Any, fakes: Any) -> float:
        return float(reals.nothing - fakes)


def test_an_augmentation_and_metrics(blobs: PackedSet, tmp_path: Path) -> None:
    reporter = Listener()
    told: Any = options(
        augment={"policy": ["color", "invert"], "probability": 0.5},
        monitor={"metrics": ["spread", "faulty"], "interval_kimg": 0.03, "num_images": 8},
        schedule={"total_kimg": 0.064},
        run={"best": "spread/fakes", "stop_after": "phase"},
    )
    own: Any = {"augmentations": [Invert], "metrics": [Spread(factor=3.0), Faulty]}
    run = train(blobs.path, tmp_path / "run", options=told, reporter=reporter, **own)
    resume(run, options={"run": {"stop_after": "end"}}, reporter=reporter, **own)
    config = RunFolder(run).config().model_dump()
    assert config["augment"]["policy"] == ("color", "invert")
    assert config["monitor"]["spread"] == {"factor": 3.0}
    assert any("faulty: AttributeError" in line for line in reporter.said), "and training went on"
    own["metrics"] = [Spread(factor=3.0)]
    on: Any = merge(told, {"run": {"stop_after": "end"}, "monitor": {"metrics": ["spread"]}})
    whole = train(blobs.path, tmp_path / "whole", options=on, reporter=Listener(), **own)
    require_equal(last_tensors(run)[1], last_tensors(whole)[1])
    assert {"spread/reals", "spread/fakes"} <= read_stats(whole / "stats.jsonl")[-1].keys()
    usual = {"augment": {"policy": ["color"]}, "monitor": {"metrics": []}, "run": {"best": "swd/mean"}}
    plain = train(blobs.path, tmp_path / "plain", options=merge(on, usual), reporter=Listener())
    ours, theirs = (last_tensors(each)[1]["D/dense1.weight"] for each in (whole, plain))
    assert not torch.equal(ours, theirs), "it does something"


@pytest.mark.slow
def test_processes_give_the_same_update(blobs: PackedSet, tmp_path: Path) -> None:
    """Two processes, each of which runs the file, train what one trains, up to rounding."""
    file = plugin(tmp_path)
    told = words(merge(options(optimizer=SMOOTH, schedule={"total_kimg": 0.048}), CHOSEN))
    given = ["train", blobs.path, "--plugin", file, *told]
    for name, more in (("one", []), ("two", ["--devices", 2])):
        done = progan_command(*given, "--out", tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
    ours, expected = (last_tensors(tmp_path / name)[1] for name in ("two", "one"))
    for name, value in expected.items():
        if name.startswith(("G/", "D/")):
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-4, msg=name)
