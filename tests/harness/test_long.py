"""What only the long form runs is said by the short one."""

from __future__ import annotations

from tests.harness.processes import ROOT, run

LONG_TEST = "tests/integration/test_benchmarks.py::test_the_memory_benchmark_runs"


def test_a_test_that_only_the_long_form_has_is_skipped_with_the_reason_and_starts_nothing() -> None:
    done = run("-q", "-n0", "-p", "no:cacheprovider", "--setup-show", LONG_TEST, module="pytest", directory=ROOT)

    assert done.code == 0, done.stdout
    assert "SKIPPED [1] tests/integration/test_benchmarks.py" in done.stdout
    assert "long: make test-long" in done.stdout
    # The broker would be started for it.
    assert " broker" not in done.stdout
