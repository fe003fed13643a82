"""`python -m tensorquay …`."""

import sys

from tensorquay.cli import main

if __name__ == "__main__":
    sys.exit(main())
