"""Queues that hand a message to one reader at a time, and forget it when that reader acknowledges it."""
