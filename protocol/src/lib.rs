//! Bytes to Kafka requests and back.
