"""Filters on rows: parsed from text, checked, and given to an engine as a tree."""
