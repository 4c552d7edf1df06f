"""Commands in messages are taken by a shell as they are meant, whatever is in a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from progan.errors import command, option_words, printable
from said_commands import shell_words

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=40)
@given(names=st.lists(NAMES, min_size=1, max_size=20))
def test_a_shell_finds_the_words_that_were_meant(names: list[str]) -> None:
    text = command("train", *names)
    assert printable(text) == text
    assert "\n" not in text
    assert shell_words(text) == ["train", *names]


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"caf\xe9"), "a\x1b[31m'b\\", "x\ny\t", "фото", "$HOME;`ls`", "~"]
)
def test_names_that_a_terminal_or_a_shell_takes_for_something_else(name: str) -> None:
    assert shell_words(command("info", name)) == ["info", name]


def test_a_path_is_never_taken_for_an_option() -> None:
    assert command("info", Path("-x")) == "progan info ./-x"


def test_options_are_written_as_the_command_line_takes_them() -> None:
    options = {"schedule.batch_size": [16, 8], "data.mirror": True, "augment.adaptive": False, "x": "a b"}
    words = option_words(options)
    assert words == [
        "--schedule.batch-size",
        "16",
        "8",
        "--data.mirror",
        "--augment.no-adaptive",
        "--x",
        "a b",
    ]


@pytest.mark.parametrize("value", [None, [], [[1]], {"a": 1}])
def test_what_cannot_be_written_is_not(value: object) -> None:
    assert option_words({"a.b": value}) is None
