"""What only this project's tests need: attacks, oracles, made-up documents, scores."""
