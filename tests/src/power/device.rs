//! What the disk itself remembers: blocks that were flushed, and a volatile cache of those that were not.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

/// The unit in which the cache keeps and loses.
const BLOCK_BYTES: u64 = 4096;
/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// What a cut takes of that which was written and not flushed. What was flushed always stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Everything,
    /// Some blocks, drawn by this seed; of others, some sectors: a cache writes back when and in which order it likes.
    Some(u64),
}

/// How much a cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Blocks in the cache when the power went.
    pub unflushed: usize,
    /// Of those, the ones that did not survive whole.
    pub lost: usize,
}

/// An image file behind a volatile cache.
#[derive(Debug)]
pub(super) struct Device {
    image: File,
    unflushed: BTreeMap<u64, Box<[u8]>>,
}

impl Device {
    pub(super) fn new(image: File) -> Self {
        Self { image, unflushed: BTreeMap::new() }
    }

    pub(super) fn read(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        read_past_the_end(&self.image, &mut bytes, position)?;
        let end = position + length as u64;
        for (&number, block) in self.unflushed.range(position / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)) {
            let start = number * BLOCK_BYTES;
            let (from, to) = (start.max(position), (start + BLOCK_BYTES).min(end));
            bytes[(from - position) as usize..(to - position) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        Ok(bytes)
    }

    pub(super) fn write(&mut self, mut position: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (number, within) = (position / BLOCK_BYTES, (position % BLOCK_BYTES) as usize);
            let length = bytes.len().min(BLOCK_BYTES as usize - within);
            let block = match self.unflushed.entry(number) {
                std::collections::btree_map::Entry::Occupied(block) => block.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(block_of(&self.image, number)?)
                }
            };
            block[within..within + length].copy_from_slice(&bytes[..length]);
            (position, bytes) = (position + length as u64, &bytes[length..]);
        }
        Ok(())
    }

    /// All that was written so far is kept from now on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        for (number, block) in std::mem::take(&mut self.unflushed) {
            self.image.write_all_at(&block, number * BLOCK_BYTES)?;
        }
        Ok(())
    }

    /// The power goes.
    pub(super) fn lose(&mut self, loss: Loss) -> io::Result<Lost> {
        let cache = std::mem::take(&mut self.unflushed);
        let mut lost = Lost { unflushed: cache.len(), lost: cache.len() };
        let Loss::Some(seed) = loss else { return Ok(lost) };
        let mut chance = seed;
        for (number, block) in cache {
            // The first block holds the superblock, which ext4 takes to be written whole.
            match draw(&mut chance) % if number == 0 { 2 } else { 3 } {
                0 => {}
                1 => {
                    self.image.write_all_at(&block, number * BLOCK_BYTES)?;
                    lost.lost -= 1;
                }
                _ => {
                    for (at, sector) in block.chunks(SECTOR_BYTES).enumerate() {
                        if draw(&mut chance).is_multiple_of(2) {
                            let position = number * BLOCK_BYTES + (at * SECTOR_BYTES) as u64;
                            self.image.write_all_at(sector, position)?;
                        }
                    }
                }
            }
        }
        Ok(lost)
    }
}

fn block_of(image: &File, number: u64) -> io::Result<Box<[u8]>> {
    let mut block = vec![0; BLOCK_BYTES as usize].into_boxed_slice();
    read_past_the_end(image, &mut block, number * BLOCK_BYTES)?;
    Ok(block)
}

/// Zeros stand behind the end.
fn read_past_the_end(image: &File, mut bytes: &mut [u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = image.read_at(bytes, position)?;
        if read == 0 {
            break;
        }
        bytes = &mut bytes[read..];
        position += read as u64;
    }
    Ok(())
}

/// `SplitMix64`.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device::new(tempfile::tempfile().unwrap())
    }

    #[test]
    fn a_cut_takes_what_was_not_flushed_and_nothing_else() {
        let mut device = device();
        device.write(4000, &[1; 5000]).unwrap();
        device.flush().unwrap();
        device.write(4096, &[2; 512]).unwrap();
        assert_eq!(device.read(4000, 700).unwrap()[96..608], [2; 512]);
        assert_eq!(device.lose(Loss::Everything).unwrap(), Lost { unflushed: 1, lost: 1 });
        assert_eq!(device.read(4000, 5000).unwrap(), [1; 5000]);
        assert_eq!(device.read(9000, 100).unwrap(), [0; 100]);
    }

    #[test]
    fn a_cut_may_keep_some_of_what_was_not_flushed() {
        let mut device = device();
        device.write(4096, &[7; 300 * 4096]).unwrap();
        let lost = device.lose(Loss::Some(1)).unwrap();
        assert!(lost.unflushed == 300 && lost.lost > 100 && lost.lost < 250, "{lost:?}");
        let blocks = device.read(4096, 300 * 4096).unwrap();
        let torn = blocks.chunks(4096).filter(|block| block.contains(&0) && block.contains(&7)).count();
        assert!(torn > 50, "{torn} torn");
    }
}
