"""What comes in: one file for each source, each gives `raw.*` tables and appends to them only.

A format of request logs is a file with a `FORMAT`; any other source is a file with `TABLES` and
`land()`.
What people decide (`decisions.py`) lands by itself, when they decide it.
"""
