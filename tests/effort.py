"""The factor for the number of random test cases: TEST_EFFORT (`make e2e-faults`: 48)."""

import os

EFFORT = int(os.environ.get("TEST_EFFORT", "1"))
