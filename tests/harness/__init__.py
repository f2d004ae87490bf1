"""What only this project's tests need. What writers of plug-ins need as well is in `batcher.testing`.

Time and processes
    patience        the long and the short form of a run, how long things are waited for, the loop that waits
    processes       batcher as a process: run to its end, or watched by its log, signals and memory
    kills           loads that are killed on the way, and the dead letters they leave
    crash_points    batcher as a process that dies, hangs or freezes at a named step
    phases          the same, with more steps for signals
    fibers          two threads in every order, one step at a time
    hand_engine     the engine put together by hand, its threads played one step at a time

Sources and targets
    small_disk      a file system of a few megabytes, to fill it up
    fetch_paths     the two ways in which records get from the client into columns
    readers         Kafka sources of one group, opened for a test and closed at its end
    live_orders     a producer that goes on while a test does
    source_table    a table as Debezium writes about it, and what a target has to show of it
    targets         Parquet roots and tables for orders: made empty, loaded, counted
    lakes           lake tables for orders, and their sinks with the check taken out
    iceberg         tables of Iceberg, read and written beside the sink
    iceberg_rest    a REST catalog of Iceberg on loopback
    iceberg_plugin  the fixtures for both
    catalog_proxy   what stands before a REST catalog and spoils commits
    object_store    an object store in memory whose uploads fail when told to
    stores          S3 servers: moto in this process, and VersityGW as the real one
    secured_broker  Kafka with TLS, client certificates and SASL, and the authority of its certificates
    collector       a collector of OpenTelemetry: takes what is exported, or hangs, or refuses
    tls_front       TLS before a server that speaks none
    store_proxy     a proxy before such a server that delays, refuses, loses and counts
    mutated         documents broken at random, and whether both ways of decoding make the same of them
    documents       made-up documents whose fields and types drift
    every_type      rows of every type of a lake table, for those who read them with other programs
    scripted_nsqd   a server that speaks NSQ's protocol as a test tells it, also wrongly
    protobuf        Protobuf written by hand, for what no serializer makes

Attacks
    attack          one scene: a topic with a live producer, workers that load it, and the truth about both
    disturbance     scenes whose group is disturbed: workers are frozen, or come and go
    queue_scene     the same for an embedded queue
    kill_loop       workers killed again and again
    soak            everything at once, for as long as one likes

What arrived
    census          records in the target and in the dead letters against those produced
    commit_log      every commit that a group ever made
    leaves          values of a document that a row does not have
    verdict         all of it together after an attack
    crash_score     the table of docs/testing.md with the verdicts of a long run

Pages
    page_scene      a pipeline in this process with its web page
    pages           where the pages for people are, and the code that they show
"""
