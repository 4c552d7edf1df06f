"""Networks of other systems make that system's images and scores, at every scale and alpha."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch

from foreign import agrees, golden, images, latents, read, state_dict
from foreign_files import flax_extension, flax_parameters, prefixed, theano_network, write_theano
from progan import Discriminator, Generator, import_weights
from progan.errors import CheckpointError


@pytest.fixture(name="base_config")
def class_of_gan_zoo(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], object]:
    """Make the objects of `models.utils.config.BaseConfig`; reading must do without that module."""
    kind = type("BaseConfig", (), {"__module__": "models.utils.config"})
    for name in ("models", "models.utils", "models.utils.config"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["models.utils.config"].BaseConfig = kind  # type: ignore[attr-defined]

    def make(values: dict[str, Any]) -> object:
        made = kind()
        vars(made).update(values)
        return made

    return make


def of_both(G: Generator, D: Discriminator, case: str, outputs: dict[str, Any]) -> int:
    """Compare images and scores at all the levels and alphas that a golden file has of a case."""
    compared = 0
    for key, theirs in outputs.items():
        name, _, rest = key.partition("/")
        if name != case:
            continue
        what, level, alpha = rest.split("/")
        at: dict[str, Any] = {"level": int(level), "alpha": float(alpha)}
        labels = torch.eye(3, dtype=torch.float64)[torch.arange(8) % 3][:, : G.label_size]
        if what == "images":
            agrees(G(latents(G.latent_size), labels, **at), theirs)
        else:
            scores, logits = D(images(D.channels, *D.resolution(int(level))), **at)
            both = torch.cat([scores[:, None], logits], dim=1)
            whole = len(theirs) == min(both.numel(), 40) and what == "scores" and D.label_size
            agrees(both if whole else logits if what == "logits" else scores, theirs)
        compared += 1
    return compared


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", ["object", "dict", "several GPUs"])
@pytest.mark.parametrize("case", ["scale2", "scale1", "scale0", "dcgan"])
def test_gan_zoo(tmp_path: Path, case: str, form: str, legacy: bool, base_config: Any) -> None:
    cases, outputs = golden("gan_zoo")
    meta, path = cases[case], tmp_path / "zoo.pt"
    G_state, D_state = state_dict(meta["G"], 100), state_dict(meta["D"], 500)
    average = {name: value.flip(0) for name, value in G_state.items()}
    parts = {"netG": average, "netD": D_state, "avgG": G_state}
    if form == "several GPUs":
        parts = {name: prefixed(part, "module.") for name, part in parts.items()}
    config = meta["config"] if form == "dict" else base_config(meta["config"])
    torch.save({"config": config, **parts}, path, _use_new_zipfile_serialization=not legacy)
    for name in ("models", "models.utils", "models.utils.config"):
        del sys.modules[name]
    (G, said), (D, _) = read(path), read(path, "D")
    scale = len(meta["config"]["depthOtherScales"])
    gpus = " of several GPUs" if form == "several GPUs" else ""
    alpha = f"alpha {meta['config']['alpha']:g}"
    assert said == [f"{path} is a pytorch_GAN_zoo checkpoint{gpus}, scale {scale} of {scale + 1}, {alpha}"]
    z = latents(G.latent_size + G.label_size)
    agrees(G(z[:, : G.latent_size], z[:, G.latent_size :]), outputs[f"{case}/images"])
    scores, logits = D(images(3, *D.resolution()))
    agrees(torch.cat([scores[:, None], logits], dim=1), outputs[f"{case}/scores"])
    assert not torch.equal(read(path, "G")[0].state_dict()["dense_bias"], G.state_dict()["dense_bias"])


@pytest.mark.parametrize("case", ["equalized", "plain"])
def test_pro_gan_pytorch_3(tmp_path: Path, case: str) -> None:
    cases, outputs = golden("pro_gan_3")
    meta, path = cases[case], tmp_path / "depth_4_epoch_1.bin"
    G_state, D_state = state_dict(meta["G"], 100), state_dict(meta["D"], 500)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    torch.save(
        {
            "generator": {"conf": meta["conf_G"], "state_dict": {n: v.flip(0) for n, v in G_state.items()}},
            "discriminator": {"conf": meta["conf_D"], "state_dict": D_state},
            "gen_optim": optimizer.state_dict(),
            "shadow_generator": {"conf": meta["conf_G"], "state_dict": G_state},
        },
        path,
    )
    (G, said), (D, _) = read(path), read(path, "D")
    assert said == [f"{path} is a pro_gan_pytorch checkpoint (3.x), 3 levels"]
    assert of_both(G, D, case, outputs) == 10
    torch.save({"discriminator": {"conf": {**meta["conf_D"], "num_classes": 3}, "state_dict": D_state}}, path)
    with pytest.raises(CheckpointError, match="applies a leaky ReLU to the score, which ours cannot"):
        import_weights(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", ["equalized", "plain"])
def test_pro_gan_pytorch_2(tmp_path: Path, case: str, legacy: bool) -> None:
    cases, outputs = golden("pro_gan_2")
    meta, path = cases[case], tmp_path / "GAN_GEN_4.pth"
    zipped = not legacy
    torch.save(state_dict(meta["G"], 100), path, _use_new_zipfile_serialization=zipped)
    G, said = read(path)
    torch.save(prefixed(state_dict(meta["D"], 500), "module."), path, _use_new_zipfile_serialization=zipped)
    D, _ = read(path)
    on = "" if case == "equalized" else "not "
    assert said == [
        f"{path} is a pro_gan_pytorch checkpoint (2.x), 5 levels, without a description",
        f"assumed: its weights say that learning rates are {on}equalized",
    ]
    assert of_both(G, D, case, outputs) == 18
    torch.save({"initial_block.conv_1.deconv.weight": torch.ones(4, 4, 4, 4)}, path)
    with pytest.raises(CheckpointError, match=r"pro_gan_pytorch 1\.x, whose files lack the scales"):
        import_weights(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("case", ["one", "three"])
def test_rosinality(tmp_path: Path, case: str, legacy: bool) -> None:
    cases, outputs = golden("rosinality")
    meta, path = cases[case], tmp_path / "100000_g.model"
    torch.save(state_dict(meta["G"], 100), path, _use_new_zipfile_serialization=not legacy)
    G, said = read(path)
    torch.save(state_dict(meta["D"], 500), path, _use_new_zipfile_serialization=not legacy)
    D, _ = read(path)
    assert said == [f"{path} is the generator of rosinality/progressive-gan-pytorch, 6 levels"]
    assert G.label_size == D.label_size == (3 if case == "three" else 0)
    assert of_both(G, D, case, outputs) == (21 if case == "three" else 14)


@pytest.mark.parametrize("case", ["plain", "fused", "fading"])
def test_genforce(tmp_path: Path, case: str) -> None:
    cases, outputs = golden("genforce")
    meta, path = cases[case], tmp_path / "pggan.pth"
    G_state, D_state = state_dict(meta["G"], 100), state_dict(meta["D"], 500)
    parts = {"generator_smooth": G_state, "discriminator": D_state}
    for state in parts.values():
        state["lod"].fill_(meta["lod"])
    torch.save({"models": parts, "running_metadata": {"iter": 3}} if case == "fused" else parts, path)
    G, said = read(path)
    D, notes = read(path, "D")
    assert said == [f"{path} is a PGGAN checkpoint of genforce, 3 levels"]
    assert notes[1].startswith("assumed: levels are scaled and convolved in two steps")
    lod = meta["lod"]
    assert (G.level, G.alpha) == (2 - int(lod), pytest.approx(1 - lod + int(lod)))
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(8) % 3][:, : G.label_size]
    compared = 0
    for key in outputs:
        name, what, at = key.split("/")
        if name != case:
            continue
        level, alpha = 2 - int(float(at)), 1 - (float(at) - int(float(at)))
        full = images(3, 16, 16)
        if what == "images":
            made = G(latents(7), labels, level=level, alpha=alpha)
            agrees(torch.nn.functional.interpolate(made, size=(16, 16)), outputs[key])
        elif case != "fused":  # D's fused form is not told by its state
            shrunk = torch.nn.functional.avg_pool2d(full, 4 >> level) if level < 2 else full
            agrees(D(shrunk, level=level, alpha=alpha)[0], outputs[key])
        compared += 1
    assert compared >= 6
    torch.save({"generator_smooth": G_state}, path)
    notes = read(path)[1]
    assert notes[-1] == "assumed: it takes no labels; its discriminator is missing"


@pytest.mark.parametrize("case", ["fused", "labels", "plain"])
def test_mmagic(tmp_path: Path, case: str) -> None:
    cases, outputs = golden("mmagic")
    meta, path = cases[case], tmp_path / "pggan.pth"
    G_state, D_state = state_dict(meta["G"], 100), state_dict(meta["D"], 500)
    states = {
        **prefixed({name: value.flip(0) for name, value in G_state.items()}, "generator."),
        **prefixed(G_state, "generator_ema."),
        **prefixed(D_state, "discriminator."),
        "_curr_scale_int": torch.tensor(8),
        "_curr_transition_weight": torch.tensor(0.25),
    }
    torch.save({"meta": {"cfg": "text"}, "state_dict": states}, path)
    (G, said), (D, notes) = read(path), read(path, "D")
    assert said == [f"{path} is a PGGAN checkpoint of MMagic, 3 levels"]
    assert notes[1] == "assumed: levels are convolved and halved at once, as its default is"
    assert (G.level, G.alpha, D.level, D.alpha) == (1, 0.25, 1, 0.25)
    assert of_both(G, D, case, outputs) == 10
    torch.save(G_state, path)
    assert read(path)[1][-1] == "assumed: it takes no labels; its discriminator is missing"


@pytest.mark.parametrize("case", ["plain", "labels", "bare"])
def test_theano(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, outputs = golden("theano")
    meta, compared = cases[case], 0
    for lod in meta["lods"]:
        G_Gs = theano_network(meta["G"], 100, meta["spec_G"], lod, "G_paper")
        D_ = theano_network(meta["D"], 500, meta["spec_D"], lod, "D_paper")
        path = write_theano(tmp_path / "network-final.pkl", (G_Gs, D_, G_Gs), monkeypatch)
        (G, said), (D, _) = read(path), read(path, "D")
        assert said == [f"{path} is a pickle of the original Theano code, with G, D and Gs"]
        assert G.alpha == pytest.approx(1 - lod + int(lod))
        labels = torch.eye(3, dtype=torch.float64)[torch.arange(8) % 3][:, : G.label_size]
        side = meta["spec_G"]["resolution"]
        made = torch.nn.functional.interpolate(G(latents(G.latent_size), labels), size=(side, side))
        agrees(made, outputs[f"{case}/images/{lod}"])
        full = images(D.channels, side, side)
        factor = side // D.resolution()[0]
        shrunk = torch.nn.functional.avg_pool2d(full, factor) if factor > 1 else full
        scores, logits = D(shrunk)
        agrees(torch.cat([scores[:, None], logits], dim=1), outputs[f"{case}/scores/{lod}"])
        compared += 2
    assert compared == 2 * len(meta["lods"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_batchnorm": True}, "has batch normalisation"),
        ({"tanh_at_end": 0.5}, "multiplies its images by 0.5 after tanh"),
        ({"resolution": 24}, "24 pixels"),
        ({"func": "G_mnist_mode_recovery"}, "by the function 'G_mnist_mode_recovery'"),
        ({"fmap_max": [1]}, r"the fmap_max \[1\]"),
        ({"fmap_base": 2}, "array 0 of its network is"),
        ({"use_wscale": False}, "array 1 of its network is"),
    ],
)
def test_theano_networks_that_cannot_be(
    tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = golden("theano")[0]["plain"]
    network = theano_network(meta["G"], 100, meta["spec_G"], 0.0, "G_paper")
    network.state["build_func_spec"] |= change
    with pytest.raises(CheckpointError, match=message):
        import_weights(write_theano(tmp_path / "x.pkl", network, monkeypatch))


def test_flax(tmp_path: Path) -> None:
    cases, outputs = golden("flax")
    meta, path = cases["flax"], tmp_path / "checkpoint_40"
    G_parameters, D_parameters = flax_parameters(meta["G"], 100), flax_parameters(meta["D"], 500)
    state = {
        "step": 3,
        "g_params": flax_parameters(meta["G"], 700),
        "g_ema_params": G_parameters,
        "d_params": D_parameters,
        "g_opt_state": {"0": {"count": flax_extension(np.uint32(3))}},
    }
    path.write_bytes(msgpack.packb(state))
    (G, said), (D, _) = read(path), read(path, "D")
    assert said == [f"{path} is a checkpoint of progan-flax, 3 levels"]
    compared = 0
    for key, theirs in outputs.items():
        _, what, level, alpha = key.split("/")
        if what == "images":
            agrees(G(latents(7), level=int(level), alpha=float(alpha)), theirs)
        else:  # whatever alpha is: its D does not blend
            agrees(D(images(3, *D.resolution(int(level))), level=int(level))[0], theirs)
        compared += 1
    assert compared == 10
    path.write_bytes(msgpack.packb(G_parameters))
    assert torch.equal(read(path)[0].state_dict()["dense_bias"], G.state_dict()["dense_bias"])
    for damaged in (
        msgpack.packb(state)[:-9],
        msgpack.packb({"4x4_to_rgb": 3}),
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="checkpoint_40 is not imported: it"):
            import_weights(path)


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    meta = golden("gan_zoo")[0]["scale1"]
    state, path = state_dict(meta["G"], 100), tmp_path / "x.pt"

    def refused(**changes: Any) -> str:
        torch.save({"config": meta["config"], "netG": state, **changes}, path)
        with pytest.raises(CheckpointError, match=r"x\.pt is not imported") as caught:
            import_weights(path)
        return str(caught.value)

    assert "lacks 'formatLayer.module.weight'" in refused(
        netG={n: state[n] for n in state if "form" not in n}
    )
    assert "has extra.weight" in refused(netG={**state, "extra.weight": torch.ones(1)})
    assert "is 48x7; expected 64x?" in refused(netG={**state, "formatLayer.module.weight": torch.ones(48, 7)})
    assert "alpha 2; expected 0 to 1" in refused(config={**meta["config"], "alpha": 2})
    assert "and no tensor" in refused(netG={**state, "x": 3})
    forms = {
        b"# Title\nmore": "a text that begins with '# Title'",
        b"\x89PNG\r\n": "a PNG picture",
        b"<!DOCTYPE html>": "a web page",
        b"": "empty",
        b"\xfe" * 9: "fe fe fe",
    }
    for content, what in forms.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"it is .*{what}"):
            import_weights(path)
    torch.save({"a": 1, "b\x1b[2J": [torch.ones(2)]}, path)
    with pytest.raises(CheckpointError, match="a dict with the entries a, b") as caught:
        import_weights(path)
    assert "\x1b" not in str(caught.value)
