"""Fixtures for all tests."""

pytest_plugins = ["batcher.testing.pytest_plugin", "batcher.testing.clickhouse_plugin"]
