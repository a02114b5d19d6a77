"""Pages of the jobs, one module each; `nearsight.reports.gallery` has what they are built of."""
