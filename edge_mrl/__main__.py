"""``python -m edge_mrl``: the command line, where its script is not on the path."""

from __future__ import annotations

import sys

from edge_mrl.cli import main

sys.exit(main())
