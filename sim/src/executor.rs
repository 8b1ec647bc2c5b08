//! A deterministic executor: one thread, tasks polled in the order in which they were woken.
//!
//! The background jobs of the broker are futures. In production tokio runs them; here they run between the steps of the
//! simulation, and a crash drops them all wherever they stand.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
};

use varve_common::clock::BoxFuture;

/// Names a task of one executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskId(u64);

#[derive(Default)]
struct Woken(Mutex<VecDeque<TaskId>>);

impl Woken {
    fn push(&self, task: TaskId) {
        let mut queue = self.0.lock().expect("the simulator is one thread");
        if !queue.contains(&task) {
            queue.push_back(task);
        }
    }

    fn pop(&self) -> Option<TaskId> {
        self.0.lock().expect("the simulator is one thread").pop_front()
    }
}

struct TaskWaker {
    task: TaskId,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.push(self.task);
    }
}

/// Runs tasks that end in a `T`.
pub struct Executor<T> {
    tasks: BTreeMap<TaskId, BoxFuture<'static, T>>,
    woken: Arc<Woken>,
    next: u64,
}

impl<T> Default for Executor<T> {
    fn default() -> Self {
        Self { tasks: BTreeMap::new(), woken: Arc::default(), next: 0 }
    }
}

impl<T> Executor<T> {
    /// Adds a task; it is polled at the next step.
    pub fn spawn(&mut self, task: BoxFuture<'static, T>) {
        let id = TaskId(self.next);
        self.next += 1;
        self.tasks.insert(id, task);
        self.woken.push(id);
    }

    /// Polls the task that was woken first; its result if it ended. `None` inside `Some` where it goes on, `None` where no
    /// task can run.
    pub fn step(&mut self) -> Option<Option<T>> {
        loop {
            let id = self.woken.pop()?;
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let waker = Waker::from(Arc::new(TaskWaker { task: id, woken: self.woken.clone() }));
            return match Pin::as_mut(task).poll(&mut Context::from_waker(&waker)) {
                std::task::Poll::Ready(value) => {
                    self.tasks.remove(&id);
                    Some(Some(value))
                }
                std::task::Poll::Pending => Some(None),
            };
        }
    }

    /// How many tasks have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether all tasks have ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Drops all tasks where they stand: the process died.
    pub fn kill(&mut self) {
        *self = Self::default();
    }
}

/// Runs one future to its end on `clock`: for set-up code outside a simulation.
pub fn block_on<T>(clock: &crate::clock::SimClock, task: impl Future<Output = T> + Send + 'static) -> T {
    let mut executor = Executor::default();
    executor.spawn(Box::pin(task));
    loop {
        match executor.step() {
            Some(Some(value)) => return value,
            Some(None) => {}
            None => clock.advance(clock.next_timer().expect("a task that waits has a timer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use varve_common::Clock;

    use super::*;
    use crate::clock::SimClock;

    #[test]
    fn time_jumps_to_the_next_timer_and_tasks_end_in_its_order() {
        let clock = SimClock::default();
        let mut executor = Executor::default();
        for (name, wait) in [("late", 30), ("early", 10), ("middle", 20)] {
            let sleep = clock.sleep(Duration::from_secs(wait));
            executor.spawn(Box::pin(async move {
                sleep.await;
                name
            }));
        }
        let mut ended = Vec::new();
        while !executor.is_empty() {
            match executor.step() {
                Some(Some(name)) => ended.push((name, clock.monotonic().0.as_secs())),
                Some(None) => {}
                None => clock.advance(clock.next_timer().unwrap()),
            }
        }
        assert_eq!(ended, [("early", 10), ("middle", 20), ("late", 30)]);
    }

    #[test]
    fn a_killed_task_never_ends_and_leaves_no_timer() {
        let clock = SimClock::default();
        let mut executor = Executor::default();
        executor.spawn(clock.sleep(Duration::from_secs(1)));
        assert!(matches!(executor.step(), Some(None)));
        executor.kill();
        assert_eq!((executor.len(), clock.next_timer()), (0, None));
    }
}
