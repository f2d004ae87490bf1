"""Show that the tests of the core have teeth: plant a fault in a copy of the package, and one of them has to fail.

The unit tests are asked first because they answer in seconds, then the state machines; `--machines` asks only these.
Run it by hand after changing the core: `python tests/property/seeded_faults.py [--machines] [PART OF A NAME]`. It says
which test found each fault. Exit code 1 says that some survived.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
UNITS = [
    ROOT / f"tests/unit/test_{name}.py"
    for name in (
        "buffer",
        "intents",
        "ledger",
        "flights",
        "exchange",
        "delivery",
        "delivery_changes",
        "consumer",
        "pipeline",
    )
]
MACHINES = [Path(__file__).with_name(f"test_{name}.py") for name in ("exactly_once", "no_record_lost")]


class Fault(NamedTuple):
    name: str
    file: str
    old: str
    new: str


AT_LEAST_ONCE = [
    Fault("commit one further", "core/offsets.py", "Position(acc.durable, self", "Position(acc.durable + 1, self"),
    Fault("next offset is the last offset", "records.py", "return self.last_offset + 1", "return self.last_offset"),
    Fault("a range ends before its last offset", "records.py", "return self.last + 1", "return self.last"),
    Fault(
        "commit what is being written",
        "engine/shared.py",
        "self._flights.add([self._ledger.begin(batch) for batch in batches], now)",
        "self._flights.add(begun := [self._ledger.begin(batch) for batch in batches], now)\n"
        "            [self._ledger.finish(receipt) for receipt in begun]",
    ),
    Fault(
        "forget half of a bisection",
        "engine/block_writer.py",
        "for half in halves_of(batch, block):",
        "for half in list(halves_of(batch, block))[:1]:",
    ),
    Fault(
        "forget the rest of a refused block",
        "engine/block_writer.py",
        "            if rest is not None:\n                yield from self._write(batch, rest, search)\n",
        "",
    ),
    Fault("do not send the letters", "engine/writer.py", "writer.attempted(self._dead_letters.send, letters)", "pass"),
    Fault(
        "swallow a failed queue",
        "engine/writer.py",
        "            writer.attempted(self._dead_letters.send, letters)",
        "            import contextlib\n"
        "            with contextlib.suppress(Exception):\n"
        "                self._dead_letters.send(letters)",
    ),
    Fault(
        "letters of the wrong row",
        "engine/block_writer.py",
        "position=block.positions[rejection.position].as_py())",
        "position=rejection.position)",
    ),
    Fault(
        "coordinates of the wrong row",
        "engine/blocks.py",
        "column if whole else column.take(decoded.positions)",
        "column.slice(0, len(decoded.positions))",
    ),
    Fault(
        "keep the buffer on revoke and loss",
        "engine/shared.py",
        "            dropped = self._buffer.forget(partitions)\n            self._ledger.forget(partitions)",
        "            dropped = 0\n            self._ledger.forget(partitions)",
    ),
    Fault(
        "keep the account on loss",
        "engine/shared.py",
        "            self._ledger.forget(partitions)",
        "            pass",
    ),
    Fault("ignore the epoch", "core/offsets.py", " and account.epoch == epoch", ""),
    Fault(
        "drop what a cut leaves behind",
        "core/buffer.py",
        "                self.arrivals.appendleft((run.slice(head), arrived))\n",
        "",
    ),
    Fault(
        "stop without the rest",
        "engine/shared.py",
        "batches = self._buffer.take_rest(self._drain_trigger, now)",
        "self._buffer.clear()",
    ),
    Fault(
        "drained while a commit is open",
        "engine/shared.py",
        "self._unsettled or self._commit_due or not self",
        "not self",
    ),
    Fault("never pause", "core/buffer.py", "return self.nbytes >= self.memory_bytes", "return False"),
    Fault("never resume", "core/buffer.py", "return self.nbytes <= self.memory_bytes * RESUME_SHARE", "return False"),
    Fault("never release memory", "core/buffer.py", "self._taken_bytes -= batch.nbytes", "pass"),
    Fault("batches in another order", "core/in_flight.py", "return self._queue[0] if", "return self._queue[-1] if"),
    Fault(
        "write what changed hands",
        "engine/shared.py",
        "                if self._ledger.ours(flight.receipt):",
        "                if True:",
    ),
    Fault(
        "a commit without an answer counts as made",
        "engine/fetch_loop.py",
        "            self._keep_asking(positions, error)\n            return",
        "            pass",
    ),
    Fault(
        "a commit without an answer is not sent again",
        "engine/shared.py",
        "            self._committing = False\n            self._commit_due = True",
        "            self._committing = False",
    ),
    Fault(
        "a refused commit counts as made", "engine/fetch_loop.py", "            self._exchange.forget(refused)\n", ""
    ),
    Fault(
        "commits may go back",
        "core/offsets.py",
        "if not account.stored.next_offset <= position.next_offset <= account.durable:",
        "if False:",
    ),
]

EXACTLY_ONCE = [
    Fault(
        "a commit without an answer is repeated word for word",
        "engine/shared.py",
        "            if self._ledger.announces:\n                self._ledger.renew",
        "            if False:\n                self._ledger.renew",
    ),
    Fault(
        "write before the intent is stored",
        "core/offsets.py",
        "return not self.announces or all(\n            span.next_offset",
        "return True or all(\n            span.next_offset",
    ),
    Fault(
        "forget the next intent at a final commit",
        "core/offsets.py",
        "Position(acc.durable, self._note(acc))",
        "Position(acc.durable, self._note(acc) if acc.durable == acc.stored.next_offset else '')",
    ),
    Fault(
        "take all claims for announced once one commit was made",
        "core/offsets.py",
        "account.announced = claims[-1].range.next_offset if claims else position.next_offset",
        "account.announced = account.sealed",
    ),
    Fault(
        "announce where a range begins",
        "core/intents.py",
        "ranges = [[claim.range.last,",
        "ranges = [[claim.range.first,",
    ),
    Fault("announce more than a note holds", "core/offsets.py", "account.pending[:MAX_CLAIMS]", "account.pending"),
    Fault(
        "ignore a note on assignment",
        "core/offsets.py",
        "claims = [] if self._ignores_intents else _announced(partition, position)",
        "claims = []",
    ),
    Fault(
        "take a partition with a note nobody understands",
        "core/offsets.py",
        "                refused[partition] = str(error)\n                continue",
        "                claims = []",
    ),
    Fault(
        "keep expired ranges",
        "core/offsets.py",
        "if claim.range.last >= position.next_offset]",
        "if True]",
    ),
    Fault(
        "cut a replay by policy",
        "core/buffer.py",
        "replay.lane.cut_through(replay.ends[0])",
        "replay.lane.cut(self.policy.max_rows, self.policy.max_bytes)",
    ),
    Fault(
        "take a range for complete once a record of it is there",
        "core/buffer.py",
        "return max(self.reached, newest) > self.ends[0]",
        "return max(self.reached, newest) > self.ends[0] or bool(self.lane.arrivals)",
    ),
    Fault(
        "take a range for complete one record early",
        "core/buffer.py",
        "return max(self.reached, newest) > self.ends[0]",
        "return max(self.reached, newest) >= self.ends[0]",
    ),
    Fault(
        "do not step over a range that vanished",
        "engine/shared.py",
        "            self._ledger.skip(partition, last)\n",
        "",
    ),
    Fault(
        "stop reading in the middle of a replay",
        "engine/fetch_loop.py",
        'needed = self._exchange.replaying if self._exchange.phase == "running" else frozenset()',
        "needed = frozenset()",
    ),
    Fault(
        "stop at the bound on records in the middle of a replay",
        "engine/fetch_loop.py",
        "(self._left == 0 and not replaying)",
        "self._left == 0",
    ),
    Fault(
        "do not ask what is there",
        "engine/block_writer.py",
        "        if batch.replayed and self._info.verifies_replays:\n            return True\n",
        "",
    ),
    Fault("do not ask what is under way", "engine/block_writer.py", "if isinstance(sink, Interruptible):", "if False:"),
    Fault(
        "write also what is there",
        "engine/block_writer.py",
        "pc.indices_nonzero(pc.invert(mask))",
        "pc.indices_nonzero(pc.is_valid(mask))",
    ),
    Fault(
        "do not look after a repeat",
        "engine/block_writer.py",
        "if not last and self._info.verifies_replays and",
        "if False and",
    ),
    Fault(
        "write all of a batch again that was partly written when the columns changed",
        "engine/block_writer.py",
        "if whole and self._tries == 1:",
        "if True:",
    ),
    Fault(
        "write what was decoded for other columns",
        "engine/writer.py",
        "if not self.decoding.current(latest):",
        "if False:",
    ),
    Fault("do not ask whether a batch is ours", "engine/block_writer.py", "if not self.held():", "if False:"),
    Fault(
        "claim from the first record",
        "core/offsets.py",
        "return Claim(Range(run.partition, account.sealed, span.last), first_ms)",
        "return Claim(span, first_ms)",
    ),
    Fault(
        "replay from the first record",
        "core/offsets.py",
        "        return claim\n",
        "        return claim._replace(range=span)\n",
    ),
    Fault("a token without the topic's age", "core/offsets.py", "-{span.last}|{first_ms}", "-{span.last}"),
    Fault(
        "replay a topic that was made anew",
        "core/offsets.py",
        "if span.first == claim.range.first and claim.first_ms not in (None, first_ms):",
        "if False:",
    ),
    Fault(
        "accept an old lease",
        "engine/shared.py",
        "self._ledger.vouched(ours, self._clock() - LEASE_S)",
        "self._ledger.vouched(ours, -1e9)",
    ),
    Fault(
        "count a lease from the answer",
        "engine/fetch_loop.py",
        "not in refused}, began)",
        "not in refused}, self._clock())",
    ),
    Fault(
        "a commit vouches for every partition",
        "core/offsets.py",
        "            account.vouched_at = sent_at\n",
        "            for every in self._accounts.values():\n                every.vouched_at = sent_at\n",
    ),
    Fault(
        "take a predecessor's note for our own",
        "core/offsets.py",
        "found=found, cleared=not self._checks",
        "found=found, cleared=not self._checks, announced=sealed, vouched_at=math.inf",
    ),
    Fault(
        "write notes that are all alike",
        "core/offsets.py",
        'f"{self._writer}-{account.epoch}-{account.renewals}"',
        '"w"',
    ),
    Fault(
        "write the same note in every ownership",
        "core/offsets.py",
        "{self._writer}-{account.epoch}-",
        "{self._writer}-",
    ),
    Fault(
        "hand back what is not ours",
        "engine/shared.py",
        "            ours = self._ledger.ours(receipt)\n            self._flights.split",
        "            ours = frozenset(receipt.epochs)\n            self._flights.split",
    ),
    Fault(
        "hand back as if nobody had written it",
        "engine/shared.py",
        "self._kept(flight, ours, receipt, replayed=True)",
        "self._kept(flight, ours, receipt, replayed=False)",
    ),
    Fault(
        "write on with a part of a batch that changed hands",
        "engine/shared.py",
        "if not ours or (self._ledger.announces and len(ours) < len(receipt.epochs)):",
        "if not ours:",
    ),
    Fault(
        "take back a range that a predecessor announced",
        "core/offsets.py",
        "in ours and not receipt.batch.replayed:",
        "in ours:",
    ),
    Fault(
        "drop at a revoke what is being written",
        "engine/shared.py",
        'if flight.stage == "writing" or partitions.isdisjoint',
        "if partitions.isdisjoint",
    ),
    Fault(
        "leave what was dropped announced",
        "engine/shared.py",
        "            self._ledger.cancel(flight.receipt, partitions)\n",
        "",
    ),
    Fault(
        "write without intents what an intent announced otherwise",
        "core/offsets.py",
        "claims = [claim for claim in claims if claim.range.next_offset <= account.found]",
        "claims = []",
    ),
    Fault("announce before the target was looked at", "core/offsets.py", "cleared=not self._checks", "cleared=True"),
    Fault(
        "look at the target from the committed offset",
        "core/offsets.py",
        "max(account.found, account.stored.next_offset)",
        "account.stored.next_offset",
    ),
    Fault(
        "blame us for what another owner wrote",
        "engine/write_loop.py",
        "{partition: found[partition] for partition in ours}",
        "found",
    ),
    Fault(
        "parts under the token of the whole",
        "engine/blocks.py",
        'token=f"{block.token}|{_digest(batch, positions)}"',
        "token=block.token",
    ),
    Fault(
        "leave holes between claims",
        "core/offsets.py",
        "        self.done.add(claim)\n",
        "        return self.pending.remove(claim)\n",
    ),
    Fault("a name for the write of each part", "records.py", '_PARTS.sub("", token)', "token"),
    Fault("leave a replay paused", "engine/fetch_loop.py", "            self._source.resume(again)\n", ""),
    Fault(
        "take the answer to an earlier commit",
        "core/offsets.py",
        "if not claims and account.vouched_at >= account.asked_at:",
        "if not claims and account.vouched_at > 0 or not claims and account.asked_at < 0:",
    ),
    Fault(
        "parts named by positions",
        "engine/blocks.py",
        "offsets = pa.concat_arrays([run.offsets for run in batch.runs])",
        "offsets = pa.array(range(batch.rows), pa.int64())",
    ),
]

FAILED = re.compile(r"^FAILED \S*?([^/ ]+::\S+)", re.MULTILINE)


def found_by(fault: Fault, tests: list[Path]) -> str:
    """Run tests against a copy of the package with the fault planted and return the first that failed."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "batcher", Path(scratch) / "batcher")
        shutil.copytree(ROOT / "sinks", Path(scratch) / "sinks")
        file = Path(scratch) / "batcher" / fault.file
        source = file.read_text()
        if fault.old not in source:
            sys.exit(f"fault {fault.name!r}: {fault.file} no longer contains {fault.old!r}; bring the list up to date")
        file.write_text(source.replace(fault.old, fault.new))
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
