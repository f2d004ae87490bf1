"""Export to OpenTelemetry what the pipeline counts, and a span for each batch. Nothing here is loaded unless asked for.

variables.py    what the usual environment variables ask for; loads nothing of OpenTelemetry
exporter.py     the life of an export: made when the pipeline begins, flushed within a bound at its end
spans.py        batches as spans, from events
series.py       the registry of `metrics.py` as the metrics of OpenTelemetry
sdk_log.py      what OpenTelemetry's own loggers say, now and then
"""
