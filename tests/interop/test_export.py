"""Exported generators: their images are PyTorch's, their files say what they are, wrong ones are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from progan import Generator, load, save
from progan.data.pixels import quantize
from progan.errors import CheckpointError, ConfigError, DependencyError
from progan.interop import export_formats
from progan.interop.export import Exported, _distance, export
from progan.interop.export_formats import FORMATS, Contents, Form
from small_generators import inputs, trained
from tiny import progan

FORMS: list[Form] = ["onnx", "pt2", "torchscript"]


def opened(made: Exported, G: Generator, n: int) -> torch.Tensor:
    return FORMATS[made.form].open(made.path, type(G))(*inputs(G, n))


@pytest.mark.parametrize("form", FORMS)
def test_pixels_of_a_level_in_16_bits(form: Form, tmp_path: Path) -> None:
    G = trained("labels")
    made = export(G, tmp_path / "g", form, level=1, half=True, output="uint8", license="cc0-1.0")
    pixels = opened(made, G, 3)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 3, 8, 8)
    off = (pixels.int() - quantize(G(*inputs(G, 3), level=1)).int()).abs()
    assert made.rounding is not None
    assert off.max() <= 1 + made.rounding * 127.5  # what 16 bits change
    assert off.float().mean() < 0.5
    assert made.difference < 1e-5


@pytest.mark.parametrize(
    "form", [pytest.param("onnx", marks=pytest.mark.slow), "pt2", "torchscript", "safetensors"]
)
def test_values_of_a_growing_generator(form: Form, tmp_path: Path) -> None:
    G = trained("morphing")
    made = export(G, tmp_path / "g", form)
    assert made.rounding is None
    torch.testing.assert_close(opened(made, G, 5), G(*inputs(G, 5)), rtol=0, atol=2e-5)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    G = trained("labels")
    G.label_names = ("a", "b", "Å")
    files = {
        form: export(G, tmp_path / f"g{FORMATS[form].suffix}", half=True, license="mit").path
        for form in FORMATS
    }
    record, _ = weights_read(files["safetensors"])
    extra = {"progan": ""}
    torch.export.load(files["pt2"], extra_files=extra)
    found = {
        "safetensors": record["about"],
        "pt2": json.loads(extra["progan"]),
        "onnx": onnx_facts(files["onnx"]),
    }
    for form, facts in found.items():
        assert facts["license"] == "mit", form
        assert json.loads(facts["label_names"]) == ["a", "b", "Å"], form
        assert json.loads(facts["output_range"]) == [-1, 1], form
        assert facts["input_z"].startswith("[N, 16] float32"), form
        assert json.loads(facts["config"])["label_size"] == 3, form
    for form, file in files.items():
        assert str(Path(torch.__file__).parent).encode() not in unpacked(file), form


def unpacked(file: Path) -> bytes:
    """Return all that is in a file, the members of an archive one after the other."""
    import zipfile

    if not zipfile.is_zipfile(file):
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def weights_read(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from progan.models import weights

    return weights.read(file)


def onnx_facts(file: Path) -> dict[str, str]:
    import onnxruntime

    facts: dict[str, str] = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    return facts


def test_half_is_half_and_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    G = Generator(max_level=2, fmap_base=1024, fmap_max=128).eval()
    whole = 4 * sum(value.numel() for value in G.parameters())
    for form in FORMATS:
        file = export(G, tmp_path / f"g{FORMATS[form].suffix}", half=True).path
        assert file.stat().st_size < 0.6 * whole, form
    assert load(tmp_path / "g.safetensors").config() == G.config()


def test_onnx_without_pytorch(tmp_path: Path) -> None:
    G = trained("fading")
    made = export(G, tmp_path / "g.onnx")
    z = inputs(G, 3)[0].numpy()
    np.save(tmp_path / "z.npy", z)
    code = (
        "import sys, numpy, onnxruntime\n"
        "sys.modules['torch'] = None  # importing it would be an error\n"
        "session = onnxruntime.InferenceSession('g.onnx')\n"
        "numpy.save('images.npy', session.run(None, {'z': numpy.load('z.npy')})[0])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    expected = G(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), expected, rtol=0, atol=2e-5)
    assert made.difference < 1e-4


def test_a_file_that_is_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that loses a factor, as PyTorch's loses the divisor of a pooling."""
    form, broken = FORMATS["torchscript"], trained("fused")
    broken.load_state_dict({name: value * 1.001 for name, value in broken.state_dict().items()})

    def write(file: Path, made: Contents) -> None:
        form.write(file, replace(made, G=broken))

    monkeypatch.setitem(FORMATS, "torchscript", form._replace(write=write))
    out = tmp_path / "g.ts"
    out.write_bytes(b"before")
    with pytest.raises(CheckpointError, match=r"g\.ts is not written: its images are up to 0\.00"):
        export(trained("fused"), out)
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["g.ts"]


def test_distance_of_pixels() -> None:
    values = torch.tensor([-1.2, -1.0, 0.0, 0.5, 1.0, 1.3])
    pixels = quantize(values)
    assert _distance(pixels, values) < 1e-6
    off = pixels.clone()
    off[3] += 1  # 0.5 is 191.25
    assert _distance(off, values) == pytest.approx(0.25 / 127.5, abs=1e-6)
    assert _distance(255 - pixels, values) > 1
    assert not _distance(pixels, values * float("nan")) <= 1e-4
    assert not _distance(pixels[:2], values) <= 1e-4


def test_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    G = trained("fused")
    for arguments, message in (
        ({"out": tmp_path / "g.tflite"}, r"its ending is none of onnx, pt2, torchscript, safetensors"),
        ({"out": tmp_path / "g.onnx", "level": 3}, r"no level 3 .* 4x4 \(level 0\), 8x8 \(level 1\)"),
        ({"out": tmp_path / "g.onnx", "labels": True}, "trained without labels"),
        ({"out": tmp_path / "g.safetensors", "output": "uint8"}, "no output"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(G, **arguments)
    with pytest.raises(ConfigError, match="needs its 3 labels"):
        export(trained("labels"), tmp_path / "g.onnx", labels=False)
    G.conv.weight[0] = 1e6
    with pytest.raises(ConfigError, match=r"16 bits do not hold these weights \(conv.weight holds"):
        export(G, tmp_path / "g.pt2", half=True)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match=r"pip install 'progan\[onnx\]'"):
        export_formats.require("onnx")


def test_the_command(tmp_path: Path) -> None:
    save(trained("labels"), tmp_path / "g.safetensors")
    done = progan(
        "export", "g.safetensors", "--to", "torchscript", "--half", "--labels", "--level", 1, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("generator.ts: 8x8 images, torchscript, ")
    assert "labels: [N, 3] float32, one-hot" in done.stdout
    assert "checked with 16 latents: at most " in done.stdout
    again = progan("export", "g.safetensors", "--to", "torchscript", cwd=tmp_path)
    assert again.returncode == 2
    assert "generator.ts exists already" in again.stderr
