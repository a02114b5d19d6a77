"""The figures of the README, measured again: each script prints ratios of one run."""
