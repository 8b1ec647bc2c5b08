//! `doctor s3`: the rights that a broker needs, one by one; the suite that every store has to pass, against a user's bucket; its settings;
//! how fast it is; and what to change. It works below `{prefix}/probe/`, in a folder of its own, and leaves it empty; where it may not,
//! it leaves one object and says which.

mod advice;
mod latency;
mod rights;
mod settings;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use varve_broker::{
    config::{Config, ObjectStore, Sources},
    runtime::clock::SystemEntropy,
};
use varve_common::Entropy as _;
use varve_objects::{
    S3, Store as _,
    admin::Admin,
    conformance::Check,
    probe::{self, Verdict},
};

use self::{latency::Latency, rights::Rights, settings::Settings};
use crate::{
    args::{DoctorCommand, DoctorS3},
    failure::Failure,
    output::{self, Table},
};

pub fn run(command: &DoctorCommand, sources: Sources) -> Result<(), Failure> {
    let DoctorCommand::S3(flags) = command;
    let config = flags.store.load(sources)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(examine(flags, &config))?;
    output::print(flags.output.format(), || report.text(), || report.to_json())?;
    if report.conclusion().is_usable() { Ok(()) } else { Err(Failure::Reported) }
}

/// What one check found, and how long it took.
struct Finding {
    check: Check,
    /// `None` where it was not made, because a right is missing.
    verdict: Option<Verdict>,
    took: Duration,
}

/// Everything that was found out.
struct Report {
    store: String,
    rights: Rights,
    findings: Vec<Finding>,
    settings: Settings,
    latencies: Vec<Latency>,
    /// Objects that could not be deleted again, as far as is known.
    left: Vec<String>,
    advice: Vec<String>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conclusion {
    Good,
    WithCare,
    Refused,
    Lacking,
    Unreachable,
}

impl Conclusion {
    const fn is_usable(self) -> bool {
        matches!(self, Self::Good | Self::WithCare)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::WithCare => "with-care",
            Self::Refused => "refused",
            Self::Lacking => "lacking-rights",
            Self::Unreachable => "unreachable",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Good => "varve can use this bucket",
            Self::WithCare => "varve can use this bucket, with care: see below",
            Self::Refused => "varve must not use this bucket: see below",
            Self::Lacking => "varve lacks rights on this bucket: see below",
            Self::Unreachable => "the bucket could not be checked: see below",
        }
    }
}

async fn examine(flags: &DoctorS3, config: &Config) -> Result<Report, Failure> {
    let ObjectStore::S3 { bucket, prefix } = &config.object_store else {
        return Err(Failure::usage(
            "doctor s3 checks a bucket: name it with --object-store s3://bucket/prefix",
        ));
    };
    let wrong = |why: varve_objects::s3::ConfigureError| Failure::failed(why, "check the --s3 flags");
    let store = S3::new(config.s3.options(bucket)).map_err(wrong)?;
    let admin = Admin::new(config.s3.options(bucket)).map_err(wrong)?;
    if flags.create_bucket {
        let made = admin.create_bucket().await;
        made.map_err(|failure| Failure::failed(&failure, &advice::of_failure(&failure, bucket, prefix)))?;
    }
    let folder = probe::folder(prefix, SystemEntropy::default().next_u128());
    let rights = Rights::ask(&store, &folder, vec![0x5a; latency::SMALL_BYTES].into()).await;
    let mut report = Report {
        store: name(config, bucket, prefix),
        findings: if rights.any() { findings(&store, &folder, &rights).await } else { Vec::new() },
        rights,
        settings: Settings::default(),
        latencies: Vec::new(),
        left: Vec::new(),
        advice: Vec::new(),
    };
    if report.rights.any() {
        report.settings = Settings::read(&admin).await;
        report.latencies = latency::measure(&store, &folder, flags.samples, &report.rights).await;
        report.left = left(&store, &folder, &report.rights).await;
    }
    report.advice = advice::all(&report, bucket, prefix);
    Ok(report)
}

/// What is in the folder after all, or is known to be where listing is refused.
async fn left(store: &S3, folder: &str, rights: &Rights) -> Vec<String> {
    let listed = store.list(folder, None).await.map(|page| page.objects).unwrap_or_default();
    let listed = listed.into_iter().map(|object| object.key);
    let mut left: Vec<String> =
        listed.chain(rights.left.clone()).map(|key| key.as_str().to_owned()).collect();
    left.sort_unstable();
    left.dedup();
    left
}

fn name(config: &Config, bucket: &str, prefix: &str) -> String {
    let endpoint = config.s3.endpoint.as_deref();
    let style = if config.s3.path_style { "in the path" } else { "in the host name" };
    let server = endpoint.map_or_else(|| format!("AWS, {}", config.s3.region), str::to_owned);
    format!("s3://{bucket}/{prefix} at {server}, bucket {style}")
}

/// Stops where the first put already shows that nothing can be asked: every other check would say the same.
async fn findings(store: &S3, folder: &str, rights: &Rights) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in Check::ALL {
        let begin = Instant::now();
        let verdict = rights.check(store, folder, check).await.map(Verdict::of);
        let failed = matches!(verdict, Some(Verdict::Failed(_)));
        let stops = check == Check::CreateOnly && failed && rights.all();
        findings.push(Finding { check, verdict, took: begin.elapsed() });
        if stops {
            break;
        }
    }
    findings
}

impl Finding {
    const fn result(&self) -> &'static str {
        match self.verdict {
            None => "skipped",
            Some(Verdict::Kept) => "ok",
            Some(Verdict::Tolerated(_)) => "care",
            Some(Verdict::Broken(_)) => "BROKEN",
            Some(Verdict::Failed(_)) => "FAILED",
        }
    }

    fn detail(&self) -> String {
        match &self.verdict {
            None => "a right is missing".to_owned(),
            Some(Verdict::Kept) => String::new(),
            Some(Verdict::Tolerated(warning)) => warning.to_string(),
            Some(Verdict::Broken(reason)) => reason.clone(),
            Some(Verdict::Failed(failure)) => failure.to_string(),
        }
    }
}

impl Report {
    fn conclusion(&self) -> Conclusion {
        let any = |wanted: fn(&Verdict) -> bool| {
            self.findings.iter().filter_map(|finding| finding.verdict.as_ref()).any(wanted)
        };
        if any(|verdict| matches!(verdict, Verdict::Broken(_))) || !self.settings.dangers().is_empty() {
            Conclusion::Refused
        } else if self.rights.any() && self.rights.refused().next().is_some() {
            Conclusion::Lacking
        } else if !self.rights.all() || any(|verdict| matches!(verdict, Verdict::Failed(_))) {
            Conclusion::Unreachable
        } else if self.advice.is_empty() {
            Conclusion::Good
        } else {
            Conclusion::WithCare
        }
    }

    fn text(&self) -> String {
        let mut checks = Table::new(&["CHECK", "RESULT", "MS", "DETAIL"]);
        for finding in &self.findings {
            let detail: String = finding.detail().split_whitespace().collect::<Vec<_>>().join(" ");
            let took = finding.took.as_millis().to_string();
            checks.row([finding.check.to_string(), finding.result().to_owned(), took, detail]);
        }
        let mut text = format!("{}\n\n{}", self.store, self.rights.table());
        if !self.findings.is_empty() {
            text += &format!("\n{}\n{}", checks.render(), self.settings.table());
        }
        if !self.latencies.is_empty() {
            text += &format!("\n{}", latency::table(&self.latencies));
        }
        text += &format!("\n{}\n", self.conclusion().sentence());
        for advice in &self.advice {
            text += &format!("  - {advice}\n");
        }
        for key in &self.left {
            text += &format!("  - {key} is left in the bucket and could not be deleted: delete it by hand\n");
        }
        text
    }

    fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "check": format!("{:?}", finding.check),
                "title": finding.check.title(),
                "result": finding.result().to_lowercase(),
                "ms": finding.took.as_secs_f64() * 1000.0,
                "detail": finding.detail(),
            })
        };
        json!({
            "store": self.store,
            "conclusion": self.conclusion().name(),
            "rights": self.rights.to_json(),
            "checks": self.findings.iter().map(finding).collect::<Value>(),
            "settings": self.settings.to_json(),
            "latencies": self.latencies.iter().map(Latency::to_json).collect::<Value>(),
            "left": self.left,
            "advice": self.advice,
        })
    }
}

#[cfg(test)]
mod tests {
    use varve_objects::{Failure as StoreFailure, probe::Warning};

    use super::{
        rights::{Grant, Right},
        *,
    };

    fn report_with(rights: Rights, verdict: Option<Verdict>) -> Report {
        let findings = vec![Finding { check: Check::Checksum, verdict, took: Duration::ZERO }];
        let mut report = Report {
            store: "s3://b/p".into(),
            rights,
            findings,
            settings: Settings::default(),
            latencies: Vec::new(),
            left: Vec::new(),
            advice: Vec::new(),
        };
        report.advice = advice::all(&report, "b", "p");
        report
    }

    fn report(verdict: Verdict) -> Report {
        report_with(Rights::full(), Some(verdict))
    }

    fn denied() -> StoreFailure {
        StoreFailure::Denied("403 AccessDenied".into())
    }

    #[test]
    fn the_conclusion_is_that_of_the_worst_finding() {
        assert_eq!(report(Verdict::Kept).conclusion(), Conclusion::Good);
        let care = report(Verdict::Tolerated(Warning::ReadBackEveryPut));
        assert_eq!((care.conclusion(), care.advice.len()), (Conclusion::WithCare, 1));
        assert_eq!(report(Verdict::Broken("x".into())).conclusion(), Conclusion::Refused);
        let failed = report(Verdict::Failed(denied()));
        assert_eq!(failed.conclusion(), Conclusion::Unreachable);
        assert!(failed.text().contains("s3:PutObject"), "{}", failed.text());
    }

    #[test]
    fn a_missing_right_is_told_once_and_what_is_left_is_named() {
        let grants = vec![(Right::List, Grant::Granted), (Right::Delete, Grant::Refused(denied()))];
        let mut lacking = report_with(Rights::of(grants), None);
        lacking.left = vec!["p/probe/1/rights/one".into()];
        assert_eq!((lacking.conclusion(), lacking.advice.len()), (Conclusion::Lacking, 1));
        let text = lacking.text();
        assert!(text.contains("s3:DeleteObject") && !text.contains("s3:PutObject"), "{text}");
        assert!(text.contains("p/probe/1/rights/one is left"), "{text}");
    }
}
