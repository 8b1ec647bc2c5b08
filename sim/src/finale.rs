//! The end of a run: everything heals, every client is content, and every acknowledged record is read back; then the
//! power is cut once more, and all of it is read again (W1).

use std::time::Duration;

use rand::RngExt;
use varve_common::{Clock, GroupId};
use varve_replica::Input;

use crate::{
    checkers::check_read,
    violation::{Checked, violation},
    world::World,
};

/// Steps after which a healthy node must have answered everybody.
const PATIENCE: usize = 20_000;

impl World {
    /// Heals, drains, reads everything; cuts the power, reads everything again.
    pub fn finale(&mut self) -> Checked {
        self.clients.quiet = true;
        for round in 0..2 {
            self.disk.forget_faults();
            if self.node.is_none() && !self.start()? {
                return Ok(());
            }
            self.drain()?;
            self.check_logs()?;
            self.read_all()?;
            let power = round == 0 || self.random.random_bool(0.5);
            self.crash(power);
        }
        let files = self.disk.files();
        for (path, bytes) in files {
            self.trace.note(format_args!("{} {}", path.display(), varve_common::checksum::crc32c(&bytes)));
        }
        Ok(())
    }

    /// Lets the node work until every client has its answers.
    fn drain(&mut self) -> Checked {
        for _ in 0..PATIENCE {
            self.step()?;
            if self.is_settled() {
                return self.compare();
            }
        }
        let waiting: Vec<_> = self.views.iter().filter(|(_, view)| !view.ready).map(|(group, _)| group).collect();
        Err(violation("L", format!("not settled after {PATIENCE} steps at {:?}; not ready: {waiting:?}", self.clock.monotonic())))
    }

    fn is_settled(&self) -> bool {
        let Some(node) = &self.node else { return false };
        let ready = self.image.as_ref().is_some_and(|image| {
            let serves = |group: &GroupId| self.views.get(group).is_some_and(|view| view.ready);
            image.groups.keys().all(|group| serves(group) || self.offline.contains(group))
        });
        ready && node.log_is_quiet() && self.clients.is_content(&self.offline)
    }

    /// Reads every partition from its log start to its watermark.
    fn read_all(&mut self) -> Checked {
        let views: Vec<_> = self.views.iter().map(|(group, view)| (*group, view.clone())).collect();
        for (group, view) in views {
            if self.offline.contains(&group) || self.clients.deleted.contains(&group) {
                continue;
            }
            let Some(model) = self.model.durable.0.get(&group) else { continue };
            let Some(node) = &self.node else { return Ok(()) };
            let read = crate::read::read_local(&node.reader, group, view.local_start, view.high_watermark);
            let read = match read {
                Ok(read) => read,
                Err(_) if self.rotten => continue,
                Err(error) => return Err(violation("H3", format!("{group}: {error}"))),
            };
            check_read(group, view.local_start, view.high_watermark, &read, model)?;
        }
        Ok(())
    }

    /// Nothing happens for a while.
    pub fn rest(&mut self, span: Duration) {
        let until = self.clock.monotonic().plus(span);
        self.clock.advance(until);
        if let Some(node) = &mut self.node {
            node.turn([Input::Tick]);
        }
    }
}
