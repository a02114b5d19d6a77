"""The demo: index images, search them, and write an HTML report."""
