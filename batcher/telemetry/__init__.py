"""What a pipeline reports about itself: logs, metrics, status, and all of it over HTTP."""
