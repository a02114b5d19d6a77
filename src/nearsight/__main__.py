"""`python -m nearsight` is `nearsight`."""

from nearsight.cli.main import main

main()
