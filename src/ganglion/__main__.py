"""`python -m ganglion` is the command line."""

from ganglion.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
