"""How much of a fault suite runs, and where its figures go.

The quick form runs with all tests; `TRAINBOOK_FAULTS=full` runs the whole. With
`TRAINBOOK_RELIABILITY_DIR` set, each suite leaves its figures there.
"""

import json
import os
from pathlib import Path
from typing import Any

FULL = os.environ.get("TRAINBOOK_FAULTS", "quick") == "full"


def n(quick: int, full: int) -> int:
    """The number of trials of this form."""
    return full if FULL else quick


def record(
    promise: str, claim: str, figures: dict[str, Any], *, command: str, seed: int, seconds: float
) -> None:
    """Leave the figures of a suite that held, where a folder for them is named."""
    folder = os.environ.get("TRAINBOOK_RELIABILITY_DIR")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {
        "promise": promise,
        "claim": claim,
        "figures": figures,
        "command": command,
        "seed": seed,
        "seconds": round(seconds, 1),
        "form": "full" if FULL else "quick",
    }
    path = Path(folder) / f"{promise}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
