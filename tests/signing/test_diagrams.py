"""The page of state diagrams is what the tables say."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_the_page_of_state_diagrams_is_what_the_tables_say() -> None:
    made = subprocess.run([sys.executable, "tools/diagrams.py"], cwd=_ROOT, capture_output=True, check=True, timeout=60)
    assert (_ROOT / "docs/states.md").read_bytes() == made.stdout, "run `make diagrams`"
