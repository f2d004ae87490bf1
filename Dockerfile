# docker build -t kafka-batcher .                         Kafka, ClickHouse, Parquet, JSON, CSV
# docker build -t kafka-batcher:embedded --build-arg LOCK=full .    every extra too: Avro, Protobuf, SQL, lake tables,
#                                                                   object stores, the embedded ClickHouse …
# docker run --rm -v batcher:/data kafka-batcher --sink parquet --parquet.path /data/events -b HOST:9092 -t TOPIC -g GROUP

FROM python:3.14-slim AS build
WORKDIR /build
RUN python -m venv /opt/batcher
# The dependencies first: this layer stays until the lock changes.
ARG LOCK=runtime
COPY requirements/$LOCK.lock requirements/
RUN /opt/batcher/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/$LOCK.lock
COPY pyproject.toml README.md LICENSE ./
COPY batcher batcher
COPY sinks sinks
RUN /opt/batcher/bin/pip install --no-cache-dir --no-deps .

FROM python:3.14-slim
LABEL org.opencontainers.image.title="kafka-batcher" \
      org.opencontainers.image.description="Load event streams into tables and files in micro-batches." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/batcher /opt/batcher
# A number, so that Kubernetes can see that it is not root.
RUN useradd --system --uid 10001 --home-dir /data --create-home batcher
ENV PATH=/opt/batcher/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /data
# The only place that is written to, by Parquet, dead letters and an embedded queue; the rest may be read-only.
VOLUME /data
# Asks where BATCHER_HTTP_ADDR says; without it nothing listens, and that the process runs is all that there is to know.
HEALTHCHECK --interval=10s --timeout=10s --retries=3 --start-period=20s CMD ["python", "-c", "\
import os, urllib.request; \
addr = os.environ.get('BATCHER_HTTP_ADDR', ''); \
addr and urllib.request.urlopen('http://127.0.0.1:' + addr.rpartition(':')[2] + '/livez', timeout=5)"]
# Drains: what was read is written and committed. Give it more time than --stop-timeout: docker stop -t 30.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "batcher"]
CMD ["--help"]
