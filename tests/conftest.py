"""What every test shares: the Hypothesis profiles. Helpers live in `support`."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a busy machine must not fail a property. CI draws the same examples each time, a developer new ones.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
