use varve_common::{ClusterId, NodeId};
use varve_consensus::Pulse;
pub(super) fn pulse(from: u32, number: u64) -> Pulse {
    Pulse {
        cluster: ClusterId([7; 16]),
        from: NodeId::new(from).unwrap(),
        life: 1,
        number,
        heard: (0, 0),
        beats: vec![],
        answers: vec![],
        resting: vec![],
        disowned: vec![],
        after: 0,
        through: 0,
        reports: vec![],
    }
}
