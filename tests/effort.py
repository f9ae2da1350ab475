"""How much the tests of random cases try: TEST_EFFORT multiplies it (`make e2e-faults`: 24)."""

import os

EFFORT = int(os.environ.get("TEST_EFFORT", "1"))
