"""Odd notebooks, made to break the tools."""
