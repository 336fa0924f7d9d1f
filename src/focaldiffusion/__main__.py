"""`python -m focaldiffusion`: the command line."""

import sys

from focaldiffusion.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
