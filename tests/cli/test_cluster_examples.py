"""The examples for clusters, checked without one: syntax, fields, and a dry run of the words they start."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import parse_args

from progan.__main__ import main

DOCS = Path(__file__).parents[2] / "docs"
SLURM = DOCS / "slurm" / "train.sbatch"
COMMANDS = {
    "srun": 'printf "%s\\n" "$@" > "$OUT/srun.words"',
    "scontrol": 'echo "$@" >> "$OUT/scontrol.words"; [[ $1 != show ]] || printf "node1\\nnode2\\n"',
    "scancel": 'printf "%s\\n" "$@" > "$OUT/scancel.words"',
}
"""What stands for SLURM's commands."""


def slurm(folder: Path, **commands: str) -> subprocess.Popen[bytes]:
    """Start the job script with other commands in the place of SLURM's."""
    for name, line in {**COMMANDS, **commands}.items():
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2"}
    more = {"SLURM_GPUS_ON_NODE": "8", "PICTURES": "a set", "RUN": "a run", "OUT": str(folder)}
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.Popen(["bash", str(SLURM)], env={**os.environ, **job, **more, "PATH": path})


def test_the_slurm_script_starts_torchrun(tmp_path: Path) -> None:
    assert subprocess.run(["bash", "-n", SLURM]).returncode == 0
    assert slurm(tmp_path).wait(60) == 0
    program, *words = (tmp_path / "srun.words").read_text().splitlines()
    assert program == "torchrun"
    found = parse_args(words)  # type: ignore[no-untyped-call]
    assert (found.nnodes, found.nproc_per_node, found.max_restarts) == ("2", "8", 3)
    assert (found.rdzv_backend, found.rdzv_endpoint, found.rdzv_id) == ("c10d", "node1:29500", "42")
    assert found.module
    assert [found.training_script, *found.training_script_args][:3] == ["progan", "train", "a set"]
    assert "requeue" not in (tmp_path / "scontrol.words").read_text()


def test_the_slurm_script_stops_in_time_and_comes_again(tmp_path: Path) -> None:
    """As SLURM does it: USR1 to the script, which has the step stopped, waits for it, and queues again.

    The step has ended before the script waits for it again: nevertheless its exit code is that of the job.
    """
    step = 'echo $$ > "$OUT/step"; touch "$OUT/begun"; '
    step += "until [[ -e $OUT/scancel.words ]]; do sleep 0.05; done; exit 1"
    stop = f'{COMMANDS["scancel"]}; while kill -0 "$(< "$OUT/step")" 2> /dev/null; do sleep 0.05; done'
    job = slurm(tmp_path, srun=step, scancel=stop)
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(10)
    assert job.wait(60) == 1
    assert (tmp_path / "scancel.words").read_text().split() == ["--signal=TERM", "42"]
    assert (tmp_path / "scontrol.words").read_text().split()[-2:] == ["requeue", "42"]


def test_the_kubernetes_job(monkeypatch: pytest.MonkeyPatch) -> None:
    job = yaml.safe_load((DOCS / "kubernetes" / "pytorchjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    policy, worker = job["spec"]["elasticPolicy"], job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == job["spec"]["nprocPerNode"]
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert int(given["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    assert given["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1", "see docs/distributed.md"
    # What the operator would set from the policy.
    monkeypatch.setenv("PET_NNODES", f"{policy['minReplicas']}:{policy['maxReplicas']}")
    monkeypatch.setenv("PET_NPROC_PER_NODE", job["spec"]["nprocPerNode"])
    monkeypatch.setenv("PET_RDZV_BACKEND", policy["rdzvBackend"])
    monkeypatch.setenv("PET_MAX_RESTARTS", str(policy["maxRestarts"]))
    program, *words = container["command"]
    found = parse_args(words)  # type: ignore[no-untyped-call]
    assert (program, found.module, found.training_script) == ("torchrun", True, "progan")
    assert (found.nnodes, found.rdzv_backend, found.max_restarts) == ("2:4", "c10d", 3)


@pytest.mark.parametrize("place", ["slurm/train.sbatch", "kubernetes/pytorchjob.yaml"])
def test_the_recipe_named_is_there(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / place).read_text().replace("\n", " ").replace("- ", "")
    words = text.split()
    recipe = words[words.index("--recipe") + 1]
    with pytest.raises(SystemExit):
        main(["recipes"])
    assert recipe in capsys.readouterr().out
