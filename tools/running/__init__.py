"""How a notebook is run and judged: parameters, kernel, limits, verdict, output."""
