"""Targets that batcher writes to."""
