"""Where things lie: the checkout, its golden fixtures, and the real recordings beside it, if they
are there.
"""

import pathlib

TESTS = pathlib.Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
SUPPORT = TESTS / "support"
SHARED = ROOT.parent / "shared"
RECORDINGS = SHARED / "audio"
