"""Networks of the systems in TensorFlow 2 make that system's images and scores, at every scale and alpha."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from foreign import agrees, golden, images, latents, read
from foreign_files import described, write_folders, write_keras
from progan import import_weights
from progan.__main__ import main
from progan.errors import CheckpointError, ConfigError
from progan.interop import keras_files

ALPHA = "alpha is 1 at its largest level, since the"


@pytest.mark.parametrize("case", ["strided", "separate", "first", "plain", "final"])
def test_matt_roz(tmp_path: Path, case: str) -> None:
    cases, outputs = golden("matt_roz")
    meta = cases[case]
    G, said = read(write_keras(tmp_path / "g.h5", meta["G"], 100, described(meta)))
    assert said[0].endswith("g.h5 is a generator of matt-roz's progressive growing in TensorFlow 2, 3 levels")
    lacking = "assumed: toRGB of levels 0 is not in the file: zeros"
    assert said[1:-1] == ([] if case == "final" else [lacking])
    assert said[-1].startswith(f"assumed: {ALPHA}")
    D = None
    if meta["D"]:
        D, said = read(write_keras(tmp_path / "d.h5", meta["D"], 500, described(meta)))
        assert "d.h5 is a discriminator of matt-roz's" in said[0]
    compared = 0
    for key, theirs in outputs.items():
        name, what, level, alpha = key.split("/")
        if name != case:
            continue
        at: dict[str, Any] = {"level": int(level), "alpha": float(alpha)}
        if what == "images":
            agrees(G(latents(7), **at), theirs)
        else:
            assert D is not None
            agrees(D(images(3, *D.resolution()), **at)[0], theirs)
        compared += 1
    assert compared == (3 if case == "final" else 6)


def test_matt_roz_weights_alone(tmp_path: Path) -> None:
    cases, outputs = golden("matt_roz")
    G, said = read(write_keras(tmp_path / "g.h5", cases["first"]["G"], 100, None))
    assert said[1].startswith("assumed: a file of weights alone does not say how units are ordered")
    agrees(G(latents(7)), outputs["first/images/2/1.0"])


def test_a_keras_file_that_is_not_read_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As damaged ones, on which the library of HDF5 may go on for ever: here there is no time at all."""
    path = write_keras(tmp_path / "g.h5", golden("matt_roz")[0]["first"]["G"], 100, None)
    monkeypatch.setattr(keras_files, "PATIENCE", 0.0)
    with pytest.raises(CheckpointError, match=r"it is a damaged HDF5 file \(not read in 0 seconds\)"):
        import_weights(path)


def test_damaged_and_hostile_keras_files(tmp_path: Path) -> None:
    meta, path = golden("matt_roz")[0]["strided"], tmp_path / "g.h5"

    def refused(config: dict[str, Any] | None = None, entries: list[Any] | None = None) -> str:
        write_keras(path, entries or meta["G"], 100, config or described(meta))
        return refusal()

    def refusal() -> str:
        with pytest.raises(CheckpointError) as caught:
            import_weights(path)
        return str(caught.value)

    config = described(meta)
    config["config"]["layers"].append({"class_name": "BatchNormalization\x1b[2J", "config": {}})
    assert "a layer of the class 'BatchNormalization" in refused(config)
    config = described(meta)
    config["config"]["layers"][1]["config"]["alpha"] = "x" * 10_000
    assert "have the number 'xxx" in refused(config)
    assert "has no layers" in refused({"class_name": "Functional"})
    assert "lacks the toRGB of its largest level" in refused(
        entries=[one for one in meta["G"] if not one[0].startswith("block_4/toRGB")]
    )
    assert "has block_2/more/kernel" in refused(entries=[*meta["G"], ["block_2/more/kernel", [2, 2], 1.0]])
    assert "it holds weights of Keras (dense/layer/kernel)" in refused(
        entries=[["dense/layer/kernel", [2, 2], 1.0]]
    )
    write_keras(path, meta["G"], 100, described(meta))
    whole = path.read_bytes()
    for end in (8, 100, 3000):
        path.write_bytes(whole[:end])
        assert "it is a damaged HDF5 file" in refusal()
    name = "block_2/dense_projector/Scaled/kernel:0"
    with h5py.File(path, "w") as file:  # 4 TB, of which not a byte is in the file
        file.create_dataset(name, (2**20, 2**20), "f4", chunks=(1024, 1024))
    assert "more numbers than the file has bytes for" in refusal()
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        file.create_dataset(name, (4, 4), "f4", external=[(str(tmp_path / "secret"), 0, 64)])
    assert "lies in another file" in refusal()
    with h5py.File(path, "w") as file:
        file["block_2"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        file["loop"] = file["/"]
    assert "it holds weights of Keras (none as Keras 2 has them)" in refusal()


@pytest.mark.parametrize("place", ["4,stabilization", "4,fade-in", "3,fade-in", "2,stabilization"])
@pytest.mark.parametrize("case", ["default", "separate", "selu", "lecun"])
def test_varabei(tmp_path: Path, case: str, place: str) -> None:
    cases, outputs = golden("varabei")
    meta, (res, stage) = cases[f"{case},{place}"], place.split(",")
    folder = write_folders(tmp_path, meta, f"res{res}/{stage}/step8")
    like = None if case == "default" else tmp_path / "config.json"
    (G, said), (D, notes) = read(folder, "Gs", like), read(folder / "D_model", None, like)
    levels = int(res) - 1
    assert said[0] == f"{folder} is a folder of varabei's progressively growing GAN, {levels} levels, {stage}"
    assert any("as the defaults of its code are" in note for note in said) is (case == "default")
    assert any(ALPHA in note for note in notes) is (levels > 1)
    compared = 0
    for key, theirs in outputs.items():
        name, what, level, alpha = key.split("/")
        if name != f"{case},{place}":
            continue
        at: dict[str, Any] = {"level": int(level), "alpha": float(alpha)}
        if what == "images":
            agrees(G(latents(7), **at), theirs)
        else:
            agrees(D(images(3, *D.resolution()), **at)[0], theirs)
        compared += 1
    assert compared == (6 if stage == "fade-in" else 2)


def test_what_is_wrong_with_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = golden("varabei")[0]["default,3,fade-in"]
    folder = write_folders(tmp_path, meta, "step8") / "G_model_smoothed"

    def refused(like: Path | None = None) -> str:
        with pytest.raises((CheckpointError, ConfigError)) as caught:
            import_weights(folder, like=like)
        return str(caught.value)

    block = folder / "4x4_0.npy"
    whole = block.read_bytes()
    block.write_bytes(whole[:-4])
    assert "its '4x4_0.npy' is no array" in refused()
    block.write_bytes(whole.replace(b"(7, 96)", b"(7, 2**40)"[:7]))
    assert "its '4x4_0.npy' is no array" in refused()
    np.save(block, np.array([{}], dtype=object), allow_pickle=True)
    assert "its '4x4_0.npy' is no array" in refused()
    block.write_bytes(whole)
    np.save(folder / "8x8_9.npy", np.ones((2, 2), np.float32))
    assert "has 8x8/2/kernel, which that system has not" in refused()
    (folder / "8x8_9.npy").rename(folder / "other.npy")
    assert "holds 'other.npy', which that system does not write" in refused()
    (folder / "other.npy").unlink()
    (tmp_path / "x.json").write_text("{}")
    assert "it has no target_resolution" in refused(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({**meta["options"], "G_activation": "mish"}))
    assert "the activation 'mish'" in refused(tmp_path / "x.json")
    with pytest.raises(SystemExit, match="2"):
        main(["import", str(tmp_path)])
    assert "it is a folder, and holds no network of a known system" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["import", str(folder), "--out", str(tmp_path / "w.safetensors")])
    assert "Generator of 8x8 images, 3 channels" in capsys.readouterr().out
