"""A notebook as a file: its JSON, its cells, its magics, and how it is replaced."""
