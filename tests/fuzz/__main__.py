"""The long form: `make fuzz`, or `python -m fuzz` in the folder of the tests."""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from fuzz.campaign import Result, run_alone
from fuzz.runs import all_readers

MAX_GROWTH = 3 * 2**30
"""The largest allowed picture takes a quarter of a GiB in RGB, and as much for each conversion."""


def report(name: str, result: Result) -> bool:
    """Print a line about a reader, and what it did wrong; tell whether it did nothing wrong."""
    print(
        f"{name:18} {result.inputs:9,} inputs {result.refused:9,} refused {result.seconds:7.0f} s"
        f" {result.slowest:6.2f} s slowest {result.grown / 2**20:6.0f} MiB more"
        f" {len(result.findings)} findings",
        flush=True,
    )
    for where, (number, what) in result.findings.items():
        print(f"  input {number}: {where}\n{what}", flush=True)
    if result.grown > MAX_GROWTH:
        print(f"  took more than {MAX_GROWTH / 2**30:.0f} GiB")
    return not result.findings and result.grown <= MAX_GROWTH


def main() -> None:
    """Read the command line and run the campaigns; exits with 1 if something was found."""
    with tempfile.TemporaryDirectory() as folder:
        names = list(all_readers(Path(folder)))
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--reader", choices=names, action="append", help="default: all of them")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    chosen = given.reader or names
    with ProcessPoolExecutor(given.processes, max_tasks_per_child=1) as pool:
        futures = {pool.submit(run_alone, name, given.inputs, given.first): name for name in chosen}
        good = [report(futures[future], future.result()) for future in as_completed(futures)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
