"""The rivals, one a file: each is run with `python -m benchmarks.compare.NAME` by the Python of its own environment.

A file may import what its framework brings, `benchmarks.harness`, `benchmarks.orders`, `turn` and `files`; nothing of
batcher, which is not installed there. `-m` and not the path of the file: beside `arroyo.py`, `import arroyo` would
find the file.
"""
