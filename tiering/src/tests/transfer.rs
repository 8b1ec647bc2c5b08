//! Out of the log: uploads and sealed files.

use futures_util::future::join;
use varve_common::{Digest, Disk, LogIndex, Offset, Term};
use varve_formats::{keys::Key, manifest::EntryKind, segment};
use varve_objects::{
    Operation, PutError,
    testing::{Fault, FaultRates},
};
use varve_protocol::batch::Codec;
use varve_wal::testing::Injected;

use super::support::{GROUP, Node, TERM, identity, objects, read_all};
use crate::{
    DamageCause, ReadError, SealError, SourceError, UploadError, UploadKey, limits::SEGMENT_OVERHEAD_BYTES,
};

fn rolled() -> Node {
    let mut node = Node::new();
    node.elect();
    node.append(Codec::None, &[(5, b"plain"), (6, b"again")]);
    node.append(Codec::Zstd, &[(7, &[7; 900]), (4, b"x")]);
    node.elect();
    node.fill(3, 400);
    node.roll();
    node
}

#[test]
fn b6_h13_a_segment_holds_the_logs_bytes_and_reads_back_identical() {
    let mut node = rolled();
    let roll = node.rolls[0].clone();
    node.tier();
    let object = node.store.inner().objects()[0].1.clone();
    let verified = segment::verify(&object).unwrap();
    assert_eq!((verified.footer.batch_bytes, verified.footer.batch_crcs), (roll.bytes, roll.batch_crcs));
    let entry = &node.root.entries[0];
    assert_eq!((entry.sha256, entry.length), (Digest::of(&object), object.len() as u64));
    assert_eq!((entry.first_index, entry.roll_index, entry.roll_term), (LogIndex(1), roll.roll_index, TERM));
    node.cut(roll.roll_index);
    node.forget_tail();
    assert_eq!(read_all(&node, Offset(0), 100).unwrap(), node.expected(Offset(0)));
}

#[test]
fn b6_a_range_that_is_not_what_the_roll_promises_is_refused() {
    let node = rolled();
    let good = node.rolls[0].clone();
    let mut cases = vec![];
    for (what, change) in [("bytes", 0), ("digest of batch checksums", 1), ("largest timestamp", 2)] {
        let mut roll = good.clone();
        match change {
            0 => roll.bytes += 1,
            1 => roll.batch_crcs ^= 1,
            _ => roll.max_timestamp += 1,
        }
        cases.push((what, roll));
    }
    for (expected, roll) in cases {
        let error = node.local.seal(GROUP, &node.segment(), node.source(&roll)).unwrap_err();
        assert!(
            matches!(error, SealError::Source(SourceError::Promise { what, .. }) if what == expected),
            "{error}"
        );
        let key = UploadKey { term: TERM, uid: 1 };
        let error =
            node.executor.run(node.uploader.upload(&node.segment(), node.source(&roll), key)).unwrap_err();
        assert!(matches!(error, UploadError::Source(SourceError::Promise { .. })), "{error}");
    }
    assert_eq!(objects(&node), Vec::<String>::new());
    assert_eq!(
        node.disk.list(node.local.path(GROUP, good.base, good.end).parent().unwrap()).unwrap(),
        [""; 0]
    );
    let mut other = good;
    other.roll_term = Term(9);
    let error = node.local.seal(GROUP, &node.segment(), node.source(&other)).unwrap_err();
    assert!(matches!(error, SealError::Source(SourceError::Term { .. })), "{error}");
}

fn bytes_of(mut source: crate::RangeSource) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(batches) = source.next_batches().unwrap() {
        bytes.extend_from_slice(&batches);
    }
    bytes
}

#[test]
fn what_is_in_memory_is_not_read_from_the_log() {
    let node = rolled();
    let whole: Vec<u8> = node.model.iter().flat_map(|batch| batch.2.to_vec()).collect();
    let source = || node.source(&node.rolls[0]).with_tail(node.view.tail().clone());
    let read = node.disk.bytes_read();
    assert_eq!(bytes_of(source()), whole);
    assert_eq!(node.disk.bytes_read(), read);
    for (from, until) in [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)] {
        node.forget_tail();
        for (base, end, batch) in &node.model[from..until] {
            node.view.tail().push(GROUP, *base, *end, batch.clone());
        }
        assert_eq!(bytes_of(source()), whole, "with {from}..{until} in memory");
        assert!(node.disk.bytes_read() > read);
    }
}

#[test]
fn memory_that_changed_is_not_uploaded() {
    let node = rolled();
    let whole: Vec<u8> = node.model.iter().flat_map(|batch| batch.2.to_vec()).collect();
    for changed in 0..node.model.len() {
        node.forget_tail();
        for (place, (base, end, batch)) in node.model.iter().enumerate() {
            let mut bytes = batch.to_vec();
            *bytes.last_mut().unwrap() ^= u8::from(place == changed);
            node.view.tail().push(GROUP, *base, *end, bytes.into());
        }
        let source = node.source(&node.rolls[0]).with_tail(node.view.tail().clone());
        assert_eq!(bytes_of(source), whole, "batch {changed}");
    }
}

#[test]
fn t37_two_uploads_of_one_range_read_equal() {
    let mut node = rolled();
    let roll = node.rolls[0].clone();
    let (one, other) = (UploadKey { term: TERM, uid: 1 }, UploadKey { term: Term(4), uid: 2 });
    let segment = node.segment();
    let (one, other) = node.executor.run(join(
        node.uploader.upload(&segment, node.source(&roll), one),
        node.uploader.upload(&segment, node.source(&roll), other),
    ));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((objects(&node).len(), one.sha256), (2, other.sha256));
    assert_ne!((one.term, one.uid), (other.term, other.uid));
    node.cut(roll.roll_index);
    node.forget_tail();
    node.rolls.clear();
    for entry in [one, other] {
        let mut root = varve_formats::manifest::Root::default();
        root.append(vec![entry], Offset(0)).unwrap();
        node.root = root.into();
        assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
    }
}

#[test]
fn t41_row_53_a_put_whose_answer_was_lost_is_our_own_success_on_the_next_try() {
    let node = rolled();
    node.store.script(Operation::Put, Fault::ErrorAfter);
    let key = UploadKey { term: TERM, uid: 1 };
    let segment = node.segment();
    let upload = || node.executor.run(node.uploader.upload(&segment, node.source(&node.rolls[0]), key));
    assert!(matches!(upload(), Err(UploadError::Put(PutError::Failed(failure))) if failure.is_retriable()));
    assert_eq!(upload().unwrap().uid, 1);
    assert_eq!(objects(&node).len(), 1);
}

#[test]
fn row_54_a_taken_key_with_other_bytes_is_not_our_success() {
    let node = rolled();
    let key = UploadKey { term: TERM, uid: 1 };
    let segment = node.segment();
    let entry = node.executor.run(node.uploader.upload(&segment, node.source(&node.rolls[0]), key)).unwrap();
    let object = node.keys.entry(node.identity.topic_id, node.identity.partition, &entry).unwrap();
    node.store.inner().tamper(&object, bytes::Bytes::from_static(b"another's"));
    let again = node.executor.run(node.uploader.upload(&segment, node.source(&node.rolls[0]), key));
    assert!(matches!(again, Err(UploadError::Put(PutError::AlreadyExists))));
}

#[test]
fn t42_no_character_of_a_topics_name_reaches_a_key() {
    let mut node = rolled();
    node.identity = identity("../a b%2F+ü=&?");
    node.tier();
    let key = &objects(&node)[0];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/.".contains(&byte);
    assert!(key.bytes().all(plain) && !key.contains(".."), "{key}");
    let parsed = node.keys.parse(&node.store.inner().objects()[0].0).unwrap();
    assert!(matches!(parsed, Key::Segment(..)));
    let roll_index = node.root.entries[0].roll_index;
    node.cut(roll_index);
    node.forget_tail();
    assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
}

#[test]
fn uploads_hold_no_more_than_their_budget() {
    let mut node = Node::new();
    node.budget = crate::UploadBudget::new(2 * (SEGMENT_OVERHEAD_BYTES + 20_000));
    node.uploader = crate::Uploader::new(node.counting.clone(), node.keys.clone(), node.budget.clone());
    for _ in 0..6 {
        (0..4).for_each(|_| node.fill(2, 2_000));
        node.roll();
    }
    node.store.set_rates(FaultRates::default());
    let segment = node.segment();
    let uploads = node.rolls.iter().enumerate().map(|(uid, roll)| {
        let key = UploadKey { term: TERM, uid: uid as u64 };
        node.uploader.upload(&segment, node.source(roll), key)
    });
    let entries = node.executor.run(futures_util::future::join_all(uploads));
    assert!(entries.iter().all(Result::is_ok));
    assert_eq!((node.budget.held(), objects(&node).len()), (0, 6));
    assert!(node.budget.held_max() <= 2 * (SEGMENT_OVERHEAD_BYTES + 20_000));
}

#[test]
fn a_sealed_file_serves_and_uploads_what_the_log_has_lost() {
    let mut node = rolled();
    let roll = node.rolls[0].clone();
    let seal = node.seal(&roll);
    assert_eq!(
        (seal.base, seal.end, seal.last_index, seal.last_term),
        (roll.base, roll.end, roll.roll_index, TERM)
    );
    node.local.verify(GROUP, &seal).unwrap();
    node.cut(roll.roll_index);
    node.forget_tail();
    assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
    node.tier();
    node.seals.clear();
    node.local.remove(GROUP, seal.base, seal.end).unwrap();
    assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
}

#[test]
fn w5_a_power_cut_at_any_step_of_sealing_leaves_a_whole_file_or_none() {
    let clean = rolled();
    let before = clean.disk.operations();
    let seal = clean.local.seal(GROUP, &clean.segment(), clean.source(&clean.rolls[0])).unwrap();
    let steps = clean.disk.operations() - before;
    for step in 0..=steps {
        for seed in 0..6 {
            let node = rolled();
            if step < steps {
                node.disk.inject(node.disk.operations() + step + 1, Injected::Eio);
            }
            let sealed = node.local.seal(GROUP, &node.segment(), node.source(&node.rolls[0]));
            assert_eq!(sealed.is_ok(), step == steps);
            let disk = std::sync::Arc::new(node.disk.power_cut(seed));
            let local = crate::LocalSegments::new(disk, "data/segments".into());
            match local.verify(GROUP, &seal) {
                Ok(()) => {}
                Err(damaged) => {
                    assert!(damaged.cause == DamageCause::Missing && step < steps, "{step}: {damaged}")
                }
            }
        }
    }
}

#[test]
fn a_leftover_of_a_crash_is_replaced() {
    let node = rolled();
    let path = node.local.path(GROUP, node.rolls[0].base, node.rolls[0].end);
    node.disk.create_directory(path.parent().unwrap()).unwrap();
    for leftover in [path.clone(), path.with_extension("seg.tmp")] {
        let file = node.disk.create(&leftover, varve_common::Access::Buffered).unwrap();
        file.write_at(b"half", 0).unwrap();
    }
    let seal = node.local.seal(GROUP, &node.segment(), node.source(&node.rolls[0])).unwrap();
    node.local.verify(GROUP, &seal).unwrap();
}

#[test]
fn leftovers_of_a_crash_are_removed_and_marked_files_are_not() {
    let mut node = rolled();
    let roll = node.rolls[0].clone();
    let seal = node.seal(&roll);
    let unmarked = node.local.path(GROUP, seal.end, Offset(seal.end.0 + 1));
    for leftover in [unmarked.clone(), unmarked.with_extension("seg.tmp")] {
        node.disk.create(&leftover, varve_common::Access::Buffered).unwrap();
    }
    assert_eq!(node.local.groups().unwrap(), [GROUP].into());
    assert_eq!(node.local.remove_surplus(GROUP, &[(seal.base, seal.end)]).unwrap(), 2);
    assert_eq!(node.disk.list(unmarked.parent().unwrap()).unwrap().len(), 1);
    node.local.verify(GROUP, &seal).unwrap();
}

#[test]
fn a_full_disk_fails_the_seal_and_nothing_else() {
    let node = rolled();
    node.disk.inject(node.disk.operations() + 3, Injected::Enospc);
    let error = node.local.seal(GROUP, &node.segment(), node.source(&node.rolls[0])).unwrap_err();
    assert!(matches!(error, SealError::Disk { .. }), "{error}");
    assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
    node.local.seal(GROUP, &node.segment(), node.source(&node.rolls[0])).unwrap();
}

#[test]
fn row_23_a_flipped_bit_in_a_sealed_file_is_damage_and_never_served() {
    let mut node = rolled();
    let roll = node.rolls[0].clone();
    let seal = node.seal(&roll);
    let path = node.local.path(GROUP, seal.base, seal.end);
    node.cut(roll.roll_index);
    node.forget_tail();
    let expected = node.expected(Offset(0));
    for bit in (0..seal.bytes * 8).step_by(97) {
        node.disk.flip_bit(&path, bit);
        // A node that starts anew, so that nothing is remembered of the file.
        let local = crate::LocalSegments::new(std::sync::Arc::new(node.disk.clone()), "data/segments".into());
        node.view = crate::LogView::new(
            node.view.tail().clone(),
            node.wal.clone(),
            local.clone(),
            node.view.cold().clone(),
        );
        assert!(local.verify(GROUP, &seal).is_err());
        match read_all(&node, Offset(0), 1000) {
            Ok(read) => assert_eq!(read, expected, "a bit that no record depends on"),
            Err(error) => assert!(matches!(error, ReadError::Local(_)), "{error}"),
        }
        node.disk.flip_bit(&path, bit);
    }
}

#[test]
fn a_marked_file_that_is_missing_is_damaged_never_absent() {
    let mut node = rolled();
    let roll = node.rolls[0].clone();
    let seal = node.seal(&roll);
    node.cut(roll.roll_index);
    node.forget_tail();
    node.disk.remove(&node.local.path(GROUP, seal.base, seal.end)).unwrap();
    match read_all(&node, Offset(0), 1000) {
        Err(ReadError::Local(damaged)) => assert_eq!(damaged.cause, DamageCause::Missing),
        other => panic!("{other:?}"),
    }
    let gone = node.local.remove(GROUP, seal.base, seal.end);
    assert!(gone.is_ok(), "removing twice is fine");
}

#[test]
fn row_23_a_damaged_file_is_replaced_by_the_bytes_that_its_mark_promises_and_by_no_others() {
    let mut node = rolled();
    let roll = node.rolls[0].clone();
    let seal = node.seal(&roll);
    node.tier();
    // The object holds the same bytes: that is what makes it a copy.
    let object = node.store.inner().objects()[0].1.clone();
    node.disk.flip_bit(&node.local.path(GROUP, seal.base, seal.end), 700);
    assert!(node.local.check(GROUP, &seal).is_err());
    assert!(node.local.take_damaged().is_empty(), "who repairs it tells nobody before");
    assert!(node.local.replace(GROUP, &seal, &object[1..]).is_err());
    assert!(node.local.verify(GROUP, &seal).is_err());
    node.local.replace(GROUP, &seal, &object).unwrap();
    node.local.verify(GROUP, &seal).unwrap();
    node.cut(roll.roll_index);
    node.forget_tail();
    assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
}

#[test]
fn row_60_an_object_that_is_gone_is_put_again_from_the_log_or_a_sealed_file() {
    for source_is_cut in [false, true] {
        let mut node = rolled();
        let roll = node.rolls[0].clone();
        let seal = node.seal(&roll);
        node.tier();
        let entry = node.root.entries[0].clone();
        let mut source = crate::RangeSource::of_entry(node.wal.clone(), GROUP, &entry);
        if source_is_cut {
            node.cut(roll.roll_index);
            source = source.or_sealed(node.local.open(GROUP, &node.identity, &seal).unwrap());
        }
        let key = UploadKey { term: TERM, uid: 99 };
        let (uploader, segment) = (node.uploader.clone(), node.segment());
        let added = node.executor.run(uploader.upload_again(&segment, source, key, &entry)).unwrap();
        assert_eq!((added.kind, added.uid, added.count), (EntryKind::Merged, 99, entry.count));
        assert_eq!((added.base, added.last, added.roll_index), (entry.base, entry.last, entry.roll_index));
        let root = std::sync::Arc::make_mut(&mut node.root);
        root.replace(&[entry.uid], vec![added]).unwrap();
        node.local.remove(GROUP, seal.base, seal.end).unwrap();
        node.seals.clear();
        node.cut(roll.roll_index);
        node.forget_tail();
        assert_eq!(read_all(&node, Offset(0), 1000).unwrap(), node.expected(Offset(0)));
    }
}

#[test]
fn row_60_what_holds_other_records_than_the_object_did_takes_not_its_place() {
    let mut node = rolled();
    node.tier();
    let mut entry = node.root.entries[0].clone();
    entry.batch_bytes += 1;
    let source = crate::RangeSource::of_entry(node.wal.clone(), GROUP, &entry);
    let (uploader, segment) = (node.uploader.clone(), node.segment());
    let key = UploadKey { term: TERM, uid: 99 };
    let error = node.executor.run(uploader.upload_again(&segment, source, key, &entry)).unwrap_err();
    assert!(matches!(error, UploadError::Source(SourceError::Promise { what: "bytes", .. })), "{error}");
}
