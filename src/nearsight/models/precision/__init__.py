"""Lower precision, and how near its vectors stay to the exact ones."""
