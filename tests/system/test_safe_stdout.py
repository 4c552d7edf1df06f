"""What a stream of output does that cannot show everything, or anything."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progan.system.safe_stdout import PatientStream, patient_output

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too


@given(
    text=ANY_TEXT, encoding=st.sampled_from(["ascii", "cp1252", "latin-1", "utf-8", "koi8-r", "shift_jis"])
)
def test_any_text_is_written_in_any_encoding(text: str, encoding: str) -> None:
    bytes_ = io.BytesIO()
    stream = PatientStream(io.TextIOWrapper(bytes_, encoding=encoding, newline="\n"))
    assert stream.write(text) == len(text)
    stream.flush()
    expected = text.encode(encoding, "backslashreplace")
    assert bytes_.getvalue() == expected
    assert stream.failure is None


def test_characters_that_the_encoding_has_are_as_they_are() -> None:
    bytes_ = io.BytesIO()
    stream = PatientStream(io.TextIOWrapper(bytes_, encoding="cp1252"))
    stream.write("café фото \udce9")
    stream.flush()
    assert bytes_.getvalue() == "café ".encode("cp1252") + rb"\u0444\u043e\u0442\u043e \udce9"


def test_a_full_disk_is_noted_once_and_nothing_fails_later() -> None:
    with Path("/dev/full").open("w") as full:
        stream = PatientStream(full)
        stream.write("x")
        stream.flush()
        assert isinstance(stream.failure, OSError)
        assert stream.failure.errno == errno.ENOSPC
        stream.write("y" * 100_000)
        stream.flush()


def test_a_closed_pipe_is_noted() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        stream = PatientStream(pipe)
        stream.write("x" * 100_000)
        stream.flush()
        assert isinstance(stream.failure, BrokenPipeError)


def test_a_process_without_output_writes_to_nowhere() -> None:
    stream = PatientStream(None)
    assert stream.write("x") == 1
    stream.flush()
    assert not stream.isatty()
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()


def test_the_streams_of_the_process_are_given_back() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ValueError, match="x"), patient_output() as output:  # noqa: PT012
        assert sys.stdout is output
        print("x", file=sys.stderr)
        raise ValueError("x")
    assert (sys.stdout, sys.stderr) == before
