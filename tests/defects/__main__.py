"""Print the table of seeded defects: seen or missed, at which cell; and false alarms.

Run: python -m tests.defects
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.defects.check import check_all


def main() -> int:
    """Check every case, print one line for each class, and name what is missed."""
    with tempfile.TemporaryDirectory() as folder:
        results = check_all(Path(folder))
    table = defaultdict(list)
    for result in results:
        table[result.case.codes != frozenset(), result.case.kind].append(result)
    for is_defect in (True, False):
        print("Seeded defects" if is_defect else "\nThings that only look like one")
        print(f"  {'class':<62}{'cases':>6}{'right':>7}")
        for (kind_is_defect, kind), members in table.items():
            if kind_is_defect == is_defect:
                print(f"  {kind:<62}{len(members):>6}{sum(r.is_right for r in members):>7}")
        some = [r for r in results if bool(r.case.codes) == is_defect]
        print(f"  {'all':<62}{len(some):>6}{sum(r.is_right for r in some):>7}")
    wrong = [result for result in results if not result.is_right]
    for result in wrong:
        print(f"\nWRONG {result.case.kind}: {result.case.name}\n  {result.why()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
