"""HTML reports, one module for each command that writes one; `gallery` and `html` are shared."""
