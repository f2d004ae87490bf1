"""Show that the tests of the core have teeth: plant a fault in a copy of the package, and one of them has to fail.

Most are found by the state machine of `test_no_record_lost.py`; what only costs memory or time by the unit tests beside
it. Run it by hand after changing the core: `python tests/property/seeded_faults.py [PART OF A NAME]`. Exit code 1 says
that some survived.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    Path(__file__).with_name("test_no_record_lost.py"),
    ROOT / "tests/unit/test_buffer.py",
    ROOT / "tests/unit/test_consumer.py",
]


class Fault(NamedTuple):
    name: str
    file: str
    old: str
    new: str


FAULTS = [
    Fault(
        "commit one further", "ledger.py", "partition: Position(next_offset)", "partition: Position(next_offset + 1)"
    ),
    Fault("next offset is the last offset", "records.py", "return self.last_offset + 1", "return self.last_offset"),
    Fault(
        "commit what is being written",
        "exchange.py",
        "            receipt = self._ledger.begin(batch)\n",
        "            receipt = self._ledger.begin(batch)\n"
        "            self._ledger.finish(receipt)\n"
        "            self._mailbox.append(receipt)\n"
        "            self._uncommitted += 1\n",
    ),
    Fault(
        "forget half of a bisection",
        "delivery.py",
        "for half in _halves(block):",
        "for half in list(_halves(block))[:1]:",
    ),
    Fault(
        "forget the rest of a refused block", "delivery.py", "            if rest is not None:", "            if False:"
    ),
    Fault("do not send the letters", "delivery.py", "self._dead_letters.send(letters)", "pass"),
    Fault(
        "swallow a failed queue",
        "delivery.py",
        "            self._dead_letters.send(letters)",
        "            import contextlib\n"
        "            with contextlib.suppress(Exception):\n"
        "                self._dead_letters.send(letters)",
    ),
    Fault(
        "letters of the wrong row",
        "delivery.py",
        "position=block.positions[rejection.position].as_py())",
        "position=rejection.position)",
    ),
    Fault(
        "coordinates of the wrong row",
        "delivery.py",
        "column if whole else column.take(decoded.positions)",
        "column.slice(0, len(decoded.positions))",
    ),
    Fault(
        "keep the buffer on revoke and loss",
        "exchange.py",
        "            dropped = self._buffer.forget(partitions)\n            self._ledger.forget(partitions)",
        "            dropped = 0\n            self._ledger.forget(partitions)",
    ),
    Fault("keep the account on loss", "exchange.py", "            self._ledger.forget(partitions)", "            pass"),
    Fault("ignore the epoch", "ledger.py", " and account.epoch == receipt.epochs[partition]", ""),
    Fault(
        "drop what a cut leaves behind",
        "buffer.py",
        "                self.arrivals.appendleft((run.slice(head), arrived))\n",
        "",
    ),
    Fault(
        "stop without the rest", "exchange.py", "batch = self._buffer.take_rest(self._drain_trigger)", "batch = None"
    ),
    Fault(
        "drained while a commit is open",
        "exchange.py",
        "not self._flights and not self._uncommitted and",
        "not self._flights and",
    ),
    Fault("never pause", "buffer.py", "return self.nbytes >= self.memory_bytes", "return False"),
    Fault("never resume", "buffer.py", "return self.nbytes <= self.memory_bytes * RESUME_SHARE", "return False"),
    Fault("never release memory", "buffer.py", "self._taken_bytes -= batch.nbytes", "pass"),
    Fault(
        "batches in another order",
        "exchange.py",
        "self._flights[0] if self._flights[0].decoded",
        "self._flights[-1] if self._flights[-1].decoded",
    ),
    Fault(
        "write what changed hands",
        "exchange.py",
        "                if self._ledger.due(flight.receipt):",
        "                if True:",
    ),
    Fault("a refused commit counts as made", "consumer.py", "                self._exchange.forget(refused)\n", ""),
]


def killed(fault: Fault) -> bool:
    """Run the test against a copy of the package with the fault planted and tell whether it failed."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "batcher", Path(scratch) / "batcher")
        shutil.copytree(ROOT / "sinks", Path(scratch) / "sinks")
        file = Path(scratch) / "batcher" / fault.file
        source = file.read_text()
        if fault.old not in source:
            sys.exit(f"fault {fault.name!r}: {fault.file} no longer contains {fault.old!r}; bring the list up to date")
        file.write_text(source.replace(fault.old, fault.new))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            *map(str, TESTS),
        ]
        environment = {**os.environ, "PYTHONPATH": scratch, "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/examples"}
        try:
            done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, check=False, timeout=120)
        except subprocess.TimeoutExpired:
            return True  # it hangs: somebody would notice
        return done.returncode != 0


def main() -> int:
    """Plant every fault in turn."""
    survivors = []
    for fault in (fault for fault in FAULTS if not sys.argv[1:] or sys.argv[1] in fault.name):
        dead = killed(fault)
        print(f"{'killed' if dead else 'SURVIVED':10}{fault.name}", flush=True)  # noqa: T201  # the result of the script
        if not dead:
            survivors.append(fault.name)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
