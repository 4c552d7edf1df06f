"""How long `import progan` and `progan --help` take, in new processes: the median of five.

python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import progan": [sys.executable, "-c", "import progan"],
    "import progan; progan.Generator": [sys.executable, "-c", "import progan; progan.Generator"],
    "progan --help": [sys.executable, "-m", "progan", "--help"],
}


def main() -> None:
    for name, command in COMMANDS.items():
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
        print(f"{name:<34}{statistics.median(seconds):6.2f} s")


if __name__ == "__main__":
    main()
