"""Show that the tests of the core have teeth: plant a fault in a copy of the package, and one of them has to fail.

The unit tests are asked first because they answer in seconds, then the state machines; `--machines` asks only these.
Run it by hand after changing the core: `python tests/property/seeded_faults.py [--machines] [PART OF A NAME]`. It says
which test found each fault. Exit code 1 says that some survived, or that the tests did not run with them: then the list
has to be brought up to date. `test_seeded_faults.py` sees with every run that each fault still has its place.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = [ROOT / "tests/unit/core", ROOT / "tests/unit/engine", ROOT / "tests/unit/sources/receipts"]
MACHINES = [Path(__file__).with_name(f"test_{name}.py") for name in ("exactly_once", "no_record_lost", "receipts")]


class Fault(NamedTuple):
    name: str
    symbol: str
    """The class, method or function that has it, `Class.method`: a module may move and take it along."""
    old: str
    new: str


AT_LEAST_ONCE = [
    Fault("commit one further", "Offsets._position", "Position(account.durable)", "Position(account.durable + 1)"),
    Fault(
        "next offset is the last offset",
        "Records.next_offset",
        "return self.last_offset + 1",
        "return self.last_offset",
    ),
    Fault("a range ends before its last offset", "Range.next_offset", "return self.last + 1", "return self.last"),
    Fault(
        "commit what is being written",
        "PipelineState._seal",
        "self._in_flight.add([self._offsets.begin(batch) for batch in batches], now)",
        "self._in_flight.add(begun := [self._offsets.begin(batch) for batch in batches], now)\n"
        "            [self._offsets.finish(one) for one in begun]",
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
        "do not send the letters",
        "Writer._delivered",
        "self._blocks.attempted(held, self._send, letters)",
        "pass",
    ),
    Fault(
        "swallow a failed queue",
        "Writer._delivered",
        "            self._blocks.attempted(held, self._send, letters)",
        "            import contextlib\n"
        "            with contextlib.suppress(Exception):\n"
        "                self._dead_letters.send(letters)",
    ),
    Fault(
        "letters of the wrong row",
        "_letters_of",
        "position=block.positions[rejection.position].as_py())",
        "position=rejection.position)",
    ),
    Fault(
        "forget the rows that a sink refused in an outcome",
        "BlockWriter._written_in_part",
        "yield from self._refuse(_letters_of(batch, block, outcome.rejected), search)",
        "yield from ()",
    ),
    Fault(
        "take rows that a sink deferred for written",
        "BlockWriter._write_deferred",
        "            yield from self._write(batch, part, search)\n",
        "            yield from ()\n",
    ),
    Fault(
        "offer a block again of which a part was written",
        "BlockWriter._written_in_part",
        "deferred_of(batch, block, rows)",
        "block",
    ),
    Fault(
        "coordinates of the wrong row",
        "block_of",
        "column if whole else column.take(decoded.positions)",
        "column.slice(0, len(decoded.positions))",
    ),
    Fault(
        "keep the buffer on revoke and loss",
        "PipelineState.forget",
        "        dropped = self._buffer.forget(partitions)\n        self._offsets.forget(partitions)",
        "        dropped = 0\n        self._offsets.forget(partitions)",
    ),
    Fault(
        "keep the account on loss",
        "PipelineState.forget",
        "        self._offsets.forget(partitions)",
        "        pass",
    ),
    Fault("ignore the epoch", "Offsets.unchanged", " and account.epoch == epoch", ""),
    Fault(
        "make room with what is small",
        "Buffer._largest",
        "heapq.nlargest",
        "heapq.nsmallest",
    ),
    Fault(
        "drop what a cut leaves behind",
        "_Lane.cut",
        "                self.arrivals.appendleft((run.slice(head), arrived))\n",
        "",
    ),
    Fault(
        "stop without the rest",
        "PipelineState._seal",
        "batches = self._buffer.take_rest(self._drain_trigger, now, waiting)",
        "self._buffer.clear()",
    ),
    Fault(
        "drained while a commit is open",
        "PipelineState.drained",
        "self._unsettled or self._commit_due or not self",
        "not self",
    ),
    Fault(
        "never pause",
        "Buffer.above_high_watermark",
        "return self.nbytes >= self.memory_bytes",
        "return False",
    ),
    Fault(
        "never resume",
        "Buffer.below_low_watermark",
        "return self.nbytes <= self.memory_bytes * RESUME_SHARE",
        "return False",
    ),
    Fault("never release memory", "Buffer.release", "self._taken_bytes -= batch.nbytes", "pass"),
    Fault("batches in another order", "InFlightQueue.add", "self._queue.append(one)", "self._queue.appendleft(one)"),
    Fault("join runs in another order", "by_partition", "for partition in sorted(groups)]", "for partition in groups]"),
    Fault(
        "a joined batch keeps the order of arrival",
        "Batch.joined",
        "return replace(self, runs=merged(self.runs))",
        "return self if len(self.runs) == len(self.intents) else replace(self, runs=merged(self.runs))",
    ),
    Fault(
        "write what changed hands",
        "PipelineState.next_write",
        "            if self._offsets.ours(one):",
        "            if True:",
    ),
    Fault(
        "a commit without an answer counts as made",
        "FetchLoop._commit",
        "            self._keep_asking(positions, error)\n            return",
        "            pass",
    ),
    Fault(
        "a commit without an answer is not sent again",
        "PipelineState.unconfirmed",
        "        self._committing = False\n        self._commit_due = True",
        "        self._committing = False",
    ),
    Fault(
        "a refused commit counts as made",
        "Dispatcher.committed",
        "                    state.forget(lost)\n",
        "                    pass\n",
    ),
    Fault(
        "a target that fails stays in the way of the end",
        "FetchLoop._follow_targets",
        "offering(self._source).ignore(failed.keys())",
        "failed.keys()",
    ),
    Fault(
        "a failed target is left before its last commit",
        "Dispatcher.to_ignore",
        "if reason is None or not one.drained():",
        "if reason is None:",
    ),
    Fault(
        "partitions without a target are not offered again",
        "Dispatcher.to_offer",
        "if not isinstance(self._state_of(topic), str) for part in mine]",
        "if False for part in mine]",
    ),
    Fault(
        "a state that has nothing to commit is not told of the end",
        "Dispatcher.fetched",
        "        for one in self._states:",
        "        for one in mine:",
    ),
    Fault(
        "a target that comes during a drain goes on for ever",
        "Dispatcher.add",
        "            if self._end is not None:\n                self._end(shared)\n",
        "",
    ),
    Fault(
        "commits may go back",
        "Offsets.commit",
        "if not account.stored.next_offset <= position.next_offset <= account.durable:",
        "if False:",
    ),
]
RECEIPTS = [
    Fault("acknowledge what is not durable", "ReceiptSource.commit", "offset >= position.next_offset", "False"),
    Fault("acknowledge one further", "ReceiptSource.commit", "offset >= position", "offset > position"),
    Fault(
        "forget what was not acknowledged",
        "ReceiptSource.commit",
        '            self._lost(self._gateway.acknowledge(list(done.values()), timeout_s), "acknowledged")\n'
        "            for offset in done:\n"
        "                self._held.pop(offset, None)\n",
        "            for offset in done:\n"
        "                self._held.pop(offset, None)\n"
        '            self._lost(self._gateway.acknowledge(list(done.values()), timeout_s), "acknowledged")\n',
    ),
    Fault(
        "acknowledge what was given back",
        "ReceiptSource.release",
        "self._held.pop(offset, None)",
        "self._held.get(offset)",
    ),
    Fault("no heartbeat", "ReceiptSource.fetch", "        self.extend_leases()\n", ""),
    Fault("keep what is held at the end", "ReceiptSource._release_all", "self._gateway.release(held)", "pass"),
    Fault(
        "give back after the commit",
        "FetchLoop.step",
        "        self._release(plan.release)\n        self._commit(plan.commit)\n",
        "        self._commit(plan.commit)\n        self._release(plan.release)\n",
    ),
    Fault(
        "forget what is to be given back",
        "PipelineState.finished",
        "self._releases[partition] = {**self._releases.get(partition, {}), **some}",
        "pass",
    ),
    Fault(
        "give back what a later batch gives back only",
        "PipelineState.finished",
        "{**self._releases.get(partition, {}), **some}",
        "some",
    ),
    Fault(
        "give back by positions",
        "_by_offset",
        "[offset] = delay_s",
        "[position] = delay_s",
    ),
    Fault("a stop keeps what is to be given back", "PipelineState.drained", "or self._releases ", ""),
    Fault(
        "do not ask for the names of messages",
        "Reconciler.recognises",
        "self._messages is not None and",
        "False and",
    ),
    Fault(
        "write a message twice that is in a batch twice", "Reconciler.unseen", "pc.or_(there, _repeated(ids))", "there"
    ),
    Fault(
        "take messages without a name for repeats",
        "_repeated",
        "pc.and_(ids.is_valid(), ",
        "pc.and_(pc.invert(pc.equal(1, 2)), ",
    ),
    Fault(
        "numbers begin anew",
        "ReceiptSource.__init__",
        "(now_ms() << 20) + secrets.randbits(20)",
        "0",
    ),
]

EXACTLY_ONCE = [
    Fault(
        "a commit without an answer is repeated word for word",
        "PipelineState.unconfirmed",
        "        if self._offsets.announces:\n            self._offsets.ask_for_lease",
        "        if False:\n            self._offsets.ask_for_lease",
    ),
    Fault(
        "write before the intent is stored",
        "Offsets.announced",
        "return not self.announces or all(\n            span.next_offset",
        "return True or all(\n            span.next_offset",
    ),
    Fault(
        "forget the next intent at a final commit",
        "Offsets._position",
        "return Position(account.durable, tuple(intents), mark)",
        "return Position(account.durable, *((tuple(intents), mark) if account.durable == account.stored.next_offset "
        "else ()))",
    ),
    Fault(
        "take all intents for announced once one commit was made",
        "Offsets.commit",
        "account.announced = position.intents[-1].range.next_offset if position.intents else position.next_offset",
        "account.announced = account.sealed",
    ),
    Fault(
        "announce where a range begins",
        "Offsets._position",
        "return Position(account.durable, tuple(intents), mark)",
        "return Position(account.durable, tuple(intents[:-1]) + tuple(\n"
        "            one._replace(range=one.range._replace(last=one.range.first)) for one in intents[-1:]\n"
        "        ), mark)",
    ),
    Fault(
        "announce more than a commit holds",
        "Offsets._position",
        "account.pending[:MAX_INTENTS]",
        "account.pending[:]",
    ),
    Fault(
        "ignore intents on assignment",
        "Offsets.assign",
        "intents = [] if self._ignores_intents else [one for one in position.intents if one.range.last >= start]",
        "intents = []",
    ),
    Fault(
        "take a partition whose intents cannot be understood",
        "Offsets.assign",
        'reason = "" if self._ignores_intents else _unusable(position)',
        'reason = ""',
    ),
    Fault(
        "keep expired ranges",
        "Offsets.assign",
        "for one in position.intents if one.range.last >= start]",
        "for one in position.intents]",
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
        "PipelineState._seal",
        "            self._offsets.skip(partition, last)\n",
        "",
    ),
    Fault(
        "stop reading in the middle of a replay",
        "PipelineState._balanced",
        'needed = self._buffer.replaying if self._phase == "running" else nothing',
        "needed = nothing",
    ),
    Fault(
        "stop at the bound on records in the middle of a replay",
        "PipelineState.fetched",
        "(self._limit.left == 0 and not replaying)",
        "self._limit.left == 0",
    ),
    Fault(
        "do not ask what is there",
        "Reconciler.may_exist",
        '        if batch.replayed and self._info.repeats == "query":\n            return True\n',
        "",
    ),
    Fault("do not ask what is under way", "Reconciler.missing", "if self._server is not None:", "if False:"),
    Fault(
        "write also what is there",
        "Reconciler.missing",
        "pc.indices_nonzero(pc.invert(mask))",
        "pc.indices_nonzero(pc.is_valid(mask))",
    ),
    Fault(
        "do not look after a repeat",
        "Reconciler.after_repeat",
        'return self._info.repeats == "query" and',
        "return False and",
    ),
    Fault(
        "write all of a batch again that was partly written when the columns changed",
        "BlockWriter._write",
        "if whole and search.tries == 1:",
        "if True:",
    ),
    Fault(
        "write what was decoded for other columns",
        "Writer.write.attempt",
        "if not self.decoding.current(latest):",
        "if False:",
    ),
    Fault("do not ask whether a batch is ours", "BlockWriter.attempted.attempt", "if not held():", "if False:"),
    Fault(
        "an intent from the first record on",
        "Offsets._intent",
        "return Intent(Range(partition, account.sealed, span.last), first_ms)",
        "return Intent(span, first_ms)",
    ),
    Fault(
        "replay from the first record",
        "Offsets._intent",
        "        return intent\n",
        "        return intent._replace(range=span)\n",
    ),
    Fault("a token without the topic's age", "token_of", "-{span.last}|{first_ms}", "-{span.last}"),
    Fault(
        "replay a topic that was made anew",
        "Offsets._intent",
        "if span.first == intent.range.first and intent.first_ms not in (None, first_ms):",
        "if False:",
    ),
    Fault(
        "accept an old lease",
        "PipelineState._leased",
        "self._offsets.leased(ours, now - LEASE_S)",
        "self._offsets.leased(ours, -1e9)",
    ),
    Fault(
        "count a lease from the answer",
        "FetchLoop._commit",
        "refused.keys(), began)",
        "refused.keys(), self._clock())",
    ),
    Fault(
        "a commit confirms the lease of every partition",
        "Offsets.commit",
        "            account.lease.confirm(sent_at)\n",
        "            for every in self._accounts.values():\n                every.lease.confirm(sent_at)\n",
    ),
    Fault(
        "take a predecessor's announcement for our own",
        "Offsets.assign",
        "self._epochs, start, sealed, position, intents, deque(intents), found=found, checked=not self._checks",
        "self._epochs, start, sealed, position, intents, deque(intents), found=found, checked=not self._checks,\n"
        "                announced=sealed, lease=Lease(confirmed_at=math.inf)",
    ),
    Fault(
        "commits that are all alike",
        "Offsets._position",
        'mark = f"{self._writer}-{account.epoch}-{account.lease.renewals}"',
        'mark = "w"',
    ),
    Fault(
        "the same mark in every ownership",
        "Offsets._position",
        "{self._writer}-{account.epoch}-",
        "{self._writer}-",
    ),
    Fault(
        "hand back what is not ours",
        "PipelineState.hand_back",
        "ours = self._offsets.ours(which)",
        "ours = frozenset(which.epochs)",
    ),
    Fault(
        "hand back as if nothing had been written",
        "PipelineState.hand_back",
        "self._kept(one, ours, replayed=True)",
        "self._kept(one, ours, replayed=False)",
    ),
    Fault(
        "write on with a part of a batch that changed hands",
        "PipelineState.held",
        "if not ours or (self._offsets.announces and len(ours) < len(which.epochs)):",
        "if not ours:",
    ),
    Fault(
        "take back a range that a predecessor announced",
        "Offsets.cancel",
        "in ours and not which.batch.replayed:",
        "in ours:",
    ),
    Fault(
        "drop at a revoke what is being written",
        "PipelineState._drop_unwritten.divide",
        'if one.stage == "writing" or partitions.isdisjoint',
        "if partitions.isdisjoint",
    ),
    Fault(
        "leave what was dropped announced",
        "PipelineState._drop_unwritten.divide",
        "            self._offsets.cancel(one, partitions)\n",
        "",
    ),
    Fault(
        "write without intents what an intent announced otherwise",
        "Offsets._position",
        "intents = [intent for intent in intents if intent.range.next_offset <= account.found]",
        "intents = []",
    ),
    Fault(
        "announce before the target was looked at",
        "Offsets.assign",
        "found=found, checked=not self._checks",
        "found=found, checked=True",
    ),
    Fault(
        "look at the target from the committed offset",
        "Offsets.unchecked",
        "max(account.found, account.stored.next_offset)",
        "account.stored.next_offset",
    ),
    Fault(
        "blame us for what another owner wrote",
        "WriteLoop._check_existing",
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
        "leave holes between intents",
        "_Account.settle",
        "        self.done.add(intent)\n",
        "        return self.pending.remove(intent)\n",
    ),
    Fault("a name for the write of each part", "whole_token", '_PARTS.sub("", token)', "token"),
    Fault(
        "leave a replay paused",
        "PipelineState._balanced",
        "again = self._paused & needed",
        "again = nothing",
    ),
    Fault(
        "take the answer to an earlier commit",
        "Lease.asked",
        "return self.confirmed_at < self.asked_at",
        "return self.confirmed_at <= 0 and self.asked_at >= 0",
    ),
    Fault(
        "parts named by positions",
        "_digest",
        "offsets = pa.concat_arrays([run.offsets for run in batch.runs])",
        "offsets = pa.array(range(batch.rows), pa.int64())",
    ),
]

SEVERAL_WRITERS = [
    Fault(
        "write two batches of a partition at once",
        "InFlightQueue.ready",
        'if one.stage == "decoded" and not any(_common(one, other) for other in before):',
        'if one.stage == "decoded":',
    ),
    Fault(
        "begin the next batch of a partition after one that failed",
        "PipelineState.halt",
        '                if one.stage != "writing":',
        "                if False:",
    ),
    Fault(
        "drop at a failure what others write",
        "PipelineState.halt",
        "                elif one is failed:",
        "                else:",
    ),
    Fault(
        "keep what is handed back after a failure",
        "PipelineState.hand_back",
        "if self._halted:",
        "if False:",
    ),
    Fault(
        "a partition that does not get on takes all the places",
        "InFlightQueue.decodable",
        "< MAX_AHEAD:",
        "< 10**9:",
    ),
    Fault(
        "cut batches of a partition of which one waits",
        "Buffer._open",
        "        if not besides:",
        "        if True:",
    ),
    Fault(
        "a batch in doubt counts as loaded",
        "DeadLetterLimit.observe",
        "        expected = 0\n",
        "        expected = 0\n        self.settle(batch)\n",
    ),
    Fault(
        "a write that went well ends the failure of another",
        "Counters._recovered",
        "if one not in (span, None)}",
        "if False}",
    ),
]

EVERY = AT_LEAST_ONCE + RECEIPTS + EXACTLY_ONCE + SEVERAL_WRITERS

FAILED = re.compile(r"^FAILED \S*?([^/ ]+::\S+)(?!\S| - (?:NameError|UnboundLocalError))", re.MULTILINE)
TROUBLE = re.compile(r"^(?:FAILED|ERROR) .*$", re.MULTILINE)
HANGS = "hangs"


class DoesNotRun(Exception):
    """The tests could not be run with a fault: that shows nothing about them."""


@cache
def places() -> Mapping[str, Sequence[tuple[Path, ast.ClassDef | ast.FunctionDef]]]:
    """Return where each class and function of the package is, by its dotted name."""
    found: dict[str, list[tuple[Path, ast.ClassDef | ast.FunctionDef]]] = {}
    for file in sorted((ROOT / "batcher").rglob("*.py")):
        for name, node in symbols_of(ast.parse(file.read_text())):
            found.setdefault(name, []).append((file, node))
    return found


def symbols_of(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Yield every class and function below a node with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield prefix + node.name, node
            yield from symbols_of(node, f"{prefix}{node.name}.")
        else:
            yield from symbols_of(node, prefix)


def planted(fault: Fault) -> tuple[Path, str]:
    """Return the file that gets a fault and its text with it; raise DoesNotRun where the list is out of date."""
    found = places().get(fault.symbol, [])
    if len(found) != 1:
        raise DoesNotRun(f"{fault.symbol} is in {len(found)} places")
    [(file, node)] = found
    lines = file.read_text().splitlines(keepends=True)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    body = "".join(lines[first : node.end_lineno])
    if fault.old not in body:
        raise DoesNotRun(f"{fault.symbol} no longer has {fault.old!r}")
    return file, "".join((*lines[:first], body.replace(fault.old, fault.new), *lines[node.end_lineno :]))


def found_by(fault: Fault, tests: list[Path]) -> str:
    """Run tests against a copy of the package with the fault planted and return the first that failed.

    Raise DoesNotRun where no test came to its verdict, or where one failed at a name that the fault does not have.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for package in ("batcher", "sinks"):
            shutil.copytree(ROOT / package, Path(scratch) / package)
        file, text = planted(fault)
        (Path(scratch) / file.relative_to(ROOT)).write_text(text)
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
        command = [sys.executable, "-m", "pytest", *options, *map(str, tests)]
        environment = {
            **os.environ,
            "PYTHONPATH": scratch,
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/examples",
            "BATCHER_TEST_NO_SHRINK": "1",
            "COLUMNS": "1000",  # or the reasons in the closing lines are cut
        }
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, check=False, timeout=240
            )
        except subprocess.TimeoutExpired:
            return HANGS
        if done.returncode == 0:
            return ""
        failed = FAILED.search(done.stdout)
        # Another code than this one: nothing could be collected.
        if failed is None or done.returncode != pytest.ExitCode.TESTS_FAILED:
            said = TROUBLE.search(done.stdout)
            raise DoesNotRun(said[0] if said else f"pytest ended with {done.returncode}")
        return failed[1]


def verdict(fault: Fault, stages: Sequence[list[Path]]) -> tuple[str, str]:
    """Return what became of a fault, and which test found it or why none could."""
    try:
        finder = next(filter(None, (found_by(fault, tests) for tests in stages)), "")
    except DoesNotRun as error:
        return "NOT RUN", str(error)
    return ("killed" if finder else "SURVIVED"), finder


def main() -> int:
    """Plant every fault in turn."""
    arguments = sys.argv[1:]
    stages = [MACHINES] if "--machines" in arguments else [UNITS, MACHINES]
    wanted = [part for part in arguments if part != "--machines"]
    failures = 0
    for fault in (fault for fault in EVERY if not wanted or wanted[0] in fault.name):
        became, detail = verdict(fault, stages)
        failures += became != "killed"
        print(f"{became:10}{fault.name:60}{detail}", flush=True)  # noqa: T201  # the result
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
