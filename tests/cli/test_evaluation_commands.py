"""The commands that measure, in this process: tables, defaults of runs, and mistakes of users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from measured_commands import call, done, mistake, rows
from progan import __main__
from progan.config import make_config
from progan.data.packed import PackedSet
from progan.evaluation import measure
from progan.evaluation.measure import evaluate as evaluated
from progan.evaluation.results import read_results
from progan.models.generator import Generator
from progan.models.weights import save
from progan.preparation.builtin_sets import synthetic
from progan.runs import checkpoint
from progan.runs.run_folder import Dataset, RunFolder
from tiny import options


@pytest.fixture(name="run")
def mirrored_run(tmp_path: Path, blobs: PackedSet) -> Path:
    """A run as `train` leaves it, after 160 images, trained on mirrored pictures."""
    torch.manual_seed(0)
    folder = RunFolder(tmp_path / "run")
    config = make_config(options(data={"resolution": "16", "mirror": True}))
    folder.begin(config, Dataset("pictures", str(blobs.path), blobs.fingerprint))
    record = checkpoint.Record(160, "fade", 2, 0.5, {}, blobs.fingerprint, {})
    checkpoint.save(folder.checkpoints, record, {"x": torch.zeros(1)}, keep=1)
    G = Generator(channels=3, max_level=2, fmap_base=64, fmap_max=8, level=2)
    save(G, folder.generator_file)
    return folder.path


def test_a_run_needs_nothing_else(run: Path, blobs: PackedSet, capsys: pytest.CaptureFixture[str]) -> None:
    out = done(capsys, "evaluate", run, "--device", "cpu")
    results = read_results(run / "metrics.jsonl")
    assert [result.metric for result in results] == ["swd", "ms_ssim"]
    swd, ssim = results
    assert (swd.num_images, swd.num_reals) == (48, 48)
    assert swd.about["images"] == {"path": str(run), "images_seen": 160}
    assert swd.reals is not None
    assert swd.reals["fingerprint"] == blobs.fingerprint
    assert swd.reals["mirror_seed"] == 1, "training mirrored"
    table = rows(out)
    numbers = swd.numbers | ssim.numbers
    for name, other in (
        ("swd/mean", "swd_floor/mean"),
        ("swd/16", "swd_floor/16"),
        ("ms_ssim", "ms_ssim_reals"),
    ):
        assert table[name] == [f"{numbers[name]:.4f}", f"{numbers[other]:.4f}", "48", "48"]
        assert other not in table
    assert "two halves with 24 images each" in out
    assert f"results: {run / 'metrics.jsonl'}" in out
    expected = evaluated(run, blobs, mirror=True)
    assert [result.numbers for result in expected] == [result.numbers for result in results]


def test_a_known_number_is_not_computed_again(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", run, "--metrics", "ms_ssim", "--num-images", 8)
    first = rows(done(capsys, *words))
    monkeypatch.setattr(measure, "feed", pytest.fail)
    assert rows(done(capsys, *words))["ms_ssim"] == [*first["ms_ssim"], "known"]
    monkeypatch.undo()
    assert rows(done(capsys, *words, "--force"))["ms_ssim"] == first["ms_ssim"]
    assert len(read_results(run / "metrics.jsonl")) == 2


def test_options_reach_the_measure(run: Path, pool: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "results" / "x.jsonl"
    done(
        capsys, "evaluate", run, "--metrics", "kid", "ms_ssim", "--num-images", 20, "--num-reals", 30,
        "--seed", 3, "--no-mirror", "--part", "all", "--extractor", pool, "--resize", "bilinear:8",
        "--normalise", "0..1", "-o", out,
    )  # fmt: skip
    kid, _ = read_results(out)
    assert kid.metric.startswith("kid_pool-")
    assert kid.metric.endswith("_bilinear8_0..1")
    assert (kid.num_images, kid.num_reals, kid.seed, kid.definition["seed"]) == (20, 30, 3, 3)
    assert kid.reals is not None
    assert (kid.reals["part"], "mirror_seed" in kid.reals) == ("all", False)
    assert not (run / "metrics.jsonl").exists()
    done(capsys, "evaluate", run, "--metrics", "fid", "--resolution", "8", "--extractor", pool, "-o", out)
    assert read_results(out)[2].images["resolution"] == "8x8"
    assert read_results(out)[2].reals["resolution"] == "8x8"  # type: ignore[index]


def test_a_warning_is_printed_once_as_a_note(run: Path, pool: Path, capsys: Any) -> None:
    out = done(capsys, "evaluate", run, "--metrics", "fid", "--num-images", 6, "--resolution", "8",
               "--extractor", pool)  # fmt: skip
    assert out.count("note: fid_pool-") == 2, "one for the reals, one for the samples"


def test_numbers_for_other_programs(run: Path, capsys: Any) -> None:
    """Nothing but JSON is on stdout; each metric is a line."""
    words = ("evaluate", run, "--metrics", "ms_ssim,swd", "--num-images", 8, "--json")
    with pytest.raises(SystemExit):
        __main__.main(list(map(str, words)))
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["metric"] for each in found] == ["ms_ssim", "swd"]
    assert found == [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "results:" in err
    for path in (run, run / "generator.safetensors", *(run / "checkpoints").glob("*.safetensors")):
        facts = json.loads(done(capsys, "info", path, "--json"))
        assert facts["numbers"]["level"] >= 0
        assert facts["path"] == str(path)


def test_a_weight_file_writes_nothing_by_itself(run: Path, tmp_path: Path, capsys: Any) -> None:
    weights = tmp_path / "g.safetensors"
    (run / "generator.safetensors").rename(weights)
    out = done(capsys, "evaluate", weights, "--metrics", "ms_ssim", "--num-images", 4)
    assert rows(out)["ms_ssim"][1:] == ["4"]
    assert "not written down; --out FILE would" in out
    assert "--data" in mistake(capsys, "evaluate", weights)


def test_compare_two_folders(tmp_path: Path, run: Path, blobs: PackedSet, capsys: Any) -> None:
    done(capsys, "generate", run, "--n", 16, "-o", tmp_path / "samples")
    reals = tmp_path / "reals.npy"
    np.save(reals, blobs.read(2, blobs.indices()))
    out = done(capsys, "compare", reals, tmp_path / "samples", "-o", tmp_path / "x.jsonl")
    direct = done(capsys, "evaluate", run, "--data", reals, "--num-images", 16, "--no-mirror")
    assert rows(out)["swd/mean"] == rows(direct)["swd/mean"]
    assert rows(out)["ms_ssim"] == rows(direct)["ms_ssim"]
    assert [result.metric for result in read_results(tmp_path / "x.jsonl")] == ["swd", "ms_ssim"]
    done(capsys, "compare", blobs.path, run, "--resolution", "16", "--num-images", 8, "--mirror")


def test_neighbours_become_a_picture(run: Path, pool: Path, tmp_path: Path, capsys: Any) -> None:
    words = ("evaluate", run, "--metrics", "ms_ssim", "--num-images", 8)
    path = tmp_path / "n.png"
    out = done(capsys, *words, "--neighbours", path, "--extractor", pool, "--resize", "bilinear:8")
    assert "samples (first column) and their nearest reals" in out
    with Image.open(path) as picture:
        assert picture.size == (8 * 66 - 2, 8 * 66 - 2)
    assert ".png" in mistake(capsys, *words, "--neighbours", tmp_path / "n.txt", "--extractor", pool)
    (run / "metrics.jsonl").unlink()
    for wrong, message in (
        (("--resize", "bilinear:8"), "Inception"),
        (("--extractor", tmp_path / "gone.pt"), "no extractor"),
    ):
        assert message in mistake(capsys, *words, "--neighbours", path, *wrong)
        assert not (run / "metrics.jsonl").exists(), "found before anything is measured"


def test_mistakes(run: Path, tmp_path: Path, blobs: PackedSet, capsys: Any) -> None:
    np.save(tmp_path / "nan.npy", np.full((4, 3, 16, 16), np.nan, np.float32))
    np.save(tmp_path / "gray.npy", np.zeros((4, 1, 16, 16), np.uint8))
    np.save(tmp_path / "large.npy", np.zeros((4, 3, 32, 32), np.uint8))
    (tmp_path / "bad.pt").write_bytes(b"bad")
    torch.manual_seed(0)
    diverged = Generator(channels=3, max_level=2, fmap_base=64, fmap_max=8, level=2)
    with torch.no_grad():
        next(diverged.parameters()).fill_(torch.nan)
    save(diverged, tmp_path / "nan.safetensors")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("evaluate", run, "--metrics", "swdd"), "did you mean 'swd'"),
        (("evaluate", run, "--metrics", "ms_ssim,swdd"), "did you mean 'swd'"),
        (("evaluate", tmp_path / "gone"), "gone"),
        (("evaluate", blobs.path), "is no generator; `progan compare`"),
        (("evaluate", run, "--data", tmp_path / "gone"), "gone: no such file"),
        (("evaluate", run, "--data", tmp_path / "gray.npy"), "16x16 gray"),
        (("evaluate", run, "--data", tmp_path / "nan.npy"), "not finite"),
        (("evaluate", tmp_path / "nan.safetensors", "--data", blobs.path), "not finite"),
        (("evaluate", run, "--num-images", "49"), "holds 48 images, but 49 were asked for"),
        (("evaluate", run, "--num-images", "0"), 'value "0" for --num-images'),
        (("evaluate", run, "--metrics"), "metrics (none): name at least one"),
        (("evaluate", run, "--metrics", "FID"), "did you mean 'fid'"),
        (("evaluate", run, "--num-images", "1"), "swd needs at least 2 images"),
        (("evaluate", run, "--resolution", "32"), "no level makes images of 32x32"),
        (("evaluate", run, "--resolution", "8"), "too small"),
        (("evaluate", run, "--part", "test"), "no picture is in the part 'test'"),
        (("evaluate", run, "--label", "cat"), "no labels"),
        (("evaluate", run, "--metrics", "fid"), "inception-2015-12-05.pt is not there"),
        (("evaluate", run, "--metrics", "fid", "--extractor", tmp_path / "bad.pt"), "bad.pt is damaged"),
        (("evaluate", run, "--metrics", "fid", "--extractor", tmp_path / "gone.pt"), "no extractor"),
        (("evaluate", run, "--out", tmp_path), "cannot be read"),
        (("evaluate", run, "--device", "gpu"), "gpu"),
        (("compare", blobs.path, tmp_path / "gray.npy"), "the sets differ"),
        (("compare", blobs.path, tmp_path / "large.npy"), "16x16, not 32x32"),
        (("compare", blobs.path, blobs.path, "--metrics"), "metrics (none): name at least one"),
        (("compare", blobs.path), "b"),
    ]
    for words, message in cases:
        assert message.lower() in mistake(capsys, *words).lower(), words
    assert not (run / "metrics.jsonl").exists()


def test_pictures_of_a_run_that_are_gone(run: Path, tmp_path: Path, capsys: Any) -> None:
    other = synthetic(tmp_path / "other", count=8, resolution=16)
    file = run / "dataset.json"
    tree = {name: place for name, place in json.loads(file.read_text()).items() if "from_here" not in name}
    for packed, why in ((other.path, "holds other pictures now"), (tmp_path / "gone", "no packed set")):
        file.write_text(json.dumps({**tree, "packed": str(packed)}))
        message = mistake(capsys, "evaluate", run)
        assert why in message
        assert "give a set with --data" in message


def test_ctrl_c_ends_in_words_and_goes_on(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = measure.compute

    def interrupt(metric: Any) -> Any:
        if metric.name == "ms_ssim":
            raise KeyboardInterrupt
        return original(metric)

    monkeypatch.setattr(measure, "compute", interrupt)
    code, _, err = call(capsys, "evaluate", run)
    assert (code, err) == (130, "interrupted; what is finished is kept, the same command goes on\n")
    monkeypatch.undo()
    table = rows(done(capsys, "evaluate", run))
    assert table["swd/mean"][-1] == "known"
    assert table["ms_ssim"][-1] != "known"
    assert not list(run.glob(".samples*"))


def test_ctrl_c_is_told_by_the_first_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "make_app", lambda _parts: interrupt)
    for rank, told in (("0", "interrupted\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        code, _, err = call(capsys, "evaluate", "run")
        assert (code, err) == (130, told)
