"""The demonstration: real images in, one report worth looking at out."""
