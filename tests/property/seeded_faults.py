"""Show that the tests of the core have teeth: plant a fault in a copy of the package, and one of them has to fail.

The unit tests are asked first because they answer in seconds, then the state machines; `--machines` asks only these.
Run it by hand after changing the core: `python tests/property/seeded_faults.py [--machines] [PART OF A NAME]`. It says
which test found each fault. Exit code 1 says that some survived.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
UNITS = [ROOT / "tests/unit/core", ROOT / "tests/unit/engine"]
MACHINES = [Path(__file__).with_name(f"test_{name}.py") for name in ("exactly_once", "no_record_lost")]


class Fault(NamedTuple):
    name: str
    symbol: str
    """The class, method or function that has it, `Class.method`: a module may move and take it along."""
    old: str
    new: str


AT_LEAST_ONCE = [
    Fault("commit one further", "Ledger.wanted", "Position(acc.durable, self", "Position(acc.durable + 1, self"),
    Fault(
        "next offset is the last offset",
        "Records.next_offset",
        "return self.last_offset + 1",
        "return self.last_offset",
    ),
    Fault("a range ends before its last offset", "Range.next_offset", "return self.last + 1", "return self.last"),
    Fault(
        "commit what is being written",
        "Exchange._seal",
        "self._flights.add([self._ledger.begin(batch) for batch in batches], now)",
        "self._flights.add(begun := [self._ledger.begin(batch) for batch in batches], now)\n"
        "            [self._ledger.finish(receipt) for receipt in begun]",
    ),
    Fault(
        "forget half of a bisection",
        "BlockWriter._halved",
        "for half in halves_of(batch, block):",
        "for half in list(halves_of(batch, block))[:1]:",
    ),
    Fault(
        "forget the rest of a refused block",
        "BlockWriter._write",
        "            if rest is not None:\n                yield from self._write(batch, rest, search)\n",
        "",
    ),
    Fault(
        "do not send the letters", "Delivery._delivered", "writer.attempted(self._dead_letters.send, letters)", "pass"
    ),
    Fault(
        "swallow a failed queue",
        "Delivery._delivered",
        "            writer.attempted(self._dead_letters.send, letters)",
        "            import contextlib\n"
        "            with contextlib.suppress(Exception):\n"
        "                self._dead_letters.send(letters)",
    ),
    Fault(
        "letters of the wrong row",
        "BlockWriter._write",
        "position=block.positions[rejection.position].as_py())",
        "position=rejection.position)",
    ),
    Fault(
        "coordinates of the wrong row",
        "block_of",
        "column if whole else column.take(decoded.positions)",
        "column.slice(0, len(decoded.positions))",
    ),
    Fault(
        "keep the buffer on revoke and loss",
        "Exchange.forget",
        "            dropped = self._buffer.forget(partitions)\n            self._ledger.forget(partitions)",
        "            dropped = 0\n            self._ledger.forget(partitions)",
    ),
    Fault(
        "keep the account on loss",
        "Exchange.forget",
        "            self._ledger.forget(partitions)",
        "            pass",
    ),
    Fault("ignore the epoch", "Ledger.unchanged", " and account.epoch == epoch", ""),
    Fault(
        "drop what a cut leaves behind",
        "_Lane.cut",
        "                self.arrivals.appendleft((run.slice(head), arrived))\n",
        "",
    ),
    Fault(
        "stop without the rest",
        "Exchange._seal",
        "batches = self._buffer.take_rest(self._drain_trigger, now)",
        "self._buffer.clear()",
    ),
    Fault(
        "drained while a commit is open",
        "Exchange.drained",
        "self._unsettled or self._commit_due or not self",
        "not self",
    ),
    Fault("never pause", "Buffer.full", "return self.nbytes >= self.memory_bytes", "return False"),
    Fault("never resume", "Buffer.roomy", "return self.nbytes <= self.memory_bytes * RESUME_SHARE", "return False"),
    Fault("never release memory", "Buffer.release", "self._taken_bytes -= batch.nbytes", "pass"),
    Fault("batches in another order", "Flights.first", "return self._queue[0] if", "return self._queue[-1] if"),
    Fault(
        "write what changed hands",
        "Exchange.head",
        "                if self._ledger.ours(flight.receipt):",
        "                if True:",
    ),
    Fault(
        "a commit without an answer counts as made",
        "Consumer.commit",
        "            self._keep_asking(positions, error)\n            return",
        "            pass",
    ),
    Fault(
        "a commit without an answer is not sent again",
        "Exchange.unconfirmed",
        "            self._committing = False\n            self._commit_due = True",
        "            self._committing = False",
    ),
    Fault("a refused commit counts as made", "Consumer.commit", "            self._exchange.forget(refused)\n", ""),
    Fault(
        "commits may go back",
        "Ledger.commit",
        "if not account.stored.next_offset <= position.next_offset <= account.durable:",
        "if False:",
    ),
]

EXACTLY_ONCE = [
    Fault(
        "a commit without an answer is repeated word for word",
        "Exchange.unconfirmed",
        "            if self._ledger.announces:\n                self._ledger.renew",
        "            if False:\n                self._ledger.renew",
    ),
    Fault(
        "write before the intent is stored",
        "Ledger.announced",
        "return not self.announces or all(\n            span.next_offset",
        "return True or all(\n            span.next_offset",
    ),
    Fault(
        "forget the next intent at a final commit",
        "Ledger.wanted",
        "Position(acc.durable, self._note(acc))",
        "Position(acc.durable, self._note(acc) if acc.durable == acc.stored.next_offset else '')",
    ),
    Fault(
        "take all claims for announced once one commit was made",
        "Ledger.commit",
        "account.announced = claims[-1].range.next_offset if claims else position.next_offset",
        "account.announced = account.sealed",
    ),
    Fault(
        "announce where a range begins",
        "_rendered",
        "ranges = [[claim.range.last,",
        "ranges = [[claim.range.first,",
    ),
    Fault("announce more than a note holds", "Ledger._note", "account.pending[:MAX_CLAIMS]", "account.pending"),
    Fault(
        "ignore a note on assignment",
        "Ledger.assign",
        "claims = [] if self._ignores_intents else _announced(partition, position)",
        "claims = []",
    ),
    Fault(
        "take a partition with a note nobody understands",
        "Ledger.assign",
        "                refused[partition] = str(error)\n                continue",
        "                claims = []",
    ),
    Fault(
        "keep expired ranges",
        "_announced",
        "if claim.range.last >= position.next_offset]",
        "if True]",
    ),
    Fault(
        "cut a replay by policy",
        "Buffer._take_replays",
        "replay.lane.cut_through(replay.ends[0])",
        "replay.lane.cut(self.policy.max_rows, self.policy.max_bytes)",
    ),
    Fault(
        "take a range for complete once a record of it is there",
        "_Replay.complete",
        "return max(self.reached, newest) > self.ends[0]",
        "return max(self.reached, newest) > self.ends[0] or bool(self.lane.arrivals)",
    ),
    Fault(
        "take a range for complete one record early",
        "_Replay.complete",
        "return max(self.reached, newest) > self.ends[0]",
        "return max(self.reached, newest) >= self.ends[0]",
    ),
    Fault(
        "do not step over a range that vanished",
        "Exchange._seal",
        "            self._ledger.skip(partition, last)\n",
        "",
    ),
    Fault(
        "stop reading in the middle of a replay",
        "Consumer._balance",
        'needed = self._exchange.replaying if self._exchange.phase == "running" else frozenset()',
        "needed = frozenset()",
    ),
    Fault(
        "stop at the bound on records in the middle of a replay",
        "Consumer.step",
        "(self._left == 0 and not replaying)",
        "self._left == 0",
    ),
    Fault(
        "do not ask what is there",
        "BlockWriter.may_be_there",
        "        if batch.replayed and self._info.verifies_replays:\n            return True\n",
        "",
    ),
    Fault("do not ask what is under way", "BlockWriter._missing", "if isinstance(sink, Interruptible):", "if False:"),
    Fault(
        "write also what is there",
        "BlockWriter._missing",
        "pc.indices_nonzero(pc.invert(mask))",
        "pc.indices_nonzero(pc.is_valid(mask))",
    ),
    Fault(
        "do not look after a repeat",
        "BlockWriter._write",
        "if not last and self._info.verifies_replays and",
        "if False and",
    ),
    Fault(
        "write all of a batch again that was partly written when the columns changed",
        "BlockWriter._write",
        "if whole and self._tries == 1:",
        "if True:",
    ),
    Fault(
        "write what was decoded for other columns",
        "Delivery.write.attempt",
        "if not self.decoding.current(latest):",
        "if False:",
    ),
    Fault("do not ask whether a batch is ours", "BlockWriter.attempted.attempt", "if not self.held():", "if False:"),
    Fault(
        "claim from the first record",
        "Ledger._claim",
        "return Claim(Range(run.partition, account.sealed, span.last), first_ms)",
        "return Claim(span, first_ms)",
    ),
    Fault(
        "replay from the first record",
        "Ledger._claim",
        "        return claim\n",
        "        return claim._replace(range=span)\n",
    ),
    Fault("a token without the topic's age", "token", "-{span.last}|{first_ms}", "-{span.last}"),
    Fault(
        "replay a topic that was made anew",
        "Ledger._claim",
        "if span.first == claim.range.first and claim.first_ms not in (None, first_ms):",
        "if False:",
    ),
    Fault(
        "accept an old lease",
        "Exchange._vouched",
        "self._ledger.vouched(ours, self._clock() - LEASE_S)",
        "self._ledger.vouched(ours, -1e9)",
    ),
    Fault(
        "count a lease from the answer",
        "Consumer.commit",
        "not in refused}, began)",
        "not in refused}, self._clock())",
    ),
    Fault(
        "a commit vouches for every partition",
        "Ledger.commit",
        "            account.vouched_at = sent_at\n",
        "            for every in self._accounts.values():\n                every.vouched_at = sent_at\n",
    ),
    Fault(
        "take a predecessor's note for our own",
        "Ledger.assign",
        "found=found, cleared=not self._checks",
        "found=found, cleared=not self._checks, announced=sealed, vouched_at=math.inf",
    ),
    Fault(
        "write notes that are all alike",
        "Ledger._note",
        'f"{self._writer}-{account.epoch}-{account.renewals}"',
        '"w"',
    ),
    Fault(
        "write the same note in every ownership",
        "Ledger._note",
        "{self._writer}-{account.epoch}-",
        "{self._writer}-",
    ),
    Fault(
        "hand back what is not ours",
        "Exchange.hand_back",
        "            ours = self._ledger.ours(receipt)\n            self._flights.split",
        "            ours = frozenset(receipt.epochs)\n            self._flights.split",
    ),
    Fault(
        "hand back as if nobody had written it",
        "Exchange.hand_back",
        "self._kept(flight, ours, receipt, replayed=True)",
        "self._kept(flight, ours, receipt, replayed=False)",
    ),
    Fault(
        "write on with a part of a batch that changed hands",
        "Exchange.wait_held",
        "if not ours or (self._ledger.announces and len(ours) < len(receipt.epochs)):",
        "if not ours:",
    ),
    Fault(
        "take back a range that a predecessor announced",
        "Ledger.cancel",
        "in ours and not receipt.batch.replayed:",
        "in ours:",
    ),
    Fault(
        "drop at a revoke what is being written",
        "Exchange._drop_unwritten.divide",
        'if flight.stage == "writing" or partitions.isdisjoint',
        "if partitions.isdisjoint",
    ),
    Fault(
        "leave what was dropped announced",
        "Exchange._drop_unwritten.divide",
        "            self._ledger.cancel(flight.receipt, partitions)\n",
        "",
    ),
    Fault(
        "write without intents what an intent announced otherwise",
        "Ledger._note",
        "claims = [claim for claim in claims if claim.range.next_offset <= account.found]",
        "claims = []",
    ),
    Fault("announce before the target was looked at", "Ledger.assign", "cleared=not self._checks", "cleared=True"),
    Fault(
        "look at the target from the committed offset",
        "Ledger.uncleared",
        "max(account.found, account.stored.next_offset)",
        "account.stored.next_offset",
    ),
    Fault(
        "blame us for what another owner wrote",
        "Flusher._check_newcomers",
        "{partition: found[partition] for partition in ours}",
        "found",
    ),
    Fault(
        "parts under the token of the whole",
        "_derived",
        'token=f"{block.token}|{_digest(batch, positions)}"',
        "token=block.token",
    ),
    Fault(
        "leave holes between claims",
        "_Account.settle",
        "        self.done.add(claim)\n",
        "        return self.pending.remove(claim)\n",
    ),
    Fault("a name for the write of each part", "write_id", '_PARTS.sub("", token)', "token"),
    Fault("leave a replay paused", "Consumer._balance", "            self._source.resume(again)\n", ""),
    Fault(
        "take the answer to an earlier commit",
        "Ledger._note",
        "if not claims and account.vouched_at >= account.asked_at:",
        "if not claims and account.vouched_at > 0 or not claims and account.asked_at < 0:",
    ),
    Fault(
        "parts named by positions",
        "_digest",
        "offsets = pa.concat_arrays([run.offsets for run in batch.runs])",
        "offsets = pa.array(range(batch.rows), pa.int64())",
    ),
]

FAILED = re.compile(r"^FAILED \S*?([^/ ]+::\S+)", re.MULTILINE)


def place_of(symbol: str, package: Path) -> tuple[Path, int, int]:
    """Return the file that has a symbol, and where it begins and ends there, in characters."""
    places = [
        (file, node)
        for file in sorted(package.rglob("*.py"))
        for name, node in symbols_of(ast.parse(file.read_text()))
        if name == symbol
    ]
    if len(places) != 1:
        sys.exit(f"{symbol} is in {len(places)} places; bring the list of faults up to date")
    [(file, node)] = places
    lines = file.read_text().splitlines(keepends=True)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    return file, sum(map(len, lines[:first])), sum(map(len, lines[: node.end_lineno]))


def symbols_of(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Yield every class and function below a node with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield prefix + node.name, node
            yield from symbols_of(node, f"{prefix}{node.name}.")
        else:
            yield from symbols_of(node, prefix)


def plant(fault: Fault, package: Path) -> None:
    """Put a fault into a copy of the package."""
    file, start, end = place_of(fault.symbol, package)
    source = file.read_text()
    if fault.old not in source[start:end]:
        sys.exit(f"fault {fault.name!r}: {fault.symbol} no longer has {fault.old!r}; bring the list up to date")
    file.write_text(source[:start] + source[start:end].replace(fault.old, fault.new) + source[end:])


def found_by(fault: Fault, tests: list[Path]) -> str:
    """Run tests against a copy of the package with the fault planted and return the first that failed."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "batcher", Path(scratch) / "batcher")
        shutil.copytree(ROOT / "sinks", Path(scratch) / "sinks")
        plant(fault, Path(scratch) / "batcher")
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
        command = [sys.executable, "-m", "pytest", *options, *map(str, tests)]
        environment = {
            **os.environ,
            "PYTHONPATH": scratch,
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/examples",
            "BATCHER_TEST_NO_SHRINK": "1",
        }
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, check=False, timeout=240
            )
        except subprocess.TimeoutExpired:
            return "hangs: somebody would notice"
        if done.returncode == 0:
            return ""
        failed = FAILED.search(done.stdout)
        return failed[1] if failed else "does not run"


def main() -> int:
    """Plant every fault in turn."""
    arguments = sys.argv[1:]
    stages = [MACHINES] if "--machines" in arguments else [UNITS, MACHINES]
    wanted = [part for part in arguments if part != "--machines"]
    survivors = 0
    for fault in (fault for fault in AT_LEAST_ONCE + EXACTLY_ONCE if not wanted or wanted[0] in fault.name):
        finder = ""
        for tests in stages:
            finder = finder or found_by(fault, tests)
        survivors += not finder
        print(f"{'killed' if finder else 'SURVIVED':10}{fault.name:60}{finder}", flush=True)  # noqa: T201  # the result
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
