//! The second job: what librdkafka has fetched becomes columns, without an object for each record.
//!
//! Everything here is librdkafka's public interface, found in the library that confluent-kafka has loaded. The consumer
//! makes itself known: this module is a plug-in of librdkafka, which is told of each new client. Its partitions are
//! forwarded to a queue of ours. The consumer's own queue, with all that is called back, stays with confluent-kafka.
//! The seam on the Python side is `batcher/sources/kafka/native_reader.py`.

pub mod client;
#[cfg(test)]
mod fake;
pub mod fetcher;
pub mod librdkafka;
pub mod run;
pub mod take;
pub mod wake;
