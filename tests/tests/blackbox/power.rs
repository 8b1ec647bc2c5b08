//! Real power cuts: what was not flushed is gone, so only what was fsynced is there after the remount.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use varve_tests::{
    node::{Node, Options},
    power::{Loss, PowerDisk},
    scale,
    tool::{Tool, scripts},
};

use crate::proof::{Chance, check_all, create_topics, finish_writers, start_writers, wait_until_tiered};

const DISK_BYTES: u64 = 3 << 30;

/// Every other cut takes all that was not flushed; the others some of it.
fn loss(chance: &mut Chance, cut: u64) -> Loss {
    if cut.is_multiple_of(2) { Loss::Everything } else { Loss::Some(chance.below(u64::MAX)) }
}

/// The control, without Varve: a program that syncs each write and is believed. What it was told is durable survives each cut; a
/// write that it did not sync is lost, or the cuts would prove nothing.
#[test]
fn the_disk_keeps_what_was_synced_and_loses_the_rest() {
    if !Tool::need(&[Tool::PowerLoss]) {
        return;
    }
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new(256 << 20);
    for cut in 0..scale("VARVE_POWER_CONTROLS", 8) {
        let kind = ["unwritten", "written", "direct", "append"][cut as usize % 4];
        let path = disk.mount().join("control");
        let _ = fs::remove_file(&path);
        let mut command = Command::new("python3");
        command.arg(scripts().join("append.py")).arg(&path).args([kind, "16384"]);
        let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let reader = thread::spawn(move || lines.map_while(Result::ok).count());
        thread::sleep(Duration::from_millis(20 + chance.below(300)));
        fs::write(disk.mount().join("unsynced"), vec![1; 1 << 20]).unwrap();
        let lost = disk.cut(&mut program, loss(&mut chance, cut / 4));
        let durable = reader.join().unwrap();
        let bytes = fs::read(&path).unwrap();
        for (at, block) in bytes.chunks(4096).take(durable).enumerate() {
            let expected = (at as u64 + 1).to_le_bytes().repeat(512);
            assert!(block == expected, "{kind}: block {at} of {durable} synced ones is lost ({lost:?})");
        }
        assert!(bytes.len() >= durable * 4096, "{kind}: {} bytes hold {durable} synced blocks", bytes.len());
        let unsynced = fs::read(disk.mount().join("unsynced")).unwrap_or_default();
        assert!(unsynced != vec![1; 1 << 20], "what nobody synced survived the cut: it was none");
        println!("{kind}: {durable} synced blocks kept, {lost:?}");
    }
}

/// W1 and B4 with the log and the directory store on the disk that is cut.
#[test]
fn w1_every_acknowledged_record_survives_power_cuts() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::PowerLoss]) {
        return;
    }
    let cuts = scale("VARVE_POWER_CUTS", 30);
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new(DISK_BYTES);
    let options = Options { data: Some(disk.mount().join("data")), ..Options::small() };
    let mut node = Node::start(options);
    create_topics(&node);
    let writers = start_writers(&node, scale("VARVE_PROOF_RECORDS", 18_000 * cuts), 5 * cuts);
    for cut in 0..cuts {
        thread::sleep(Duration::from_millis(1000 + chance.below(3000)));
        let lost = disk.cut(&mut node, loss(&mut chance, cut));
        println!("cut {cut}: {lost:?}");
        node.restart();
    }
    let ledgers = finish_writers(&node, writers);
    check_all(&node, &ledgers);
    wait_until_tiered(&node);
    // At rest: what is only in the store is there as well.
    disk.cut(&mut node, Loss::Everything);
    node.restart();
    check_all(&node, &ledgers);
    node.kill();
}

/// W4: a disk that fails under it ends the process, and not with success; what was acknowledged before is there with the next one.
#[test]
fn w4_a_disk_that_fails_ends_the_process() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::PowerLoss]) {
        return;
    }
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new(DISK_BYTES);
    let options = Options { data: Some(disk.mount().join("data")), ..Options::small() };
    let mut node = Node::start(options);
    create_topics(&node);
    let writers = start_writers(&node, 18_000, 5);
    thread::sleep(Duration::from_millis(1000 + chance.below(3000)));
    disk.fail();
    assert!(!node.wait_exit(30).success(), "the node went on without a disk");
    disk.replace(loss(&mut chance, 0));
    node.restart();
    check_all(&node, &finish_writers(&node, writers));
    node.kill();
}
