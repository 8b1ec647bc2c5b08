//! The bucket's settings, and what they do to objects that are written once and deleted by their owner alone.

use serde_json::{Value, json};
use varve_objects::{
    Failure,
    admin::{Admin, Rule, Versioning},
};

use crate::output::Table;

/// `None`: it could not be read, which is no fault: a broker needs no right to.
#[derive(Debug, Default)]
pub struct Settings {
    versioning: Option<Versioning>,
    encryption: Option<Option<String>>,
    object_lock: Option<bool>,
    lifecycle: Option<Vec<Rule>>,
}

impl Settings {
    pub async fn read(admin: &Admin) -> Self {
        Self {
            versioning: known(admin.versioning().await),
            encryption: known(admin.encryption().await),
            object_lock: known(admin.object_lock().await),
            lifecycle: known(admin.lifecycle().await),
        }
    }

    /// What loses data.
    pub fn dangers(&self) -> Vec<String> {
        let rules = self.lifecycle.iter().flatten().filter(|rule| rule.expires);
        let danger = |rule: &Rule| {
            format!(
                "lifecycle rule {:?} expires objects below {:?}: it deletes acknowledged records; exclude varve's prefix from it",
                rule.id, rule.prefix
            )
        };
        rules.map(danger).collect()
    }

    /// What costs money or latency.
    pub fn wishes(&self) -> Vec<String> {
        let mut wishes = Vec::new();
        let rules = || self.lifecycle.iter().flatten();
        let keeps = matches!(self.versioning, Some(Versioning::Enabled | Versioning::Suspended));
        if keeps && self.lifecycle.is_some() && !rules().any(|rule| rule.expires_old_versions) {
            wishes.push(
                "versioning keeps what varve deletes, and it is paid for: add a lifecycle rule with NoncurrentVersionExpiration, \
                 as long as you want to be able to undo a deletion"
                    .to_owned(),
            );
        }
        if self.object_lock == Some(true) {
            wishes.push(
                "object lock can forbid deletions: retention by time then frees nothing until a lock expires"
                    .to_owned(),
            );
        }
        for rule in rules().filter(|rule| rule.moves) {
            wishes.push(format!(
                "lifecycle rule {:?} moves objects below {:?} to another storage class: instant-retrieval classes are fine, \
                 archive classes make cold reads fail",
                rule.id, rule.prefix
            ));
        }
        wishes
    }

    pub fn table(&self) -> String {
        let mut table = Table::new(&["SETTING", "VALUE"]);
        for (name, value) in self.rows() {
            table.row([name.to_owned(), value]);
        }
        table.render()
    }

    fn rows(&self) -> [(&'static str, String); 4] {
        let unknown = || "not readable".to_owned();
        let versioning =
            self.versioning.map_or_else(unknown, |versioning| format!("{versioning:?}").to_lowercase());
        let encryption = match &self.encryption {
            None => unknown(),
            Some(None) => "none set".to_owned(),
            Some(Some(algorithm)) => algorithm.clone(),
        };
        let lock = self.object_lock.map_or_else(unknown, |on| if on { "enabled" } else { "off" }.to_owned());
        let rules = self.lifecycle.as_ref().map_or_else(unknown, |rules| format!("{} rules", rules.len()));
        [("versioning", versioning), ("encryption", encryption), ("object lock", lock), ("lifecycle", rules)]
    }

    pub fn to_json(&self) -> Value {
        let rule = |rule: &Rule| json!({"id": rule.id, "prefix": rule.prefix, "expires": rule.expires});
        json!({
            "versioning": self.versioning.map(|versioning| format!("{versioning:?}").to_lowercase()),
            "encryption": self.encryption.clone().flatten(),
            "object_lock": self.object_lock,
            "lifecycle": self.lifecycle.as_ref().map(|rules| rules.iter().map(rule).collect::<Value>()),
        })
    }
}

fn known<T>(found: Result<T, Failure>) -> Option<T> {
    found.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_expires_records_is_a_danger_and_unbounded_versions_a_wish() {
        let rule = Rule { id: "tidy up".into(), expires: true, ..Rule::default() };
        let settings = Settings {
            versioning: Some(Versioning::Enabled),
            lifecycle: Some(vec![rule.clone()]),
            ..Settings::default()
        };
        assert_eq!((settings.dangers().len(), settings.wishes().len()), (1, 1));
        let bounded = Rule { expires: false, expires_old_versions: true, ..rule };
        let settings = Settings { lifecycle: Some(vec![bounded]), ..settings };
        assert_eq!((settings.dangers().len(), settings.wishes().len()), (0, 0));
    }

    #[test]
    fn what_cannot_be_read_is_neither() {
        let settings = Settings::default();
        assert_eq!((settings.dangers().len(), settings.wishes().len()), (0, 0));
        assert!(settings.table().contains("not readable"));
    }
}
