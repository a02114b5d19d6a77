"""Whether two images show the same thing."""
