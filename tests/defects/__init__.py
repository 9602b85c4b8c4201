"""Seeded defects of notebooks, and things that only look like one."""
