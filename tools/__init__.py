"""Keep notebooks sound and run them; what is particular to a project is in `[tool.notebooks]`."""
