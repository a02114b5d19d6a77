"""Doors to the house: the command line and what it shows."""
