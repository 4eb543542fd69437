"""What every test shares: the Hypothesis profiles. Helpers live in `support`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile

from hypothesis import settings

# No deadline: a busy machine must not fail a property. CI draws the same examples each time, a developer new ones.
_KEPT = {} if os.access(".", os.W_OK) else {"database": None}  # examples that failed, for the next time
settings.register_profile("dev", deadline=None, **_KEPT)
settings.register_profile("ci", deadline=None, derandomize=True, **_KEPT)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A shell that starts this in the background has it ignore Ctrl-C, and every process that the tests start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The path of a Unix socket has 107 bytes at most, and pytest's own folders below this one take their share.
if sys.platform != "win32" and len(tempfile.gettempdir()) > 20:
    os.environ["TMPDIR"], tempfile.tempdir = "/tmp", None
