"""SQL as a transform: `--transform.select` and `--transform.where`, evaluated by DuckDB, the extra `[sql]`."""
