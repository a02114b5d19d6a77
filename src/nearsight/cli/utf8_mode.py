"""Python's UTF-8 mode, for machines whose locale is not UTF-8: cron jobs, containers, services."""

import os
import sys


def enter() -> None:
    """Start the command line anew in Python's UTF-8 mode (PEP 540), unless it uses UTF-8 already.

    In the locale ``C``, Python takes file names for ASCII. Names and labels with other characters could
    then be neither printed nor written to a file, and a collection would hold another name for the same file
    than in a UTF-8 locale. Returns only where nothing needs to change.
    """
    # Windows always has UTF-8 names, and there exec would return to the shell before the command ends.
    if sys.getfilesystemencoding().lower() == "utf-8" or os.name == "nt" or not sys.executable:
        return
    # Not the environment variable: -E and -I ignore it, and the process would start itself for ever.
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
