"""Tests, and in harness what they are made with."""
