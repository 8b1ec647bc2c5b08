//! One store, seen by each class of the node's budget.

use std::sync::Arc;

use varve_common::{Clock, Entropy};

use crate::{
    RetryOptions, Retrying, Store,
    budget::{Budgets, Class},
};

/// The only way to the store above `broker::runtime`: whoever asks says on whose behalf. Clones share everything.
#[derive(Clone)]
pub struct Stores {
    by_class: Arc<[Arc<dyn Store>]>,
    budgets: Budgets,
}

impl Stores {
    /// `inner`, with retries, each try within `budgets`.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Store>,
        budgets: Budgets,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
        options: RetryOptions,
    ) -> Self {
        let of = |class| {
            let retrying = Retrying::new(Arc::clone(&inner), Arc::clone(clock), Arc::clone(entropy), options);
            Arc::new(retrying.within(budgets.clone(), class)) as Arc<dyn Store>
        };
        Self { by_class: Class::ALL.map(of).into(), budgets }
    }

    /// The store as `class` may use it.
    #[must_use]
    pub fn of(&self, class: Class) -> Arc<dyn Store> {
        Arc::clone(&self.by_class[class as usize])
    }

    /// The budgets that all of them share.
    #[must_use]
    pub const fn budgets(&self) -> &Budgets {
        &self.budgets
    }
}
