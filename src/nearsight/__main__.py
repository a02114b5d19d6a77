"""`python -m nearsight` is `nearsight`."""

from nearsight.apps.cli import main

main()
