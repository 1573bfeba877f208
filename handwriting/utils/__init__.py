"""Errors, files, hardware and metrics: what every other folder may use."""
