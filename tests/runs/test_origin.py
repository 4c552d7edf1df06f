"""A run that begins with trained networks: it takes what fits, and what is frozen stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from progan import Discriminator, Generator, load, resume, save, train
from progan.config import make_config
from progan.errors import CheckpointError, ConfigError
from progan.models.layers import upscale2d
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.runs.trained.origin import begin_with
from progan.runs.trained.transfer import transfer
from progan.training.schedule import Schedule
from progan.training.spec import ImageSpec
from progan.training.state import TrainState, frozen
from tiny import Listener, last_tensors, options, progan, require_equal


@pytest.fixture(scope="module", name="place")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sets of several kinds and a run on one of them."""
    place = tmp_path_factory.mktemp("origin")
    synthetic(place / "set", count=40, resolution=16, labelled=True)
    synthetic(place / "larger", count=40, resolution=32, labelled=True, seed=3)
    synthetic(place / "plain", count=40, resolution=16, seed=4)
    train(place / "set", place / "run", options=options(), reporter=Listener())
    return place


def begun(place: Path, pictures: str, out: Path, **init: Any) -> Listener:
    """Train a run that begins with another one."""
    heard = Listener()
    init = {"source": str(place / "run"), **init}
    train(place / pictures, out, options=options(init=init), reporter=heard)
    return heard


def state_of(run: Path, image: ImageSpec) -> TrainState:
    return TrainState.create(RunFolder(run).config(), image, torch.device("cpu"))


def test_growing_on(place: Path, tmp_path: Path) -> None:
    """The next level comes in, and at alpha 0 its images are the old ones with each pixel repeated."""
    heard = begun(place, "larger", tmp_path / "run")
    config = RunFolder(tmp_path / "run").config()
    assert (config.schedule.start_level, config.schedule.start_alpha, config.init.level) == (3, 0.0, 2)
    assert config.init.new == ()
    assert "  G: 18 of 24 parameters" in heard.said
    assert "    new (the source has none): blocks.2.conv0_up, blocks.2.conv1, to_rgb.3" in heard.said
    phases = Schedule(config, 3, 40).phases
    assert [(phase.kind, phase.level) for phase in phases] == [("fade", 3), ("stabilise", 3)]
    state = state_of(tmp_path / "run", ImageSpec(3, (4, 4), 3, ("1", "2", "3", "4")))
    begin_with(state, config)
    old, z, labels = load(place / "run"), torch.randn(3, 6), torch.eye(4)[:3]
    zero = torch.tensor(0.0)
    torch.testing.assert_close(state.G_ema(z, labels, level=3, alpha=zero), upscale2d(old(z, labels)))
    record, tensors = checkpoint.load(checkpoint.paths(place / "run" / "checkpoints")[-1])
    assert record.images_seen == 240
    for name, value in state.D.named_parameters():
        if f"D/{name}" in tensors:
            assert torch.equal(value, tensors[f"D/{name}"]), name
    lines = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert {line["level"] for line in lines} == {3}
    assert [line["alpha"] for line in lines] == sorted(line["alpha"] for line in lines)


def test_it_begins_in_the_phase_of_the_source(place: Path, tmp_path: Path) -> None:
    """From a checkpoint amid a fade the fade goes on; a finished run's level is stabilised."""
    whole = checkpoint.paths(place / "run" / "checkpoints")
    fading = next(path for path in whole if checkpoint.load(path)[0].alpha < 1)
    alpha = checkpoint.load(fading)[0].alpha
    begun(place, "set", tmp_path / "amid", source=str(fading))
    config = RunFolder(tmp_path / "amid").config()
    assert (config.schedule.start_level, config.schedule.start_alpha) == (2, alpha)
    schedule = Schedule(config, 2, 40)
    assert schedule.at(0).alpha == alpha
    assert schedule.phases[0].end == round(48 * (1 - alpha))
    begun(place, "set", tmp_path / "done")
    config = RunFolder(tmp_path / "done").config()
    assert [(p.kind, p.level) for p in Schedule(config, 2, 40).phases] == [("stabilise", 2)]
    # Another level may be asked for.
    heard = Listener()
    tree = options(init={"source": str(place / "run")}, schedule={"start_level": 1})
    train(place / "set", tmp_path / "asked", options=tree, reporter=heard)
    assert RunFolder(tmp_path / "asked").config().schedule.start_level == 1


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("form", ["linear", "smooth"])
def test_a_fade_goes_on_at_its_alpha(alpha: float, form: str) -> None:
    tree = options(
        init={"source": "x"},
        schedule={"start_level": 1, "start_alpha": alpha, "alpha": form, "fade_kimg": [1]},
    )
    plan = Schedule(make_config(tree), 2, 1000)
    assert plan.at(0).alpha == pytest.approx(alpha, abs=1e-12)
    end = plan.phases[0].end
    assert plan.at(end - 1).alpha > 0.99 * plan.at(end).alpha
    alphas = [plan.at(clock).alpha for clock in range(0, end, 8)]
    assert alphas == sorted(alphas)


def test_other_labels() -> None:
    """Labels of the same name keep what they do, in another order and among others."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"max_level": 1, "fmap_base": 32, "fmap_max": 8}
    of_g = {**small, "latent_size": 5, "normalize_latents": False}
    old = Generator(**of_g, label_size=3, label_names=("a", "b", "c"))
    assert old.conv.bias is not None
    torch.nn.init.normal_(old.conv.bias)
    new = Generator(**of_g, label_size=4, label_names=("c", "d", "a", "e"))
    done = {each.name: each for each in transfer(new, old.config(), old.state_dict())}
    assert done["dense.weight"].why == "2 of 4 labels are new"
    assert not any(each.why for name, each in done.items() if name != "dense.weight")
    z = torch.randn(2, 5)
    for there, here in (("a", 2), ("c", 0)):
        label = torch.eye(3)[["abc".index(there)] * 2]
        torch.testing.assert_close(new(z, torch.eye(4)[[here] * 2]), old(z, label))  # scales are made up for
    D = Discriminator(**small, label_size=3, label_names=("a", "b", "c"))
    less = Discriminator(**small)
    taken = {each.name: each.why for each in transfer(less, D.config(), D.state_dict())}
    assert set(taken.values()) == {""}
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(less(images)[0], D(images)[0])


def test_other_channels_and_shapes() -> None:
    old = Generator(max_level=1, fmap_base=32, fmap_max=8, channels=3)
    gray = Generator(max_level=1, fmap_base=32, fmap_max=8, channels=1)
    new = {each.name: each.why for each in transfer(gray, old.config(), old.state_dict()) if each.why}
    assert new["to_rgb.0.weight"] == "3 x 8 x 1 x 1 there, 1 x 8 x 1 x 1 here"
    assert set(new) == {f"to_rgb.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")}
    wide = Generator(max_level=1, fmap_base=32, fmap_max=8, base_shape=(4, 6))
    new = {each.name: each.why for each in transfer(wide, old.config(), old.state_dict()) if each.why}
    assert set(new) == {"dense.weight"}
    assert torch.equal(wide.conv.weight, old.conv.weight)


def test_what_is_frozen_stays_and_a_resumed_run_has_the_same_bits(place: Path, tmp_path: Path) -> None:
    init = {"freeze_d": 1, "freeze_g": True}
    begun(place, "larger", tmp_path / "whole", **init)
    record, tensors = last_tensors(tmp_path / "whole")
    _, old = last_tensors(place / "run")
    config = RunFolder(tmp_path / "whole").config()
    state = state_of(tmp_path / "whole", ImageSpec(3, (4, 4), 3, ("1", "2", "3", "4")))
    of_d = frozen(config, state.D)
    assert {name.rpartition(".")[0] for name in of_d} == {
        "from_rgb.2",
        "blocks.1.conv0",
        "blocks.1.conv1_down",
    }
    of_g = frozen(config, state.G)
    for part, names in (("G", of_g), ("D", of_d)):
        moved = {name for name in names if not torch.equal(tensors[f"{part}/{name}"], old[f"{part}/{name}"])}
        assert moved == set()
    free = [name for name, _ in state.G.named_parameters() if name not in of_g]
    assert {name.rpartition(".")[0] for name in free} == {"blocks.2.conv0_up", "blocks.2.conv1", "to_rgb.3"}
    assert not torch.equal(tensors["D/conv.weight"], old["D/conv.weight"])
    # In two parts, the source gone meanwhile.
    source = shutil.copytree(place / "run", tmp_path / "source")
    tree = options(init={"source": str(source), **init}, run={"stop_after": "phase"})
    train(place / "larger", tmp_path / "parts", options=tree, reporter=Listener())
    shutil.rmtree(source)
    train(place / "larger", tmp_path / "parts", options=tree, reporter=Listener())
    again, parts = last_tensors(tmp_path / "parts")
    assert again.images_seen == record.images_seen
    require_equal(parts, tensors)


def test_a_lone_generator_and_its_architecture(place: Path, tmp_path: Path) -> None:
    """Its filters are taken over; D is new; options of one's own still win."""
    save(load(place / "run"), tmp_path / "g.safetensors")
    tree = options(init={"source": str(tmp_path / "g.safetensors")})
    del tree["model"]
    tree["model"] = {"discriminator": {"fmap_base": 16, "fmap_max": 4}}
    heard = Listener()
    train(place / "set", tmp_path / "run", options=tree, reporter=heard)
    config = RunFolder(tmp_path / "run").config()
    assert (config.model.generator.fmap_base, config.model.generator.fmap_max) == (64, 8)
    assert config.model.discriminator.fmap_base == 16
    assert "  G: 18 of 18 parameters" in heard.said
    assert "  D: 0 of 20 parameters" in heard.said


def test_what_cannot_be(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leaves nothing of G to train"):
        begun(place, "set", tmp_path / "a", freeze_g=True)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        begun(place, "set", tmp_path / "b", source=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"init.freeze_d 2 does nothing without --init FROM"):
        train(place / "set", tmp_path / "c", options=options(init={"freeze_d": 2}))
    # Begun, not saved yet, and the source has changed: it cannot be begun again as it was.
    shutil.copytree(place / "run", tmp_path / "source")
    tree = options(init={"source": str(tmp_path / "source")})
    train(place / "set", tmp_path / "d", options=tree, reporter=Listener())
    shutil.rmtree(tmp_path / "d" / "checkpoints")
    (tmp_path / "d" / "generator.safetensors").unlink()
    checkpoint.paths(tmp_path / "source" / "checkpoints")[-1].unlink()
    with pytest.raises(CheckpointError, match="is not what this run was begun with"):
        train(place / "set", tmp_path / "d", options=tree, reporter=Listener())
    with pytest.raises(ConfigError, match=r"init.freeze_d: 0 there, 1 here"):
        resume(tmp_path / "d", options={"init": {"freeze_d": 1}})


def test_the_command(place: Path, tmp_path: Path) -> None:
    """A moved source is known by its contents, and info tells what a run was begun with."""
    shutil.copytree(place / "run", tmp_path / "source")
    words = ["train", place / "larger", "--out", "run", "--recipe", "quickstart", "--device", "cpu",
             "--schedule.stabilise-kimg", 0.05, "--schedule.fade-kimg", 0.05, "--schedule.batch-size", 8,
             "--run.log-kimg", 0.05, "--run.grid", 2, 3,
             "--init.skip", "labels", "--freeze-d", 1]  # fmt: skip
    first = progan(*words, "--init", "source", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "partly new (4 of 4 labels are new): dense" in first.stdout
    (tmp_path / "source").rename(tmp_path / "moved")
    again = progan(*words, "--init", "moved", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "is complete at" in again.stdout
    told = progan("info", "run", cwd=tmp_path)
    assert "begun with" in told.stdout
    assert "sha256 " in told.stdout
