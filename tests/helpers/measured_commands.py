"""The commands that measure, in this process, and an extractor for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from progan.__main__ import main


class Pool(nn.Module):
    """Features of a kind: the mean colours of four quarters, as probabilities."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(nn.functional.adaptive_avg_pool2d(images, 2).flatten(1), 1)


@pytest.fixture(scope="module", name="pool")
def extractor_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("extractor") / "pool.pt"
    program = torch.export.export(
        Pool().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(program, path)
    return path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command: its exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def done(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must succeed; returns what it printed."""
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    return out


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail by the user's mistake; returns the one message."""
    code, _, err = call(capsys, *arguments)
    assert code == 2, err
    assert err.count("error: ") == 1
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def rows(out: str) -> dict[str, list[str]]:
    """Return the rows of a printed table by their first word."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
