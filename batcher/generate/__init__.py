"""Made-up events, and sending them at a rate."""
