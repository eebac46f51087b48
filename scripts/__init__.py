"""Commands for developers, run from the root of the checkout: `python -m scripts.demo`, `python -m scripts.setup.host`.

Some drive a real ComfyUI server with the same helpers as the tests, so tests/support is put on the path.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "support"))
