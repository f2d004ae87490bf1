"""What is done with dead letters afterwards: read, select, send again, remove."""
