//! Coordinators in memory: what they write is applied at once.

use std::collections::BTreeMap;

use varve_common::{GroupId, Monotonic};
use varve_replica::{
    Now, Refusal, Ticket,
    coordinator::{Coordinator, Groups, Options, Outcome, Request},
};

/// The coordinators of a node, by partition.
#[derive(Default)]
pub struct Coordinators(BTreeMap<GroupId, (Coordinator, Groups)>);

impl Coordinators {
    /// Asks one; what would wait for others is refused.
    pub fn ask(&mut self, group: GroupId, request: Request) -> Result<Outcome, Refusal> {
        let now = Now { monotonic: Monotonic::default(), wall_ms: 1_000 };
        let (coordinator, groups) = self.0.entry(group).or_insert_with(|| {
            let options = Options { initial_delay: std::time::Duration::ZERO, ..Options::default() };
            (Coordinator::load(options, now, &Groups::default()), Groups::default())
        });
        coordinator.request(now, Ticket(1), request, groups);
        coordinator.tick(now, groups);
        loop {
            let appends = coordinator.take_appends();
            if appends.is_empty() {
                break;
            }
            for append in appends {
                groups.apply(&append.batch);
                coordinator.written(now, append.write, Ok(()), groups);
            }
        }
        let answer = coordinator.take_replies().pop();
        answer.map(|(_, outcome)| outcome).ok_or(Refusal::Unknown)
    }
}
