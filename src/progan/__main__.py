"""`python -m progan` is the command line."""

from progan.cli.app import main

main()
