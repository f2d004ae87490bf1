"""The optional extension: when it is used, and what is said where it is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from batcher import native
from batcher.cli.main import main
from batcher.engine.pipeline import Pipeline
from batcher.errors import ExtensionMissing
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import Partition
from batcher.telemetry.metrics import Metrics
from batcher.testing.formats import NUMBERS
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource

ROOT = Path(__file__).parents[2]
NEEDED = "the native extension is not built"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(native, "_jobs", set())
    monkeypatch.setattr(native, "_failures", set())
    native._loaded.cache_clear()
    yield
    monkeypatch.undo()
    native._loaded.cache_clear()


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, native.MODULE, None)


def broken(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    (place / f"{native.MODULE}.py").write_text("raise ImportError('libthing.so.1:\\n cannot open shared object file')")
    monkeypatch.delitem(sys.modules, native.MODULE, raising=False)
    monkeypatch.syspath_prepend(place)


def loaded_a_record() -> tuple[Pipeline, list[str]]:
    log = MemoryLog([Partition("events", 0)])
    log.produce(Partition("events", 0), ['{"n":1}'])
    source = MemorySource(log, until_eof=True)
    pipeline = Pipeline(source, ScriptedSink(NUMBERS), JsonFormat(), name="group")
    with capture_logs() as lines:
        pipeline.run()
    return pipeline, [json.dumps(line, default=str) for line in lines]


def test_without_the_extension_everything_works_and_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)

    pipeline, lines = loaded_a_record()

    assert pipeline.summary().written == 1
    assert pipeline.status().native == ()
    assert '"native": "none"' in lines[0]
    assert not any("extension" in line for line in lines)


def test_an_extension_that_does_not_load_is_one_line_of_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken(monkeypatch, tmp_path)

    pipeline, lines = loaded_a_record()

    assert pipeline.summary().written == 1
    (line,) = [line for line in lines if "native_extension_not_used" in line]
    assert "does not load (libthing.so.1: cannot open shared object file)" in line


def test_an_extension_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType(native.MODULE)
    other.__version__ = "99"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, native.MODULE, other)

    assert native.extension("auto") is None
    assert native.failure() == f"the module {native.MODULE} is 99, not {native.VERSION}"


def test_what_is_required_and_missing_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch)
    with pytest.raises(ExtensionMissing, match=r"is not installed; pip install \./native"):
        JsonFormat(JsonOptions(native="require"))

    words = ["--sink", "null", "-b", "localhost:1", "-t", "events", "-g", "group", "--native", "require"]
    assert main(words) == 78
    assert "--native require: the module batcher_native is not installed" in capsys.readouterr().err


def test_off_does_not_even_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken(monkeypatch, tmp_path)

    assert native.extension("off") is None
    assert native.failure() == ""


def test_status_metric_version_and_first_line_say_what_the_extension_does(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(native.MODULE, reason=NEEDED)

    pipeline, lines = loaded_a_record()
    metrics = Metrics("null")
    metrics.watch(pipeline.status)

    assert pipeline.status().to_dict()["native"] == ["decode"]
    assert '"native": "decode"' in lines[0]
    found = {family.name: family for family in text_string_to_metric_families(metrics.render())}
    states = found["batcher_native_state"].samples
    assert {one.labels["job"]: one.value for one in states} == {"decode": 1.0, "fetch": 0.0}
    assert main(["--version"]) == 0
    assert f"native extension {native.VERSION} (decode, fetch)" in capsys.readouterr().out


def test_source_wheel_and_seam_are_of_one_version() -> None:
    for file in ("native/Cargo.toml", "native/pyproject.toml"):
        assert f'version = "{native.VERSION}"' in (ROOT / file).read_text()
    assert f"kafka-batcher-native=={native.VERSION}" in (ROOT / "pyproject.toml").read_text()


def test_every_crate_has_a_licence_that_allows_its_use() -> None:
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("there is no cargo")
    command = [cargo, "metadata", "--offline", "--locked", "--format-version", "1"]
    done = subprocess.run(command, cwd=ROOT / "native", capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("the crates are not here")
    licences = {one["name"]: one["license"] for one in json.loads(done.stdout)["packages"]}

    assert "pyo3" in licences
    allowed = ("MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0")
    for name, licence in licences.items():
        parts = [part.strip("() ") for part in licence.replace(" AND ", " OR ").replace("/", " OR ").split(" OR ")]
        assert all(part in allowed for part in parts) or parts[0] in allowed, f"{name}: {licence}"
