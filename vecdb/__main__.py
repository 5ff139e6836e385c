"""`python -m vecdb`: the same as the `vecdb` command."""

import sys

from vecdb.cli import main

if __name__ == "__main__":
    sys.exit(main())
