"""Formats: raw bytes into columns."""
