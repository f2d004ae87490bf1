# docker build -t kafka-batcher .                         Kafka, ClickHouse, Parquet, JSON, CSV
# docker build -t kafka-batcher:full --build-arg LOCK=full .    every extra too: Avro, Protobuf, SQL, embedded ClickHouse …
# docker run --rm kafka-batcher --sink parquet --parquet.path /data -b HOST:9092 -t TOPIC -g GROUP

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
COPY --from=build /opt/batcher /opt/batcher
# A number, so that Kubernetes can see that it is not root.
RUN useradd --system --uid 10001 --home-dir /data --create-home batcher
ENV PATH=/opt/batcher/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /data
# Drains: what was read is written and committed. Give it more time than --stop-timeout: docker stop -t 30.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "batcher"]
CMD ["--help"]
