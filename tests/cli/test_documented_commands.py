"""Every command in the documentation is one, with options that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from cyclopts import MissingArgumentError

from documented import documented_commands, pages
from said_commands import app


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_commands_on_a_page_can_be_read(page: Path) -> None:
    for words in documented_commands(page):
        if "--help" in words or "--plugin" in words:  # own parts: where their file is, in another test
            continue
        try:
            app.parse_args(words, print_error=False, exit_on_error=False)
        except MissingArgumentError:
            continue  # what is named in a sentence lacks its arguments
        except Exception as error:  # whatever is wrong is told with the command
            pytest.fail(f"{page.name}: progan {' '.join(words)}\n{error}")


def test_there_are_many() -> None:
    """The search finds what it is for."""
    found = [words for page in pages() for words in documented_commands(page)]
    assert len(found) > 100
    assert {"train", "generate", "evaluate", "explore", "bench"} <= {words[0] for words in found if words}
