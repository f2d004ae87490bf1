"""Measure the pipeline on the user's own records and target, by stages and as a whole, and say what limits it.

figures.py      what was measured, as values
verdict.py      which stage limits it and what to change
report.py       both for people and for programs
readers.py      sources, and passes that only read
passes.py      passes through decoder, sink and pipeline
interrupts.py   Ctrl-C meanwhile
"""
