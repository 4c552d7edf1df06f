"""`python -m progan` is the command line."""

from progan.cli import main

main()
