"""The real command from end to end on a tiny folder of pictures, and the mistakes a user makes."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw

import progan as package
from progan.__main__ import main
from progan.config import file_schema, load_config, make_config
from progan.data.packed import PackedSet
from progan.runs import checkpoint
from progan.system.device import choose_device
from tiny import command, environment, options, progan, words

TRAIN = options(schedule={"total_kimg": 0.176})
"""Up to a fade of the last level."""
CLASSES = ("disc", "square")


@pytest.fixture(scope="module", name="folder")
def folder_of_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 PNG and JPEG of mixed sizes and modes in two classes, and a file that is no picture."""
    folder, dice = tmp_path_factory.mktemp("user") / "my pictures", np.random.default_rng(0)
    for i in range(40):
        kind = CLASSES[i % 2]
        width, height = (int(n) for n in dice.integers(16, 40, 2))
        image = Image.new("RGB", (width, height), tuple(int(c) for c in dice.integers(0, 255, 3)))
        draw, box = ImageDraw.Draw(image), (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
        (draw.ellipse if kind == "disc" else draw.rectangle)(box, fill="white")
        path = folder / kind / f"{i:02d}.{'png' if i % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if i == 1 else image).save(path)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module", name="packed")
def prepared_by_command(folder: Path) -> Path:
    target = folder.parent / "packed"
    result = progan("prepare", folder, target, "--resolution", "16", "--labels", "folders", "--workers", "1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "40" in result.stdout
    return target


@pytest.fixture(scope="module", name="run")
def trained_by_command(packed: Path) -> Path:
    run = packed.parent / "run"
    result = progan("train", packed, "--out", run, *words(TRAIN))
    assert (result.returncode, result.stderr) == (0, "")
    assert "training on 40 pictures, 2 classes, up to 16x16" in result.stdout
    assert f"progan generate {run}" in result.stdout
    return run


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: its exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    code = caught.value.code
    return (0 if code is None else int(code)), out, err


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail by the user's mistake: exit code 2 and one message; returns it."""
    code, _, err = call(capsys, *arguments)
    assert code == 2, err
    assert err.count("error:") == 1
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def test_prepare(packed: Path) -> None:
    made = PackedSet.open(packed)
    assert (made.count, made.channels, made.label_names) == (40, 3, CLASSES)
    assert made.resolution(made.max_level) == (16, 16)


def test_dry_run_prints_every_phase(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    code, out, err = call(capsys, "train", packed, "--out", run, "--dry-run", *words(options()))
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if "stabilise" in line or "fade" in line]
    assert [row[:4] for row in rows] == [
        ["stabilise", "4x4", "0.048", "16"],
        ["fade", "8x8", "0.048", "8"],
        ["stabilise", "8x8", "0.048", "8"],
        ["fade", "16x16", "0.048", "8"],
        ["stabilise", "16x16", "0.048", "8"],
    ]
    assert "240 images in all" in out
    assert not run.exists()


def test_train_from_a_folder_of_its_own_accord(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but a source: the picture size is found, the set is prepared beside it and found again."""
    monkeypatch.chdir(tmp_path)
    tree = options(schedule={"total_kimg": 0.016}, data={"max_resolution": 16})
    code, out, err = call(capsys, "train", folder, *words(tree))
    assert (code, err) == (0, "")
    assert "up to 16x16" in out
    assert (tmp_path / "runs" / "my pictures-paper-light-128" / "generator.safetensors").is_file()
    assert len(list((folder.parent / "my pictures.progan").iterdir())) == 1
    code, out, err = call(capsys, "train", folder, *words(tree))
    assert (code, err) == (0, "")
    assert "going on from 16 images" in out
    assert len(list((folder.parent / "my pictures.progan").iterdir())) == 1


def test_the_folder_one_stands_in_gives_the_run_its_name(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    code, out, err = call(capsys, "train", ".", "--dry-run", *words(options(data={"max_resolution": 16})))
    assert (code, err) == (0, "")
    assert "plan of runs/my pictures-paper-light-128" in " ".join(out.split())


def test_samples_are_drawn_in_terminals_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    tree = options(schedule={"total_kimg": 0.016}, data={"max_resolution": 16})
    code, out, err = call(capsys, "train", ".", "--show", *words(tree))
    assert (code, err) == (0, "")
    assert "--show draws in a terminal; grids of samples are in the run folder" in " ".join(out.split())
    assert "\u2584" not in out


def test_train_writes_a_run(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert lines[-1]["images_seen"] == 176
    assert (lines[-1]["phase"], lines[-1]["resolution"]) == ("fade", "16x16")


def test_resume_and_its_dry_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "train", "--resume", run, "--dry-run")
    assert (code, err) == (0, "")
    assert "176 images in all" in out
    assert "176 images are done; what is left: nothing" in " ".join(out.split())
    code, out, err = call(capsys, "train", "--resume", run, "--dry-run", "--schedule.total-kimg", 0.24)
    assert "176 images are done; what is left: this takes about" in " ".join(out.split())
    assert "model.generator.fmap_max: 8 there, 16 here" in mistake(
        capsys, "train", "--resume", run, "--model.generator.fmap-max", 16
    )


def test_info(run: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "info", run)
    assert code == 0
    text = " ".join(out.split())
    assert "176 of 176 images (100%), phase 4 of 4: 16x16 fade" in text
    assert "disc, square" in text
    for path, word in (
        (packed, "packed set"),
        (run / "generator.safetensors", "Generator"),
        (run / "checkpoints" / "000000000176.safetensors", "checkpoint"),
    ):
        code, out, _ = call(capsys, "info", path)
        assert code == 0
        assert word in out


def test_generate(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [tmp_path / name for name in ("folder", "grid.png", "array.npy", "many.zip")]
    for out in outputs:
        code, said, err = call(capsys, "generate", run, "--n", 6, "--out", out, "--seed", 3)
        assert (code, err) == (0, "")
        assert str(out) in said
    array = np.load(outputs[2])
    assert (array.shape, array.dtype) == ((6, 3, 16, 16), np.uint8)
    files = sorted(outputs[0].glob("*.png"))
    assert len(files) == 6
    for path, expected in zip(files, array, strict=True):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), expected)
    with zipfile.ZipFile(outputs[3]) as archive:
        pictures = [name for name in archive.namelist() if name.endswith(".png")]
        assert len(pictures) == 6
        assert archive.testzip() is None
    with Image.open(outputs[1]) as image:
        assert min(image.size) >= 16


def test_generate_by_label_and_resolution(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {}
    for name, extra in {
        "disc": ["--label", "disc"],
        "0": ["--label", "0"],
        "square": ["--label", "square"],
        "small": ["--label", "disc", "--resolution", "8"],
        "level": ["--label", "disc", "--level", "1"],
        "fewer": ["--label", "disc", "--n", "2"],
    }.items():
        out = tmp_path / f"{name}.npy"
        number = [] if name == "fewer" else ["--n", "4"]
        code, _, err = call(capsys, "generate", run, "--out", out, *number, *extra)
        assert (code, err) == (0, "")
        made[name] = np.load(out)
    np.testing.assert_array_equal(made["disc"], made["0"])
    assert (made["disc"] != made["square"]).any()
    assert made["small"].shape == (4, 3, 8, 8)
    np.testing.assert_array_equal(made["small"], made["level"])
    np.testing.assert_allclose(made["fewer"].astype(int), made["disc"][:2].astype(int), atol=1)


def test_interpolate(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "walk.gif"
    code, said, err = call(
        capsys, "interpolate", run, "-o", out, "--seconds", 1, "--fps", 5, "--grid", 1, 2, "--label", "disc"
    )
    assert (code, err) == (0, "")
    assert str(out) in said
    with Image.open(out) as image:
        assert getattr(image, "n_frames", 1) == 5
        width, height = image.size
        assert width > height


NAMES = ["train", "prepare", "generate", "interpolate", "info", "recipes", ""]
NAMES += ["config", "config show", "config validate", "config schema"]


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = call(capsys, *name.split(), "--help")
    assert (code, err) == (0, "")
    assert f"progan {name}".strip() in out
    if name == "train":
        out = call(capsys, "train", "--help", "all")[1]
        titles = ["Pictures", "Augmentation", "Networks", "Generator", "Discriminator", "Schedule", "Loss"]
        places = [out.index(f"╭─ {title} ─") for title in [*titles, "Optimizer", "Run"]]
        assert places == sorted(places)


def test_version_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version")[1].strip() == package.__version__
    out = call(capsys, "recipes")[1]
    assert [line for line in out.splitlines() if not line.startswith(" ")] == package.recipe_names()
    assert out.count("    Source: ") == out.count("    Published: ") == len(package.recipe_names())
    assert max(map(len, out.splitlines())) <= 80


def test_sources_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in mistake(capsys, "train", empty)
    assert str(empty) in mistake(capsys, "prepare", empty, tmp_path / "packed")
    missing = tmp_path / "missing"
    for arguments in (["train", missing], ["prepare", missing, tmp_path / "packed"], ["info", missing]):
        assert str(missing) in mistake(capsys, *arguments)
    for arguments in (["generate", missing], ["interpolate", missing], ["train", "--resume", missing]):
        assert str(missing) in mistake(capsys, *arguments)
    assert not (tmp_path / "packed").exists()
    assert "no built-in set" in mistake(capsys, "train", "builtin:nothing")


def test_a_resume_of_what_is_no_run(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run folder" in mistake(capsys, "train", "--resume", packed)
    assert "give a source of pictures, or --resume RUN" in mistake(capsys, "train")
    assert "is no run folder" in mistake(capsys, "train", packed, "--resume", tmp_path)
    assert "leave out --out" in mistake(capsys, "train", "--resume", tmp_path, "--out", tmp_path)


CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"schedule": {"batch_size": 64}}, ["40 pictures to train on are fewer than a batch of 64"]),
    ({"schedule": {"batch_size": 6}}, ["6 is not a multiple of model.discriminator.stddev_group 4"]),
    ({"data": {"resolution": 100}}, ["resolution 100x100", "96x96"]),
    ({"data": {"resolution": "big"}}, ["resolution 'big'", "such as 128"]),
    ({"model": {"base_shape": [4, 4]}, "data": {"resolution": 20}}, ["nearest that is: 16x16"]),
    ({"schedule": {"batch_size": "many"}}, ["many"]),
    ({"schedule": {"batch_size": 0}}, ["schedule.batch_size", "0"]),
    ({"optimizer": {"reset": "often"}}, ["optimizer.reset: 'often' is not allowed", "'never', 'level'"]),
    ({"loss": {"adversarial": "lsgan"}}, ["did you mean 'least_squares'?"]),
    ({"loss": {"adversarial": "hinge", "drift": 0.1}}, ["error: loss.drift 0.1 belongs to the wgan loss"]),
    ({"augment": {"policy": ["color", "cut"]}}, ["augment.policy[1]: 'cut'", "did you mean 'cutout'?"]),
]


@pytest.mark.parametrize(("tree", "expected"), CASES)
def test_options_that_cannot_be_used(
    packed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tree: dict[str, Any],
    expected: list[str],
) -> None:
    message = mistake(capsys, "train", packed, "--out", tmp_path / "run", *words(tree))
    for word in expected:
        assert word in message
    assert not (tmp_path / "run").exists()


def test_a_resolution_that_is_no_base_shape_times_a_power_of_two(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["prepare", folder, tmp_path / "p", "--resolution"],
        ["train", folder, "--data.resolution"],
    ):
        assert "the nearest that is: 96x96" in mistake(capsys, *arguments, "100")
    message = mistake(capsys, "prepare", folder, tmp_path / "p", "--resolution", 40, "--base-shape", 4, 6)
    assert "40x40 is not the base shape 4x6 times a power of two" in message


def test_names_that_are_nearly_right(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--schedule.batch-size" in mistake(capsys, "train", packed, "--schedule.batch-sise", 8)
    assert "prepare" in mistake(capsys, "prepair", packed)
    assert "did you mean 'lsun-256'?" in mistake(capsys, "train", packed, "--recipe", "lsun-265")
    mine = tmp_path / "mine.yaml"
    mine.write_text("model:\n  generator:\n    fmap_basis: 64\n")
    for argument in ("--recipe", "--config"):
        message = mistake(capsys, "train", packed, argument, mine)
        assert "unknown option 'model.generator.fmap_basis'" in message
        assert "did you mean 'model.generator.fmap_base'?" in message
    assert "channels: '99' is not allowed" in mistake(
        capsys, "prepare", packed, tmp_path / "x", "--channels", 99
    )


def test_a_run_folder_of_another_configuration(
    run: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = mistake(capsys, "train", packed, "--out", run, *words(TRAIN), "--loss.drift", 0.5)
    assert "loss.drift: 0.001 there, 0.5 here" in message
    assert "Choose another --out" in message
    assert "is no run folder" in mistake(capsys, "train", packed, "--out", packed, *words(TRAIN))


def test_a_label_file_that_does_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\nghost.png,disc\n")
    message = mistake(capsys, "prepare", folder, tmp_path / "packed", "--labels", labels)
    assert str(labels) in message
    assert "ghost.png" in message
    message = mistake(capsys, "prepare", folder, tmp_path / "packed", "--labels", tmp_path / "no.csv")
    assert "no.csv" in message
    assert "three shares" in mistake(capsys, "prepare", folder, tmp_path / "packed", "--split", "a,b")


def test_each_process_tries_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the last one if there are too few, which is told later."""
    tried: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda _n, device: tried.append(device))
    for own in (0, 1, 2):
        assert choose_device("cuda", own) == torch.device("cuda")
    assert choose_device("cuda:0", 1) == torch.device("cuda:0")
    assert tried == [torch.device("cuda", index) for index in (0, 1, 1, 0)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_here(
    run: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["train", packed, "--out", tmp_path / "run", "--device", "cuda"],
        ["train", packed, "--out", tmp_path / "run", "--run.device", "cuda"],
        ["generate", run, "--device", "cuda"],
        ["interpolate", run, "--device", "cuda"],
    ):
        assert "'cuda' cannot be used here" in mistake(capsys, *arguments)
    assert not (tmp_path / "run").exists()


def test_uses_that_do_not_fit_the_generator(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", tmp_path / "x.npy"]
    assert "cat" in mistake(capsys, "generate", run, "--label", "cat", *out)
    assert "7" in mistake(capsys, "generate", run, "--label", "7", *out)
    assert "64" in mistake(capsys, "generate", run, "--resolution", "64", *out)
    assert "9" in mistake(capsys, "generate", run, "--level", "9", *out)
    mistake(capsys, "generate", run, "--n", "0", *out)
    assert not (tmp_path / "x.npy").exists()


def test_messages_of_the_process_itself(tmp_path: Path) -> None:
    """What a shell sees, once: the code, one message on stderr, nothing else."""
    result = progan("train", tmp_path / "missing [bold]")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "missing [bold]" in result.stderr, "a path is not markup"
    assert "Traceback" not in result.stderr


def test_a_path_that_the_system_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert "File name too long; look at that path" in mistake(capsys, "info", "a" * 300)


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, progan\n"
        "assert 'torch' not in sys.modules, 'import progan'\n"
        "from progan.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'huggingface_hub', 'tensorboard', 'imageio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert result.returncode == 0, result.stderr


def test_every_public_name_is_there() -> None:
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        value = getattr(package, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = package.nothing_such


def test_arrows_go_only_downward(tmp_path: Path) -> None:
    """The contract of the layers, in pyproject.toml."""
    pytest.importorskip("importlinter")
    root = Path(__file__).parents[2]
    code = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(config_filename='pyproject.toml', cache_dir=sys.argv[1]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=root,
        env=environment(),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 kept, 0 broken" in result.stdout


def test_a_full_disk_is_a_message_with_exit_code_2(packed: Path, tmp_path: Path) -> None:
    """A real process that may not write files as large as a checkpoint; the one before stays whole."""
    tree = options(run={"checkpoint_minutes": 0}, schedule={"total_kimg": 0.016})
    run = tmp_path / "run"
    assert progan("train", packed, "--out", run, *words(tree)).returncode == 0
    largest = max(path.stat().st_size for path in run.rglob("*") if path.is_file())
    room = largest - 100  # the record in a checkpoint is some bytes shorter or longer than the one before
    result = subprocess.run(
        command("train", "--resume", run, "--schedule.total-kimg", "0.2"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: cannot write")
    assert "Traceback" not in result.stderr + result.stdout
    assert checkpoint.load(checkpoint.paths(run / "checkpoints")[-1])[0].images_seen == 16


def test_a_name_like_markup_is_only_a_name(packed: Path, tmp_path: Path) -> None:
    result = progan("train", packed, "--dry-run", "--out", "[red]x[/y]", *words(options()), cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "plan of [red]x[/y]" in result.stdout


def test_a_recipe_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    out = call(capsys, "recipes", "quickstart")[1]
    assert make_config(yaml.safe_load(out)) == load_config("quickstart")
    assert "did you mean 'quickstart'" in mistake(capsys, "recipes", "quikstart")


def test_a_number_of_pictures_is_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--n" in mistake(capsys, "generate", tmp_path, "--n", "1.5")


def test_a_reader_that_goes_away_does_not_stop_training(packed: Path, tmp_path: Path) -> None:
    """As in `progan train ... | head -1`."""
    tree = options(schedule={"total_kimg": 0.2}, run={"log_kimg": 0.016})
    with subprocess.Popen(
        command("train", packed, "--out", tmp_path / "run", *words(tree)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=600) == 0
    assert checkpoint.load(checkpoint.paths(tmp_path / "run" / "checkpoints")[-1])[0].images_seen >= 200


def test_a_printed_recipe_works_as_the_recipe_does(packed: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(progan("recipes", "quickstart").stdout)
    small = words({"schedule": {"batch_size": 4}})
    for name in (recipe, "quickstart"):
        result = progan("train", packed, "--recipe", name, *small, "--dry-run", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert "40 pictures, 2 classes" in result.stdout


def test_labels_of_a_packed_set(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    told = mistake(capsys, "train", packed, "--out", out, "--data.labels", "nothere.csv", "--dry-run")
    assert "is packed already" in told
    code, said, _ = call(
        capsys, "train", packed, "--out", out, *words(options()), "--data.labels", "none", "--dry-run"
    )
    assert code == 0
    assert "labels of" in said
    assert "are not used" in said


def test_a_dry_run_refuses_what_the_run_would(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "more than the" in mistake(
        capsys, "train", "--resume", run, "--schedule.total-kimg", "0.01", "--dry-run"
    )
    source = tmp_path / "pictures"
    shutil.copytree(folder, source)
    arguments = ["train", source, "--out", tmp_path / "run", *words(options(schedule={"total_kimg": 0.016}))]
    assert progan(*arguments).returncode == 0
    Image.new("RGB", (20, 20), "red").save(source / "disc" / "new.png")
    told = mistake(capsys, *arguments, "--dry-run")
    assert "have changed" in told
    assert f"progan train --resume {tmp_path / 'run'}" in told
    assert progan("train", "--resume", tmp_path / "run").returncode == 0


def test_a_file_between_recipe_and_command_line(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[schedule]\nstabilise_kimg = 0.5\nfade_kimg = 0.25\nbatch_size = [16, 8]\n")
    arguments = ["train", packed, "--recipe", "quickstart", "--config", file, "--schedule.fade-kimg", 1, 2]
    code, out, err = call(capsys, *arguments, "--out", tmp_path / "run", "--dry-run", "--run.device", "cpu")
    assert (code, err) == (0, "")
    rows = [line.split()[:4] for line in out.splitlines() if "stabilise" in line or "fade" in line]
    assert rows == [
        ["stabilise", "4x4", "0.5", "16"],
        ["fade", "8x8", "2", "8"],
        ["stabilise", "8x8", "0.5", "8"],
        ["fade", "16x16", "2", "8"],
        ["stabilise", "16x16", "0.5", "8"],
    ]
    assert "no.toml: cannot be read" in mistake(capsys, "train", packed, "--config", tmp_path / "no.toml")


def test_a_file_for_a_run_that_goes_on(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "longer.json"
    file.write_text('{"schedule": {"total_kimg": 0.2}}')
    resume = ["train", "--resume", run, "--config", file, "--dry-run"]
    assert "200 images in all" in call(capsys, *resume)[1]
    assert "208 images in all" in call(capsys, *resume, "--schedule.total-kimg", 0.208)[1]


def test_the_memory_check(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = words(options(schedule={"total_kimg": 0.016}))
    code, out, err = call(capsys, "train", packed, "--out", tmp_path / "run", *tree, "--memory-check")
    assert (code, err) == (0, "")
    assert "memory check: level" in out
    told = mistake(capsys, "train", packed, "--out", tmp_path / "run", *tree, "--memory-check", "--dry-run")
    assert "leave one out" in told


@pytest.mark.parametrize("end", ["--time", "--until"])
@pytest.mark.parametrize("sources", [1, 2])
def test_a_time_is_planned_for_any_source(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str, sources: int
) -> None:
    tiny = options()
    tree = words({"model": tiny["model"], "run": {"device": "cpu"}, "data": {"max_resolution": 8}})
    out, later = tmp_path / "run", datetime.now() + timedelta(hours=12)
    when = "12h" if end == "--time" else f"{later:%H:%M}"
    code, text, err = call(capsys, "train", *[folder] * sources, "--out", out, *tree, end, when, "--dry-run")
    assert (code, err) == (0, "")
    assert "planned for" in text
    assert "8x8: " in text
    assert not out.exists()


def test_a_time_is_planned_for_the_rest_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = mistake(capsys, "train", "--resume", run, "--time", "1h", "--dry-run")
    assert "the schedule ends amid a fade" in told
    longer = ("--schedule.total-kimg", 0.24)
    told = mistake(capsys, "train", "--resume", run, "--time", "1h", *longer)
    assert "--time decides schedule.total_kimg" in told
    told = mistake(capsys, "train", "--resume", run, "--time", "1h", "--until", "07:00")
    assert "give one of them" in told


def test_config_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optimizer: {g_lr: 1e-4, d_lr: 1e-4}\n")
    arguments = ["config", "show", "--recipe", "quickstart", "--config", file]
    arguments += ["--augment.policy", "color", "translation", "cutout", "--optimizer.g-lr", 0.5, 0.25]
    arguments += ["--data.no-mirror", "--loss.adversarial", "hinge"]
    expected = load_config(
        "quickstart",
        {
            "augment": {"policy": ["color", "translation", "cutout"]},
            "optimizer": {"g_lr": [0.5, 0.25], "d_lr": 1e-4},
            "data": {"mirror": False},
            "loss": {"adversarial": "hinge"},
        },
    )
    shown = {}
    for form, read in (("yaml", yaml.safe_load), ("json", json.loads)):
        code, out, err = call(capsys, *arguments, "--format", form)
        assert (code, err) == (0, "")
        assert make_config(read(out)) == expected
        shown[form] = tmp_path / f"shown.{form}"
        shown[form].write_text(out)
    for file in shown.values():  # what is shown is a file that can be given
        assert load_config(file=file) == expected


def test_config_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"schedule": {"batch_size": 8, "fade_kimg": [1, 2]}, "run": {"seed": 3}}')
    code, out, err = call(capsys, "config", "validate", file)
    assert (code, err) == (0, "")
    assert out.strip() == f"{file} is valid over the recipe paper-light-128; options that it sets: 3"
    file.write_text('{"schedule": {"batch_size": 0}, "loss": {"adversarial": "lsgan"}, "rum": {}}')
    told = mistake(capsys, "config", "validate", file)
    assert str(file) in told
    for problem in ("schedule.batch_size: 0 is not", "did you mean 'least_squares'?", "unknown option 'rum'"):
        assert problem in told
    file.write_text('{"loss": {"drift": 0.1}}')
    assert call(capsys, "config", "validate", file)[0] == 0
    told = mistake(capsys, "config", "validate", file, "--recipe", "small-data-256")
    assert "loss.drift 0.1 belongs to the wgan loss" in told
    file.write_text('{"run":\n  {"seed": 3,}}')
    assert f"{file}, line 2: not valid JSON" in mistake(capsys, "config", "validate", file)
    assert "cannot be read" in mistake(capsys, "config", "validate", tmp_path / "no.yaml")


def test_config_schema(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "config", "schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == file_schema()
