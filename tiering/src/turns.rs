//! Whose chunk is asked for next, where more are wanted than may be on their way: what somebody waits for before what is
//! read ahead, and among consumers in turn, so that no deep scan keeps another one waiting for more than its turn.
//!
//! ```text
//!   now    consumer 1: [c7]            --- in turn --+
//!          consumer 2: [c1][c2][c3]...               +--> at most so many on their way
//!   ahead  consumer 2: [c4][c5]...     --- in turn --+    (and of these only a part)
//! ```
//! Memory of what is on its way is bounded by the same number.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

/// Who reads: a client's connection. Whoever does not say is one consumer together with all others who do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Consumer(pub u64);

/// Whether somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Somebody does.
    Now,
    /// Somebody will, if it goes on as it began.
    Ahead,
}

type TicketId = u64;

enum Place {
    Waiting { need: Need, consumer: Consumer, waker: Option<Waker> },
    Going { need: Need },
}

/// The consumers of one need, each with its tickets; the first is next.
#[derive(Default)]
struct Ring {
    order: VecDeque<Consumer>,
    tickets: BTreeMap<Consumer, VecDeque<TicketId>>,
}

impl Ring {
    fn push(&mut self, consumer: Consumer, ticket: TicketId) {
        let tickets = self.tickets.entry(consumer).or_default();
        if tickets.is_empty() {
            self.order.push_back(consumer);
        }
        tickets.push_back(ticket);
    }

    /// The next, and its consumer goes to the end.
    fn pop(&mut self) -> Option<TicketId> {
        let consumer = self.order.pop_front()?;
        let tickets = self.tickets.get_mut(&consumer)?;
        let ticket = tickets.pop_front();
        if tickets.is_empty() {
            self.tickets.remove(&consumer);
        } else {
            self.order.push_back(consumer);
        }
        ticket
    }

    fn remove(&mut self, consumer: Consumer, ticket: TicketId) {
        let Some(tickets) = self.tickets.get_mut(&consumer) else { return };
        tickets.retain(|other| *other != ticket);
        if tickets.is_empty() {
            self.tickets.remove(&consumer);
            self.order.retain(|other| *other != consumer);
        }
    }
}

struct Inner {
    going_max: usize,
    ahead_max: usize,
    going: usize,
    ahead: usize,
    now_ring: Ring,
    ahead_ring: Ring,
    places: BTreeMap<TicketId, Place>,
    next: TicketId,
}

/// A handle; clones share it.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<Inner>>);

impl Turns {
    /// At most `going_max` at a time, and of what is read ahead at most `ahead_max`.
    pub(crate) fn new(going_max: usize, ahead_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            going_max,
            ahead_max,
            going: 0,
            ahead: 0,
            now_ring: Ring::default(),
            ahead_ring: Ring::default(),
            places: BTreeMap::new(),
            next: 0,
        })))
    }

    /// From now on at most so many at a time; those that are going go on.
    pub(crate) fn bound(&self, going_max: usize, ahead_max: usize) {
        let mut inner = self.lock();
        (inner.going_max, inner.ahead_max) = (going_max, ahead_max);
        let woken = inner.grant();
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Stands in line at once; the ticket is a future of the turn, and is the turn until it is dropped.
    pub(crate) fn stand(&self, consumer: Consumer, need: Need) -> Ticket {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.places.insert(id, Place::Waiting { need, consumer, waker: None });
        inner.ring(need).push(consumer, id);
        let woken = inner.grant();
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
        Ticket { turns: self.clone(), id }
    }

    /// Somebody waits now for what was to be read ahead.
    pub(crate) fn hurry(&self, id: TicketId, on_behalf: Consumer) {
        let mut inner = self.lock();
        let Some(Place::Waiting { need, consumer, .. }) = inner.places.get_mut(&id) else { return };
        if *need == Need::Now {
            return;
        }
        let before = std::mem::replace(consumer, on_behalf);
        *need = Need::Now;
        inner.ahead_ring.remove(before, id);
        inner.now_ring.push(on_behalf, id);
        let woken = inner.grant();
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    const fn ring(&mut self, need: Need) -> &mut Ring {
        match need {
            Need::Now => &mut self.now_ring,
            Need::Ahead => &mut self.ahead_ring,
        }
    }

    /// Lets go whom the bounds allow; gives whom to wake.
    fn grant(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.going < self.going_max {
            let mut need = Need::Now;
            let mut id = self.now_ring.pop();
            if id.is_none() && self.ahead < self.ahead_max {
                need = Need::Ahead;
                id = self.ahead_ring.pop();
            }
            let Some(id) = id else { break };
            self.going += 1;
            self.ahead += usize::from(need == Need::Ahead);
            if let Some(Place::Waiting { waker, .. }) = self.places.insert(id, Place::Going { need }) {
                woken.extend(waker);
            }
        }
        woken
    }

    fn leave(&mut self, id: TicketId) -> Vec<Waker> {
        match self.places.remove(&id) {
            Some(Place::Waiting { need, consumer, .. }) => self.ring(need).remove(consumer, id),
            Some(Place::Going { need }) => {
                self.going -= 1;
                self.ahead -= usize::from(need == Need::Ahead);
            }
            None => {}
        }
        self.grant()
    }
}

/// A place in line, then a turn; given back when dropped.
pub(crate) struct Ticket {
    turns: Turns,
    id: TicketId,
}

impl Ticket {
    /// For [`Turns::hurry`].
    pub(crate) const fn id(&self) -> TicketId {
        self.id
    }

    /// Ends when the turn has come.
    pub(crate) fn turn(&mut self) -> impl Future<Output = ()> + Send + '_ {
        Turn(self)
    }
}

struct Turn<'a>(&'a Ticket);

impl Future for Turn<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.turns.lock();
        if let Some(Place::Waiting { waker, .. }) = inner.places.get_mut(&self.0.id) {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let woken = self.turns.lock().leave(self.id);
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Which of them have their turn.
    fn going(tickets: &mut [(&'static str, Ticket)]) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (name, ticket) in tickets {
            if ticket.turn().now_or_never().is_some() {
                names.push(*name);
            }
        }
        names
    }

    fn finish(tickets: &mut Vec<(&'static str, Ticket)>, done: &str) {
        tickets.retain(|(name, _)| *name != done);
    }

    #[test]
    fn a_reader_of_one_chunk_waits_for_no_more_than_its_turn() {
        let turns = Turns::new(2, 1);
        let mut tickets = Vec::new();
        for name in ["a1", "a2", "a3", "a4", "a5"] {
            tickets.push((name, turns.stand(Consumer(1), Need::Now)));
        }
        tickets.push(("b1", turns.stand(Consumer(2), Need::Now)));
        assert_eq!(going(&mut tickets), ["a1", "a2"]);
        finish(&mut tickets, "a1");
        assert_eq!(going(&mut tickets), ["a2", "a3"]);
        finish(&mut tickets, "a2");
        assert_eq!(going(&mut tickets), ["a3", "b1"]);
        finish(&mut tickets, "a3");
        finish(&mut tickets, "b1");
        assert_eq!(going(&mut tickets), ["a4", "a5"]);
    }

    #[test]
    fn what_is_read_ahead_goes_last_takes_a_part_only_and_hurries_when_it_is_wanted() {
        let turns = Turns::new(3, 1);
        let mut tickets = Vec::new();
        for name in ["x1", "x2", "x3"] {
            tickets.push((name, turns.stand(Consumer(1), Need::Ahead)));
        }
        assert_eq!(going(&mut tickets), ["x1"]);
        turns.hurry(tickets[2].1.id(), Consumer(2));
        assert_eq!(going(&mut tickets), ["x1", "x3"]);
        tickets.push(("n", turns.stand(Consumer(3), Need::Now)));
        assert_eq!(going(&mut tickets), ["x1", "x3", "n"]);
        finish(&mut tickets, "x1");
        assert_eq!(going(&mut tickets), ["x2", "x3", "n"]);
    }

    #[test]
    fn a_lower_bound_stops_nobody_and_a_higher_one_lets_more_go() {
        let turns = Turns::new(2, 2);
        let mut tickets = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            tickets.push((name, turns.stand(Consumer(1), Need::Now)));
        }
        turns.bound(1, 1);
        assert_eq!(going(&mut tickets), ["a", "b"]);
        finish(&mut tickets, "a");
        assert_eq!(going(&mut tickets), ["b"]);
        finish(&mut tickets, "b");
        assert_eq!(going(&mut tickets), ["c"]);
        turns.bound(9, 9);
        assert_eq!(going(&mut tickets), ["c", "d", "e"]);
    }

    #[test]
    fn who_gives_up_leaves_no_gap() {
        let turns = Turns::new(1, 1);
        let mut tickets = Vec::new();
        for name in ["a", "b", "c"] {
            tickets.push((name, turns.stand(Consumer(1), Need::Now)));
        }
        finish(&mut tickets, "b");
        finish(&mut tickets, "a");
        assert_eq!(going(&mut tickets), ["c"]);
        drop(tickets);
        let inner = turns.lock();
        assert!(inner.places.is_empty() && inner.going == 0 && inner.now_ring.order.is_empty());
    }
}
