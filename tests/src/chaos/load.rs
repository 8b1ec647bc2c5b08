//! Raw clients under chaos: writers that send values once, idempotent writers that send until they are told, readers that follow leaders,
//! and one that asks anybody for anything. Each keeps its own [`History`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    batch::{Batch, noise},
    chance::Chance,
    history::{Attempt, History, Look, Outcome},
    wire::{Client, Metadata, values},
};

/// The topic of raw clients.
pub const TOPIC: &str = "chaos-raw";
/// Its partitions.
pub const PARTITIONS: i32 = 3;

const PATIENCE: Duration = Duration::from_secs(4);
/// Between two requests of one writer.
const PACE: Duration = Duration::from_millis(12);
/// An idempotent writer gives one up after this long; it does not reuse its sequence then.
const GIVE_UP: Duration = Duration::from_secs(120);

const NOT_ENOUGH_REPLICAS: i16 = 19;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;
const DUPLICATE_SEQUENCE: i16 = 46;
const UNKNOWN_PRODUCER: i16 = 59;

/// What all clients share.
#[derive(Clone)]
pub struct World {
    /// Where nodes listen for clients, by their places.
    pub nodes: Arc<Vec<SocketAddr>>,
    /// The beginning of time.
    pub begin: Instant,
    /// It is enough.
    pub ends: Arc<AtomicBool>,
    /// What was acknowledged so far, by partition.
    pub acknowledged: Arc<[AtomicU64; PARTITIONS as usize]>,
}

impl World {
    fn now(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Relaxed)
    }
}

/// Starts all clients.
#[must_use]
pub fn start(world: &World, seed: u64) -> Vec<JoinHandle<History>> {
    let mut clients = Vec::new();
    let mut spawn = |run: fn(World, u32, Chance) -> History, number: u32| {
        let (world, chance) = (world.clone(), Chance::of(seed.wrapping_mul(97) + u64::from(number)));
        clients.push(thread::spawn(move || run(world, number, chance)));
    };
    for number in 1..=3 {
        spawn(write, number);
    }
    for number in 4..=6 {
        spawn(write_until_told, number);
    }
    spawn(follow, 1);
    spawn(rove, 2);
    clients
}

/// The bytes of a value: its number, and as many more as it says.
fn bytes_of(value: u64) -> Vec<u8> {
    let length = 16 + (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
    format!("{value:016x}").into_bytes().into_iter().chain(noise(value)).take(length).collect()
}

/// The value that bytes are; an error where they are not what was sent.
pub fn value_of(bytes: &[u8]) -> Result<u64, String> {
    let text = bytes.get(..16).and_then(|head| std::str::from_utf8(head).ok());
    let value = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    value
        .filter(|value| bytes_of(*value) == bytes)
        .ok_or_else(|| format!("H13: {} bytes that nobody sent", bytes.len()))
}

/// A connection to whoever leads, as far as is known.
struct Route {
    world: World,
    chance: Chance,
    known: Metadata,
    open: BTreeMap<i32, Client>,
}

impl Route {
    fn new(world: &World, chance: Chance) -> Self {
        Self { world: world.clone(), chance, known: Metadata::default(), open: BTreeMap::new() }
    }

    /// Asks anybody who leads, and forgets what was open.
    fn look_up(&mut self) {
        self.open.clear();
        let address = *self.chance.pick(&self.world.nodes);
        let told = Client::connect(address, PATIENCE).and_then(|mut client| client.metadata(TOPIC));
        match told {
            Ok(told) if !told.partitions.is_empty() => self.known = told,
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }

    /// The leader's node and term, and a connection to it.
    fn leader(&mut self, partition: i32) -> Option<(i32, i32, &mut Client)> {
        let known = self.known.partitions.get(&partition)?;
        let (node, epoch) = (known.leader?, known.epoch);
        let address = *self.known.nodes.get(&node)?;
        if let std::collections::btree_map::Entry::Vacant(place) = self.open.entry(node) {
            place.insert(Client::connect(address, PATIENCE).ok()?);
        }
        Some((node, epoch, self.open.get_mut(&node)?))
    }
}

/// One attempt: what it was told, by the wire.
fn send(route: &mut Route, partition: i32, batch: &[u8]) -> Option<Result<i64, i16>> {
    let Some((_, _, client)) = route.leader(partition) else {
        route.look_up();
        return None;
    };
    let told = client.produce(TOPIC, partition, batch).ok();
    if !matches!(told, Some(Ok(_))) {
        route.look_up();
    }
    told
}

fn write(world: World, writer: u32, chance: Chance) -> History {
    let (mut route, mut history) = (Route::new(&world, chance), History::default());
    for number in 0.. {
        if !world.goes_on() {
            break;
        }
        let partition = (writer as i32 + number as i32) % PARTITIONS;
        while world.goes_on() && route.leader(partition).is_none() {
            route.look_up();
        }
        let value = (u64::from(writer) << 40) | number;
        let asked = world.now();
        let told = send(&mut route, partition, &Batch::of(&[&bytes_of(value)]).encode());
        let outcome = match told {
            Some(Ok(offset)) => Outcome::At(offset),
            // The one code that promises that nothing was appended.
            Some(Err(NOT_ENOUGH_REPLICAS)) => Outcome::Refused(NOT_ENOUGH_REPLICAS),
            _ => Outcome::Unknown,
        };
        note(&world, &mut history, Attempt { writer, value, partition, asked, told: world.now(), outcome });
        thread::sleep(PACE);
    }
    history
}

fn note(world: &World, history: &mut History, attempt: Attempt) {
    if matches!(attempt.outcome, Outcome::At(_) | Outcome::Somewhere) {
        world.acknowledged[attempt.partition as usize].fetch_add(1, Ordering::Relaxed);
    }
    history.attempts.push(attempt);
}

/// A producer id from anybody.
fn identify(route: &mut Route) -> Option<(i64, i16)> {
    while route.world.goes_on() {
        let address = *route.chance.pick(&route.world.nodes);
        let told = Client::connect(address, PATIENCE).and_then(|mut client| client.init_producer());
        if let Ok(Ok(identity)) = told {
            return Some(identity);
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

/// An idempotent producer with one batch on its way: it sends that until it is told, also when it is enough.
fn write_until_told(world: World, writer: u32, chance: Chance) -> History {
    let (mut route, mut history) = (Route::new(&world, chance), History::default());
    let partition = writer as i32 % PARTITIONS;
    let mut number = 0;
    'identity: while world.goes_on() {
        let Some((producer_id, producer_epoch)) = identify(&mut route) else { break };
        for sequence in 0.. {
            if !world.goes_on() {
                break 'identity;
            }
            let value = (u64::from(writer) << 40) | number;
            number += 1;
            let batch = Batch {
                producer_id,
                producer_epoch,
                base_sequence: sequence,
                ..Batch::of(&[&bytes_of(value)])
            };
            let asked = world.now();
            let outcome = insist(&mut route, partition, &batch.encode(), asked);
            let attempt = Attempt { writer, value, partition, asked, told: world.now(), outcome };
            if let Outcome::Refused(code @ (OUT_OF_ORDER_SEQUENCE | UNKNOWN_PRODUCER)) = outcome {
                history
                    .violations
                    .push(format!("H7: what its producer did was forgotten: {code} to {attempt:?}"));
            }
            note(&world, &mut history, attempt);
            if !matches!(outcome, Outcome::At(_) | Outcome::Somewhere) {
                continue 'identity;
            }
            thread::sleep(PACE);
        }
    }
    history
}

fn insist(route: &mut Route, partition: i32, batch: &[u8], asked: u64) -> Outcome {
    while route.world.now() - asked < GIVE_UP.as_micros() as u64 {
        match send(route, partition, batch) {
            Some(Ok(offset)) => return Outcome::At(offset),
            Some(Err(DUPLICATE_SEQUENCE)) => return Outcome::Somewhere,
            Some(Err(code @ (OUT_OF_ORDER_SEQUENCE | UNKNOWN_PRODUCER))) => return Outcome::Refused(code),
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
    Outcome::Unknown
}

/// Reads all partitions to their ends, and on.
fn follow(world: World, reader: u32, chance: Chance) -> History {
    let (mut route, mut history) = (Route::new(&world, chance), History::default());
    let mut next = [0_i64; PARTITIONS as usize];
    while world.goes_on() {
        for partition in 0..PARTITIONS {
            let (asked, offset) = (world.now(), next[partition as usize]);
            let fetched = route.leader(partition).and_then(|(node, epoch, client)| {
                Some((node, epoch, client.fetch(TOPIC, partition, epoch, offset).ok()?))
            });
            let Some((node, epoch, fetched)) = fetched.filter(|(_, _, fetched)| fetched.code == 0) else {
                route.look_up();
                continue;
            };
            let seen = seen(&fetched.records, offset, &mut history);
            if let Some((last, _)) = seen.last() {
                next[partition as usize] = last + 1;
            }
            let (node, high_watermark) = (node as usize, fetched.high_watermark);
            history.looks.push(Look { reader, partition, node, epoch, asked, high_watermark, seen });
        }
        thread::sleep(PACE);
    }
    history
}

/// Asks any node for any offset, whatever it leads: what it is given must be right all the same.
fn rove(world: World, reader: u32, mut chance: Chance) -> History {
    let mut history = History::default();
    let mut highest = [0_i64; PARTITIONS as usize];
    while world.goes_on() {
        let node = chance.below(world.nodes.len() as u64) as usize;
        let partition = chance.below(PARTITIONS as u64) as i32;
        let top = highest[partition as usize];
        // Half of them near the end.
        let back = if chance.hits(50) { 20 } else { top as u64 + 1 };
        let offset = (top - chance.below(back) as i64).max(0);
        let asked = world.now();
        let fetched = Client::connect(world.nodes[node], PATIENCE)
            .and_then(|mut client| client.fetch(TOPIC, partition, -1, offset));
        if let Ok(fetched) = fetched
            && fetched.code == 0
        {
            highest[partition as usize] = top.max(fetched.high_watermark);
            let seen = seen(&fetched.records, offset, &mut history);
            let high_watermark = fetched.high_watermark;
            history.looks.push(Look {
                reader,
                partition,
                node: node + 1,
                epoch: -1,
                asked,
                high_watermark,
                seen,
            });
        }
        thread::sleep(4 * PACE);
    }
    history
}

/// The values from an offset on; what does not read so is a violation.
fn seen(records: &[u8], from: i64, history: &mut History) -> Vec<(i64, u64)> {
    let found = match values(records) {
        Ok(found) => found,
        Err(error) => {
            history.violations.push(error.to_string());
            return Vec::new();
        }
    };
    let mut seen: Vec<(i64, u64)> = Vec::new();
    for (offset, bytes) in found.into_iter().filter(|(offset, _)| *offset >= from) {
        let due = seen.last().map_or(from, |(last, _)| last + 1);
        if offset != due {
            history.violations.push(format!("H8: {offset} was read where {due} was due"));
        }
        match value_of(&bytes) {
            Ok(value) => seen.push((offset, value)),
            Err(violation) => history.violations.push(format!("{violation} at {offset}")),
        }
    }
    seen
}
