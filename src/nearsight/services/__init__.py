"""Rules that the command line, the demo and the server share: functions without a user interface."""
