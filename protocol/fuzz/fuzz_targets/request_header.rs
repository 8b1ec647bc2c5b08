#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| varve_protocol::fuzz::request_header(bytes));
