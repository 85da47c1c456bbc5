"""`python -m pmt` is `pmt`."""

import sys

from pmt.cli import main

if __name__ == "__main__":
    sys.exit(main())
