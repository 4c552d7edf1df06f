"""The trainer's own iterations on GPUs that are not there: nobody waits for them, and nothing is mixed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fake_device
from progan.config import merge
from progan.preparation.builtin_sets import synthetic
from tiny import environment

BASE: dict[str, Any] = {
    "model": {
        "generator": {"fmap_base": 64, "fmap_max": 8, "latent_size": 6},
        "discriminator": {"fmap_base": 64, "fmap_max": 8},
        "conditioning": "none",
    },
    "schedule": {"batch_size": [8], "stabilise_kimg": [0.128]},
    "run": {"cuda_graphs": False, "compile": "never", "precision": "bfloat16"},
}
CHANGES = {"policy": ["color", "translation", "cutout"]}
STRIDED = {"generator": {"upscale": "strided"}, "discriminator": {"downscale": "strided"}}
SEPARATE = {"generator": {"upscale": "separate"}, "discriminator": {"downscale": "separate"}}
CAREFUL = {"clip_norm": 1.0, "name": "adamw", "weight_decay": 0.01, "ema_half_life_kimg": 10.0}

LOSSES: dict[str, dict[str, Any]] = {
    "wgan": {"adversarial": "wgan"},
    "wgan one-sided": {"adversarial": "wgan", "gp_sides": "one", "gp_target": 750.0},
    "least squares": {"adversarial": "least_squares", "target_noise": 0.1},
    "logistic": {"adversarial": "logistic"},
    "hinge lazy": {"adversarial": "hinge", "penalty_interval": 2, "d_steps": 2},
    "relativistic": {"adversarial": "relativistic"},
    "hinge, all penalties": {"adversarial": "hinge", "r1_gamma": 1.0, "r2_gamma": 1.0, "gp_lambda": 10.0},
}
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {"augment": {**CHANGES, "probability": 0.5}},
    "morph": {"schedule": {"growth": "morph"}},
    "careful": {"optimizer": CAREFUL},
    "ac_gan": {"model": {"conditioning": "ac_gan"}},
    "projection": {"model": {"conditioning": "projection"}},
    "separate": {"model": SEPARATE},
    "strided": {"model": STRIDED},
    "in parts": {"run": {"micro_batch": [4]}},
    "mirrored": {"data": {"mirror": True, "on_device": "never"}},
}


def case(loss: str, precision: str, *extras: str, **more: Any) -> dict[str, Any]:
    options = merge(BASE, {"loss": LOSSES[loss], "run": {"precision": precision}})
    for extra in extras:
        options = merge(options, EXTRAS[extra])
    return {"options": merge(options, more.pop("options", {})), **more}


ADAPTIVE = {"augment": {**CHANGES, "adaptive": True}}
CASES: dict[str, dict[str, Any]] = {
    "wgan": case("wgan", "bfloat16", "ac_gan"),
    "one-sided": case("wgan one-sided", "float16", "strided", "in parts"),
    "least squares": case("least squares", "tf32", "morph"),
    "logistic": case("logistic", "float16", options=ADAPTIVE),
    "hinge": case("hinge lazy", "bfloat16", "projection", "careful", "mirrored"),
    "relativistic": case("relativistic", "float32", "separate"),
    "without kernels": case("wgan", "bfloat16", options={"run": {"fused_kernels": False}}),
    **{fault: case("wgan", "bfloat16", fault=fault) for fault in fake_device.FAULTS},
}
OTHERS = {
    "xpu": case("wgan", "bfloat16", device="xpu"),
    "mps": case("wgan", "float32", device="mps"),
}


def every(loss: str) -> dict[str, dict[str, Any]]:
    """Return cases of a loss: every precision, and with small types everything else."""
    return {
        f"{precision}, {extra}": case(loss, precision, extra)
        for precision in PRECISIONS
        for extra in EXTRAS
        if extra == "plain" or precision in ("bfloat16", "float16")
    }


class Machine:
    """Carries cases out in a process that has been given devices."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("g++") or shutil.which("clang++")
        if compiler is None or sys.platform != "linux":
            pytest.skip("a device guard is compiled, for which there is no C++ compiler here")
        if torch.__version__ < "2.13":
            pytest.skip("the guard is written for the interfaces of PyTorch 2.13")
        source = Path(fake_device.__file__).with_name("fake_device_guard.cpp")
        self._library, torch_home = folder / "guard.so", Path(torch.__file__).parent
        words = [compiler, "-std=c++20", "-shared", "-fPIC", str(source), "-o", str(self._library)]
        places = ["-I", str(torch_home / "include"), "-L", str(torch_home / "lib"), "-lc10", "-ltorch_cpu"]
        subprocess.run([*words, *places], check=True)
        self._pictures = synthetic(folder / "set", count=32, resolution=8, labelled=True).path

    def __call__(self, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for kind in {asked.get("device", "cuda") for asked in cases.values()}:
            # A process has one kind of accelerator, from when it begins.
            chosen = {name: asked for name, asked in cases.items() if asked.get("device", "cuda") == kind}
            words = [
                sys.executable,
                "-W",
                "ignore",
                fake_device.__file__,
                str(self._library),
                str(self._pictures),
            ]
            done = subprocess.run(
                words, input=json.dumps(chosen), capture_output=True, text=True,
                env={**environment(), "FAKE_DEVICE": kind},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            found |= json.loads(done.stdout)
        return found


@pytest.fixture(scope="module", name="machine")
def machine_with_devices(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    if torch.cuda.is_available():
        pytest.skip("there is a real one")
    return Machine(tmp_path_factory.mktemp("devices"))


@pytest.fixture(scope="module", name="found")
def what_cases_did(machine: Machine) -> dict[str, dict[str, Any]]:
    return machine(CASES)


def require_undisturbed(name: str, asked: dict[str, Any], did: dict[str, Any]) -> None:
    assert did["raised"] == "", name
    assert len(did["phases"]) == 3, name
    assert did["updates"] >= 6, name
    assert did["operators"] > 500, name
    assert did["mixed"] == {}, name
    # Memory that a device reads by itself is asked for on CUDA alone; to others, batches are copied at once.
    unpinned = asked.get("device", "cuda") != "cuda"
    assert all(unpinned and " @ data/" in copy for copy in did["copies"]), (name, did["copies"])
    # The kernel of a transposed convolution is transposed; its gradient is laid out anew when it is taken.
    strided = asked["options"]["model"]["generator"].get("upscale") == "strided"
    assert all(strided and "conv0_up.weight" in one for one in did["gradients"]), (name, did["gradients"])
    # Whether an update of float16 is made is known on the device alone, and the program asks once.
    scaled = asked["options"]["run"]["precision"] == "float16"
    assert sum(did["waits"].values()) <= (did["updates"] if scaled else 0), (name, did["waits"])


@pytest.mark.parametrize("name", [name for name, asked in CASES.items() if "fault" not in asked])
def test_no_iteration_waits_for_its_device(found: dict[str, dict[str, Any]], name: str) -> None:
    """Nor copies from or to the CPU but to go on meanwhile; gradients are laid out as the parameters."""
    require_undisturbed(name, CASES[name], found[name])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("alpha_on_the_cpu", "mixed"), ("number_in_a_loss", "waits"), ("terms_copied", "copies")],
)
def test_planted_faults_are_found(found: dict[str, dict[str, Any]], fault: str, kind: str) -> None:
    did = found[fault]
    assert did["raised"] == ""
    assert did[kind]
    assert [other for other in ("waits", "copies", "mixed", "gradients") if did[other]] == [kind]


def test_a_planted_tensor_of_another_device_is_refused(found: dict[str, dict[str, Any]]) -> None:
    assert "device" in found["cpu_tensor_in_a_loss"]["raised"]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [*LOSSES, "other devices"])
def test_no_iteration_of_any_kind_waits_for_its_device(machine: Machine, loss: str) -> None:
    cases = every(loss) if loss in LOSSES else OTHERS
    for name, did in machine(cases).items():
        require_undisturbed(name, cases[name], did)
