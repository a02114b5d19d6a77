"""Runtimes: what runs a network, and on which device."""
