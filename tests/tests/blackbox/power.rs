//! Real power cuts: the file system is shut down by force under load, so that only what was fsynced is there after the remount.

use std::{thread, time::Duration};

use varve_tests::{
    node::{Node, Options},
    power::PowerDisk,
    scale,
    tool::Tool,
};

use crate::proof::{Chance, check_all, create_topics, finish_writers, start_writers, wait_until_tiered};

/// W1 and B4 with the log and the directory store on the disk that is cut.
#[test]
fn w1_every_acknowledged_record_survives_power_cuts() {
    if !Tool::need(&[Tool::Python, Tool::Kcat, Tool::PowerLoss]) {
        return;
    }
    let cuts = scale("VARVE_POWER_CUTS", 5);
    let mut chance = Chance::from_environment();
    let disk = PowerDisk::new("3G");
    let options = Options { data: Some(disk.mount().join("data")), ..Options::small() };
    let mut node = Node::start(options);
    create_topics(&node);
    let writers = start_writers(&node, scale("VARVE_PROOF_RECORDS", 90_000), 5 * cuts);
    for _ in 0..cuts {
        thread::sleep(Duration::from_millis(1000 + chance.below(3000)));
        disk.cut();
        // W4: it cannot write any more, so it must end by itself, and not with success.
        assert!(!node.wait_exit(30).success(), "the node went on without a disk");
        disk.remount();
        node.restart();
    }
    let ledgers = finish_writers(&node, writers);
    check_all(&node, &ledgers);
    wait_until_tiered(&node);
    // At rest it writes nothing, so it need not notice that the disk is gone: the machine ends with it.
    disk.cut();
    node.kill();
    disk.remount();
    node.restart();
    check_all(&node, &ledgers);
    node.kill();
}
