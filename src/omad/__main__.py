"""`python -m omad`."""

import sys

from omad.cli import main

sys.exit(main())
