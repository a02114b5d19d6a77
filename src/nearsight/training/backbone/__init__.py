"""Trains the layers of a network, not only the map behind it; everything here needs PyTorch."""
