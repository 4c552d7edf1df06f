"""Every command that a message gives works as printed, in the situation that printed it.

The source is searched for them: one that is made of values must be made by `command`, which quotes, and
belongs to a situation below; a fixed one, and every option that a message names, must be there.
"""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import progan
from progan import errors
from progan.__main__ import main
from progan.data.packed import PackedSet
from progan.errors import command
from progan.evaluation import measure
from progan.preparation.builtin_sets import synthetic
from progan.runs.loop import Trainer
from said_commands import app, said_commands, shell_words
from tiny import options, words

SOURCE = Path(progan.__file__).parent
ODD = "my run; it's 50% `new` $HOME"
"""A name of a folder that a shell takes apart if it is not quoted."""


class Place:
    """A folder in which commands are given, and what they say.

    Args:
        folder: Has pictures and, once it is trained, a run, both with names that must be quoted.
        patch: Changes what happens meanwhile.
        capsys: What is printed.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.patch, self._capsys = folder, patch, capsys
        self.pictures, self.run = folder / f"{ODD} pictures", folder / ODD

    def give(self, *arguments: object) -> tuple[int, str]:
        """Give a command; returns its exit code and what it said."""
        with pytest.raises(SystemExit) as caught:
            main(list(map(str, arguments)))
        return int(caught.value.code or 0), "".join(self._capsys.readouterr())

    def train(self, *more: object, **branches: Any) -> tuple[int, str]:
        """Train on the pictures."""
        tree = options(**{"schedule": {"total_kimg": 0.08}, **branches})
        return self.give("train", self.pictures, "--out", self.run, *words(tree), *more)

    def at(self, clock: int, act: Callable[[], object]) -> None:
        """Do something once in the run that is trained next."""
        iterate, done = Trainer._iterate, list[int]()

        def then(trainer: Trainer, point: Any) -> None:
            iterate(trainer, point)
            if trainer.state.images_seen >= clock and not done:
                done.append(clock)
                act()

        self.patch.setattr(Trainer, "_iterate", then)


@pytest.fixture(name="place")
def odd_place(
    tmp_path: Path, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Place:
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, monkeypatch, capsys)
    shutil.copytree(blobs.path, place.pictures)
    return place


def trained(place: Place) -> tuple[int, str]:
    return place.train()


def imported(place: Place) -> tuple[int, str]:
    place.train()
    weights, like = place.folder / "G.pt", place.run / "generator.safetensors"
    torch.save(progan.load(place.run).state_dict(), weights)
    return place.give("import", weights, "--out", place.folder / f"{ODD}.safetensors", "--like", like)


def other_rates(place: Place) -> tuple[int, str]:
    place.train()
    return place.train(optimizer={"g_lr": [0.002, 0.0015], "reset": "never"})


def other_data(place: Place) -> tuple[int, str]:
    place.train()
    return place.train(data={"mirror": True})


def fixed_option(place: Place) -> tuple[int, str]:
    place.train()
    return place.give("train", "--resume", place.run, "--data.mirror")


def other_pictures(place: Place) -> tuple[int, str]:
    shutil.rmtree(place.pictures)
    source = shutil.copytree(synthetic_folder(place.folder / "drawn", 0), place.pictures)
    place.train()
    shutil.copy(next(source.glob("*.png")), source / "one more.png")
    return place.train()


def stopped_after_a_phase(place: Place) -> tuple[int, str]:
    return place.train(run={"stop_after": "phase"})


def stopped_by_a_signal(place: Place) -> tuple[int, str]:
    place.at(32, lambda: signal.raise_signal(signal.SIGTERM))
    return place.train()


def pictures_gone(place: Place) -> tuple[int, str]:
    away = place.folder / "away"
    place.at(32, lambda: place.pictures.rename(away))
    code, text = place.train()
    away.rename(place.pictures)  # it is mended
    return code, text


def diverged(place: Place, *, saved: bool) -> tuple[int, str]:
    def poison(trainer: Trainer, point: Any) -> None:
        if trainer.state.images_seen >= (64 if saved else 0) and not done:
            done.append(True)
            trainer.state.G.get_parameter("dense_bias").data[0] = float("nan")
        iterate(trainer, point)

    iterate, done = Trainer._iterate, list[bool]()
    place.patch.setattr(Trainer, "_iterate", poison)
    return place.train(run={"checkpoint_minutes": 0})


def diverged_at_once(place: Place) -> tuple[int, str]:
    return diverged(place, saved=False)


def diverged_later(place: Place) -> tuple[int, str]:
    return diverged(place, saved=True)


def pictures_replaced(place: Place) -> tuple[int, str]:
    place.train()
    place.pictures.rename(place.folder / "PICTURES")
    synthetic(place.pictures, count=40, resolution=16, labelled=True)
    return place.give("train", "--resume", place.run)


def own_part_is_missing(place: Place) -> tuple[int, str]:
    file = place.folder / f"{ODD}.py"
    file.write_text(OWN_PART)
    place.train("--plugin", file, augment={"policy": ["darker"]})
    return place.give("train", "--resume", place.run)


def best_of_none(place: Place) -> tuple[int, str]:
    place.train()
    return place.give("generate", place.run, "--kimg", "best", "--out", place.folder / "x.png")


# Situation -> the functions that make commands there, how many there are, exit code of the situation.
SITUATIONS: dict[Callable[[Place], tuple[int, str]], tuple[tuple[str, ...], int, int]] = {
    trained: (("cli/train.py:train",), 3, 0),
    imported: (("cli/import_weights.py:import_file",), 1, 0),
    other_rates: (("runs/run_folder.py:_ways_on",), 2, 2),
    other_data: (("runs/run_folder.py:_ways_on",), 1, 2),
    fixed_option: (("runs/run_folder.py:require_resumable",), 1, 2),
    other_pictures: (("runs/checks.py:check",), 1, 2),
    pictures_replaced: (("runs/checks.py:check_resume",), 1, 2),
    own_part_is_missing: (("runs/parts/record.py:require_at_hand",), 1, 2),
    best_of_none: (("runs/trained/kept_generators.py:_best",), 1, 2),
    stopped_after_a_phase: (("runs/loop.py:_finish", "cli/train.py:train"), 4, 0),
    stopped_by_a_signal: (("runs/loop.py:_finish",), 1, 128 + signal.SIGTERM),
    pictures_gone: (("runs/loop.py:_save_alone",), 1, 2),
    diverged_at_once: (("runs/divergence.py:advice",), 1, 1),
    diverged_later: (("runs/divergence.py:advice",), 2, 1),
}


def making_commands(patch: pytest.MonkeyPatch) -> set[str]:
    """Return which functions make commands from now on."""
    made = set()

    def noting(*words_: object) -> str:
        code = sys._getframe(1).f_code
        made.add(f"{Path(code.co_filename).relative_to(SOURCE).as_posix()}:{code.co_name}")
        return command(*words_)

    modules = [site.split(".py:")[0].replace("/", ".") for site in command_sites()]
    for module in map(importlib.import_module, [f"progan.{name}" for name in modules]):
        if hasattr(module, "command"):  # else its functions import it
            patch.setattr(module, "command", noting)
    patch.setattr(errors, "command", noting)
    return made


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.__name__)
def test_a_command_works_in_the_situation_that_printed_it(
    place: Place, situation: Callable[[Place], tuple[int, str]]
) -> None:
    sites, count, expected = SITUATIONS[situation]
    making = making_commands(place.patch)
    code, text = situation(place)
    assert code == expected, text
    assert making >= set(sites)
    commands = said_commands(text)
    assert len(commands) == count, text
    place.patch.setattr(measure, "USUAL", 40)
    kept = place.folder.with_name(f"kept of {place.folder.name}")
    shutil.copytree(place.folder, kept, symlinks=True)
    for said in commands:
        shutil.rmtree(place.folder)  # each of them from there
        shutil.copytree(kept, place.folder, symlinks=True)
        place.patch.chdir(place.folder)
        again, answer = place.give(*shell_words(said))
        assert again == 0, f"{said}\n{answer}"
    shutil.rmtree(kept)


def test_a_run_that_is_over_by_a_batch_of_the_level_before_is_complete(place: Place) -> None:
    """Its last batch has more images than those of the level at which the schedule ends."""
    place.train(schedule={"total_kimg": 0.05})
    code, text = place.give("train", "--resume", place.run)
    assert code == 0, text
    assert "is complete at 64 images" in text


def test_pictures_of_a_run_are_not_said_to_be_split_anew(place: Place) -> None:
    place.train()
    code, text = place.give("train", "--resume", place.run, "--monitor.duality-gap")
    assert code == 2
    assert "leave monitor.duality_gap out, or begin a new run" in text
    assert "--data.split" not in text


# What the source says


def texts(path: Path) -> Iterator[tuple[int, list[str | ast.expr]]]:
    """Yield the texts of a module that may be shown: line, and parts, which are text or what is put in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                [
                    part.value if isinstance(part, ast.FormattedValue) else str(getattr(part, "value", ""))
                    for part in node.values
                ],
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner | silent
        ):
            yield node.lineno, [node.value]


MODULES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(app.name[0]), *(name for name in app if not name.startswith("-"))]


def option_names() -> set[str]:
    """Return the options of all commands."""
    found: set[str] = {name for name in app if name.startswith("--")}
    for name in NAMES[1:]:
        for each in [app[name], *(app[name][inner] for inner in app[name] if not inner.startswith("-"))]:
            if each.default_command is not None:
                found |= {str(n) for argument in each.assemble_argument_collection() for n in argument.names}
    return found


def command_sites() -> set[str]:
    """Return the functions that call `errors.command`, as module:function."""
    found = set()

    def look(node: ast.AST, name: str, function: str) -> None:
        for inner in ast.iter_child_nodes(node):
            if (
                isinstance(inner, ast.Call)
                and isinstance(inner.func, ast.Name)
                and inner.func.id == "command"
            ):
                found.add(f"{name}:{function}")
            look(inner, name, inner.name if isinstance(inner, ast.FunctionDef) else function)

    for path in MODULES:
        look(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(SOURCE).as_posix(), "")
    return found


def test_a_command_that_is_made_of_values_is_quoted_and_tried() -> None:
    tried = {site for sites, _, _ in SITUATIONS.values() for site in sites}
    for path in MODULES:
        name = path.relative_to(SOURCE).as_posix()
        for line, parts in texts(path):
            whole = "".join(p if isinstance(p, str) else f"\0{ast.unparse(p)}\0" for p in parts)
            for found in re.finditer(rf"\bprogan (?:{'|'.join(NAMES[1:])})\b[^`;,.\n\0]*\0([^\0]*)\0", whole):
                assert found[1].isupper(), f"{name}:{line}: {found[0]!r}: make it with errors.command"
    assert command_sites() == tried | ELSEWHERE


def test_what_messages_name_is_there() -> None:
    known = option_names()
    named = 0
    for path in MODULES:
        for line, parts in texts(path):
            whole = "".join(part if isinstance(part, str) else "X" for part in parts)
            where = f"{path.relative_to(SOURCE)}:{line}: {whole!r}"
            if " " not in whole:  # a word of a command of others
                continue
            for subcommand in re.findall(r"`progan ([a-z]+)|\bprogan ([a-z]+) (?=--|[A-Z]{2})", whole):
                named += 1
                assert max(subcommand) in NAMES, where
            for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", whole):
                named += 1
                assert option in known or option in OTHERS, where
    assert named > 50


ELSEWHERE = {
    "report/html_page.py:_ending",  # a list of what one may do with a run
    "cli/export.py:push",  # test_publish.py::test_there_and_back gives it, to a stand-in of the hub
    "runs/trained/model_card.py:_usage",  # the same
    "runs/trained/publish.py:_write_page",  # test_publish.py::test_the_page_and_the_film_of_a_run gives it
    "runs/callbacks/webhook.py:end",  # the command of an interrupted run, which is tried above
    "runs/loop.py:_tell_last",  # the command of a run that lacks memory; system_faults.py gives it
}
"""Functions whose commands are quoted, but not run here."""
OWN_PART = """
import progan

class Darker(progan.Augmentation):
    draws = 1

    def __call__(self, images, applied, draws):
        return images * 0.9
"""
OTHERS = {"--nproc-per-node", "--max-restarts", "--include", "--local-dir", "--directory"}
"""Options of torchrun, hf and http.server."""


@pytest.mark.parametrize(
    "words_",
    [
        "progan prepare PICTURES DESTINATION --split 0.6,0.2,0.2",
        "progan evaluate RUN --metrics duality_gap --device cpu",
    ],
)
def test_commands_with_names_to_fill_in(place: Place, words_: str) -> None:
    """What is in capitals the reader has to know; the rest is as in the messages of the duality gap."""
    synthetic_folder(place.folder / "drawn", 0)
    tree = options(
        data={"split": "0.6,0.2,0.2"},
        schedule={"batch_size": [4], "total_kimg": 0.02},
        monitor={"gap_steps": 1},
    )
    place.give("train", place.folder / "drawn", "--out", place.run, *words(tree))
    fill = {"PICTURES": place.folder / "drawn", "DESTINATION": place.folder / "x", "RUN": place.run}
    code, text = place.give(*(fill.get(word, word) for word in words_.split()[1:]))
    assert code == 0, text


def synthetic_folder(folder: Path, seed: int) -> Path:
    """Draw 24 pictures of 16x16 into a folder."""
    from PIL import Image

    folder.mkdir()
    pixels = torch.randint(0, 256, (24, 16, 16, 3), dtype=torch.uint8, generator=torch.manual_seed(seed))
    for i, each in enumerate(pixels.numpy()):
        Image.fromarray(each).save(folder / f"{i:02d}.png")
    return folder


def test_what_is_said_is_found_as_a_reader_finds_it() -> None:
    text = "stopped; to go on: progan train --resume 'my run', or `progan info a;b`; progan generate x."
    assert said_commands(text) == ["progan train --resume 'my run'", "progan info a", "progan generate x"]
