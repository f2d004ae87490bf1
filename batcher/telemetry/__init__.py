"""What a pipeline says about itself: logs, metrics, status, and all of it over HTTP."""
