"""What it costs: one question a file. Run one with `python -m benchmarks.bench_NAME`."""

from batcher.cli.support.tuning import spare_threads

# As the command line does, before a module of this package loads numpy.
spare_threads()
