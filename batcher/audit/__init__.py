"""Prove, by offsets, that what was read from a log is in the target or a dead letter; and repair what is not.

    log ──────────── offsets, nulls ─┐
    target ───────── offsets, copies ┼─► examine, a window at a time ─► missing, duplicates ─► repair
    dead letters ─── offsets ────────┘

Offsets are in columns from end to end: no Python object for a record, and no more memory than one window takes.
"""
