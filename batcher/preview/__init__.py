"""What is in a topic, before anything is loaded: some of its records, their fields, and the table they need."""
