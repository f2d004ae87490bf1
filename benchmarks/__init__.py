"""What it costs: one question a file. Run one with `python -m benchmarks.bench_NAME`."""
