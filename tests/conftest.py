"""One thread for every test, a cache of its own, and patience where the machine is busy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from progan.api import training
from progan.data.packed import PackedSet
from progan.preparation.builtin_sets import synthetic
from progan.runs import run
from progan.runs.reporter import Reporter

settings.register_profile("progan", deadline=None, max_examples=60)
settings.load_profile("progan")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and busy cores make them wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built-in sets are cached for the session only, never in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def unheard_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that name no reporter tell nobody, and measure nothing to tell it."""
    monkeypatch.setattr(run, "LineReporter", Reporter)
    monkeypatch.setattr(training, "LineReporter", Reporter)


@pytest.fixture(scope="session", name="blobs")
def small_labelled_set(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    """48 labelled pictures of 16x16: levels 0, 1 and 2."""
    return synthetic(tmp_path_factory.mktemp("sets") / "blobs", count=48, resolution=16, labelled=True)


pytest_plugins = ["measured_commands"]
