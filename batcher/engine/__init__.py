"""The threads of a pipeline, what they share, and the waits between them."""
