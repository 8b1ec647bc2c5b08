//! A DNS server with the records that a test gives it: SRV of any name, over UDP.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const SRV: u16 = 33;
/// A response to a standard query, as an authority, where recursion is asked for and to be had.
const ANSWERS: u16 = 0x8580;
const HEADER_BYTES: usize = 12;

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    records: Arc<Mutex<Vec<(String, u16)>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Starts one that knows nobody.
    #[must_use]
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = socket.local_addr().unwrap();
        let (records, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (known, over) = (Arc::clone(&records), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut query = [0; 1500];
            while !over.load(Ordering::Relaxed) {
                let Ok((bytes, from)) = socket.recv_from(&mut query) else { continue };
                if let Some(answer) = answer(&query[..bytes], &known.lock().unwrap()) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, records, ends, thread: Some(thread) }
    }

    /// From here on it names these hosts and ports.
    pub fn name(&self, records: &[(&str, u16)]) {
        let records = records.iter().map(|(host, port)| ((*host).to_owned(), *port));
        *self.records.lock().unwrap() = records.collect();
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The answer to a query: its question, and the records where it asks for SRV.
fn answer(query: &[u8], records: &[(String, u16)]) -> Option<Vec<u8>> {
    let mut end = HEADER_BYTES;
    while *query.get(end)? != 0 {
        end += usize::from(query[end]) + 1;
    }
    end += 5;
    let question = query.get(HEADER_BYTES..end)?;
    let asked = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let records = if asked == SRV { records } else { &[] };
    let mut answer = query[..2].to_vec();
    for count in [ANSWERS, 1, u16::try_from(records.len()).ok()?, 0, 0] {
        answer.extend(count.to_be_bytes());
    }
    answer.extend(question);
    for (host, port) in records {
        let mut target: Vec<u8> = Vec::new();
        for label in host.split('.') {
            target.push(u8::try_from(label.len()).ok()?);
            target.extend(label.as_bytes());
        }
        target.push(0);
        // The question's name; SRV, IN, no time to live; then priority, weight, port, target.
        answer.extend([0xc0, HEADER_BYTES as u8]);
        answer.extend(SRV.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0]);
        answer.extend(u16::try_from(6 + target.len()).ok()?.to_be_bytes());
        for field in [0, 0, *port] {
            answer.extend(field.to_be_bytes());
        }
        answer.extend(target);
    }
    Some(answer)
}
