"""`python -m theodolite`."""

import sys

from theodolite.cli import main

if __name__ == "__main__":
    sys.exit(main())
