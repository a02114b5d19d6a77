"""Pages of the jobs, one module each; `nearsight.apps.gallery` has what they are built of."""
