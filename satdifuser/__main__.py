"""`python -m satdifuser`, which is also how torchrun and accelerate launch it."""

import sys

from satdifuser.cli import main

if __name__ == "__main__":
    sys.exit(main())
