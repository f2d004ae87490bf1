"""A REST catalog of Iceberg from Maven Central: that of its own tests, over SQLite and local files.

Their own server listens on every address of the machine. So it is started here by a few lines of Java, on loopback.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batcher.embedded.jars import Unavailable, cache_dir, fetched, run_maven, with_dependencies
from batcher.embedded.server import LocalServer, got
from batcher.embedded.tether import free_ports

ICEBERG_VERSION: Final = "1.10.1"
HADOOP_VERSION: Final = "3.4.1"

_WHAT: Final = f"Iceberg's REST catalog {ICEBERG_VERSION}"

_DEPENDENCIES: Final = (
    ("org.apache.iceberg", "iceberg-core", ICEBERG_VERSION),
    ("org.apache.hadoop", "hadoop-client-api", HADOOP_VERSION),
    ("org.apache.hadoop", "hadoop-client-runtime", HADOOP_VERSION),
    ("org.eclipse.jetty", "jetty-servlet", "11.0.26"),
    ("org.eclipse.jetty", "jetty-server", "11.0.26"),
    ("org.xerial", "sqlite-jdbc", "3.50.3.0"),
    ("org.slf4j", "slf4j-simple", "2.0.17"),
)

_MAIN: Final = """\
import java.net.InetSocketAddress;
import java.util.HashMap;
import java.util.Map;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.catalog.Catalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

public class Main {
  public static void main(String[] given) throws Exception {
    Map<String, String> properties = new HashMap<>();
    properties.put("catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog");
    properties.put("uri", "jdbc:sqlite:" + given[1] + "/catalog.db");
    properties.put("jdbc.schema-version", "V1");
    properties.put("clients", "1");
    properties.put("warehouse", given[1] + "/warehouse");
    Catalog catalog = CatalogUtil.buildIcebergCatalog("rest", properties, new org.apache.hadoop.conf.Configuration());
    ServletContextHandler context = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    context.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
    Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(given[0])));
    server.setHandler(context);
    server.start();
    server.join();
  }
}
"""

_CLASSIFIED: Final = (
    f"org.apache.iceberg:iceberg-open-api:{ICEBERG_VERSION}:jar:test-fixtures",
    f"org.apache.iceberg:iceberg-core:{ICEBERG_VERSION}:jar:tests",
)
"""Their own dependencies are build tools; what they need to run is listed above."""


def rest_jars() -> Path:
    """Return the directory with the server's jars, downloading them if this is the first call on this machine.

    Raise Unavailable without Java, or without Maven where there is something to download.
    """
    return fetched(cache_dir() / f"iceberg-rest-{ICEBERG_VERSION}" / "lib", _WHAT, _download)


def _download(maven: str, scratch: Path) -> Path:
    lib = with_dependencies(_WHAT, _DEPENDENCIES, maven, scratch)
    for artifact in _CLASSIFIED:
        run_maven(_WHAT, [maven, "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={lib}"])
    return lib


class RestCatalogServer(LocalServer):
    """Run the catalog on a free port of loopback (see `LocalServer`); tables are below its directory.

    Raise Unavailable without a Java development kit or the jars, or when it does not come up.
    """

    what = _WHAT
    prefix = "batcher-iceberg-"
    start_timeout_s = 90.0
    """Three seconds on a quiet machine; several times that where all cores are taken."""

    def __init__(self) -> None:
        super().__init__()
        [self._port] = free_ports(1)

    @property
    def uri(self) -> str:
        """Return where it answers."""
        return f"http://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """End it at once; `start` brings it back on the same port, with its tables."""
        self._end(signal.SIGKILL)

    def fetch(self) -> Path:
        if shutil.which("javac") is None:
            raise Unavailable("no javac on the PATH: the catalog is started from a source file (JDK 17 or newer)")
        return rest_jars()

    def _command(self, directory: Path) -> Sequence[str]:
        main = directory / "Main.java"
        main.write_text(_MAIN, encoding="utf-8")
        java = ["java", "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [*java, quiet, "-cp", f"{self.fetch()}/*", str(main), str(self._port), str(directory)]

    def _is_ready(self) -> bool:
        try:
            got(f"{self.uri}/v1/config")
        except OSError:
            return False
        return True
