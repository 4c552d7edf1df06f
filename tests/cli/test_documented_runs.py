"""What the pages for beginners give is carried out on a tiny set: each command, loop and line, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from documented import ROOT, Block, blocks
from tiny import environment, options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # some fifty processes, on whatever machine

PAGES = ["README.md", "docs/index.md", "docs/own-pictures.md", "docs/sweep.md"]
NOT_HERE = re.compile(
    r"^(python3 -m venv|\S*pip install|source |make )"  # this is installed
    r"|torchrun|--devices|--live|\bimport published|\bbench\b|fid|kid|--neighbours|\bpush\b"
)
"""Commands that need other machines, files of others, or the Inception network; another test reads them."""
SHIM = """#!{python}
import sys
from progan.__main__ import main
words = sys.argv[1:]
def give(option, *values):
    if option in words:
        del words[words.index(option) : words.index(option) + 1 + len(values)]
    words.extend([option, *values])
if words[0] == "train" and not {{"--time", "--dry-run"}} & set(words):
    give("--config", {config!r})
    if not {{"--out", "--resume", "--recipe"}} & set(words):
        give("--out", "runs/photos-paper-light-128")  # the name without --config
    if "--kimg" in words:
        del words[words.index("--kimg") : words.index("--kimg") + 2]
elif words[0] == "train":
    give("--dry-run")
elif words[0] == "generate":
    give("--n", "6")
elif words[0] in ("evaluate", "compare"):
    give("--num-images", "8")
elif words[0] == "project":
    give("--num-steps", "10")
elif words[0] == "explore":
    give("--out", "page")
elif words[0] == "interpolate":
    give("--seconds", "0.2")
main(words)
"""
"""A `progan` that does less of the same: fewer images and steps."""


@pytest.fixture(name="place")
def place_of_a_beginner(tmp_path: Path) -> Path:
    """A folder with photos/ in two classes, photo.png, samples/, and a `progan` that is quick."""
    dice = np.random.default_rng(0)
    for i in range(24):
        for folder in (f"photos/{('cat', 'dog')[i % 2]}", "samples"):
            path = tmp_path / folder / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(dice.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    Image.fromarray(dice.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    tiny = options(
        data={"resolution": 16, "limit": 64, "labels": "folders"}, monitor={"metrics": []},
        model={"generator": {"latent_size": 8}},
        schedule={"batch_size": 8, "stabilise_kimg": [0.016], "fade_kimg": [0.016]},
    )  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    shim = tmp_path / "bin" / "progan"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable, config=str(tmp_path / "tiny.yaml")))
    shim.chmod(0o755)
    return tmp_path


def carry_out(block: Block, place: Path) -> None:
    """Carry out a block; for commands of the page that go unsaid, `RUN` is a run."""
    if block.language == "python":
        smaller = "{**yaml.safe_load(open('tiny.yaml')), 'data': {'resolution': 16}}"  # no labels
        lines = block.text.replace('{"schedule": {"batch_size": [32, 16]}}', smaller)
        words = [sys.executable, "-c", f"import yaml\n{lines}"]
    else:
        kept = [line for line in block.text.splitlines() if not NOT_HERE.search(line)]
        words = ["bash", "-euc", "\n".join(kept)]
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=place, env=environment() | {"PATH": path, "XDG_CACHE_HOME": str(place / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.page}:\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(page: str, place: Path) -> None:
    found = [each for each in blocks(ROOT / page) if each.language in ("console", "python")]
    assert found
    carry_out(Block(page, "console", "progan train photos/ --out RUN > /dev/null"), place)
    for block in found:
        carry_out(block, place)
