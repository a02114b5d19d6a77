"""Analyses: functions of a collection that read its rows and call an estimator."""
