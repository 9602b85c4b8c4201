"""Write the run of the version at hand into a folder."""

import sys
from pathlib import Path

from tests.released import main

main(Path(sys.argv[1]))
