"""The places that a run writes to, and whether they outlive a container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batcher.cli.support import places
from batcher.cli.support.doctor import machine
from batcher.cli.support.places import local_paths, lost_with_the_container
from batcher.settings import Settings
from tests.harness.processes import run_code

MOUNTS = """\
1 0 0:30 / / rw,relatime - overlay overlay rw,lowerdir=/a
2 1 8:1 /v /data rw,relatime - ext4 /dev/sda1 rw
3 1 8:1 /w /with\\040space rw,relatime - ext4 /dev/sda1 rw
"""


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts, mark = tmp_path / "mountinfo", tmp_path / ".dockerenv"
    mounts.write_text(MOUNTS)
    mark.touch()
    monkeypatch.setattr(places, "MOUNTS", mounts)
    monkeypatch.setattr(places, "MARKS", (str(mark),))


def lost(**settings: object) -> list[str]:
    return [flag for flag, _ in lost_with_the_container(Settings.model_validate(settings))]


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"sink": "parquet", "parquet": {"path": "/srv/events"}}, "--parquet.path"),
        ({"sink": "parquet", "parquet": {"path": "file:///srv/events"}}, "--parquet.path"),
        ({"sink": "delta", "delta": {"path": "/srv/events"}}, "--delta.path"),
        ({"sink": "iceberg", "iceberg": {"catalog": {"type": "sql", "warehouse": "/srv/w"}}}, "--iceberg.catalog"),
        ({"sink": "iceberg", "iceberg": {"catalog": {"uri": "sqlite:////srv/c.db"}}}, "--iceberg.catalog"),
        ({"sink": "clickhouse", "clickhouse": {"dsn": "chdb:///srv/db?database=d"}}, "--clickhouse.dsn"),
        ({"source": "queue", "queue": {"path": "/srv/q.db"}}, "--queue.path"),
        ({"sink": "null", "dlq": {"path": "/srv/dead"}}, "--dlq.path"),
    ],
)
def test_what_is_written_into_the_layer_of_a_container_is_named(settings: dict[str, object], flag: str) -> None:
    assert lost(**settings) == [flag]
    told = [one for one in machine.disks(Settings.model_validate(settings)) if "lost with the container" in one.said]
    assert [one.good for one in told] == [None]


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    "settings",
    [
        {"sink": "parquet", "parquet": {"path": "/data/events"}},
        {"sink": "parquet", "parquet": {"path": "/with space/events"}},
        {"sink": "parquet", "parquet": {"path": "s3://bucket/events"}},
        {"sink": "clickhouse"},
        # What is not chosen is not written to.
        {"sink": "null", "parquet": {"path": "/srv/events"}, "queue": {"path": "/srv/q.db"}},
    ],
)
def test_what_is_on_a_mount_or_elsewhere_is_not(settings: dict[str, object]) -> None:
    assert lost(**settings) == []


def test_outside_of_a_container_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MARKS", ())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert lost(sink="parquet", parquet={"path": "/srv/events"}) == []


def test_a_link_out_of_the_layer_counts_as_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: None
) -> None:
    del container
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume")
    (tmp_path / "mountinfo").write_text(f"{MOUNTS}4 1 8:1 / {tmp_path / 'volume'} rw - ext4 /dev/sda1 rw\n")
    assert lost(sink="parquet", parquet={"path": str(tmp_path / "link" / "events")}) == []
    assert lost(sink="parquet", parquet={"path": str(tmp_path / "events")}) == ["--parquet.path"]


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize("mounts", [None, MOUNTS.replace("overlay", "ext4")], ids=["no list", "a disk"])
def test_a_root_that_is_not_known_to_be_a_layer_gets_no_warning(
    mounts: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MOUNTS", tmp_path / "other")
    if mounts:
        (tmp_path / "other").write_text(mounts)
    assert lost(sink="parquet", parquet={"path": "/srv/events"}) == []


def test_a_local_path_is_listed_with_its_flag(tmp_path: Path) -> None:
    settings = Settings.model_validate({"sink": "parquet", "parquet": {"path": str(tmp_path)}, "dlq": {"path": "d"}})
    assert list(local_paths(settings)) == [("--dlq.path", Path("d").absolute()), ("--parquet.path", tmp_path)]


def test_a_run_says_it_once_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    done = run_code(
        "import sys\n"
        "from pathlib import Path\n"
        "from batcher.cli.support import places\n"
        f"places.MOUNTS, places.MARKS = Path({str(tmp_path / 'mountinfo')!r}), ({str(tmp_path)!r},)\n"
        "from batcher.cli.main import main\n"
        f"sys.exit(main(['--sink', 'parquet', '--parquet.path', {str(tmp_path / 'out')!r}, '--source', 'queue', "
        f"'--queue.path', '/proc/none/q.db', '--queue.group', 'g', '--log.format', 'json']))\n"
    )
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    told = [one for one in events if one["event"] == "gone_with_the_container"]
    assert [one["setting"] for one in told] == ["--parquet.path", "--queue.path"]
    assert done.code == 78
