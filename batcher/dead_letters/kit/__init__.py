"""The work on stored dead letters: read, select, send again, remove."""
