"""``python -m minigrad.cli`` is ``minigrad``."""

import sys

from minigrad.cli import main

sys.exit(main())
