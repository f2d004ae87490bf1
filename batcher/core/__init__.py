"""Decide what is read, written and committed: no thread, no lock, no clock and no input or output."""
