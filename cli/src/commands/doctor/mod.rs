//! `doctor s3`: the suite that every store has to pass, against a user's bucket; its settings; how fast it is; and what
//! to change. It works below `{prefix}/probe/`, in a folder of its own, and leaves it empty.

mod advice;
mod latency;
mod settings;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use varve_broker::{
    config::{Config, ObjectStore, Sources},
    runtime::clock::SystemEntropy,
};
use varve_common::Entropy as _;
use varve_objects::{
    S3,
    admin::Admin,
    conformance::{self, Check},
    probe::{self, Verdict},
};

use self::{latency::Latency, settings::Settings};
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
    verdict: Verdict,
    took: Duration,
}

/// Everything that was found out.
struct Report {
    store: String,
    findings: Vec<Finding>,
    settings: Settings,
    latencies: Vec<Latency>,
    advice: Vec<String>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conclusion {
    Good,
    WithCare,
    Refused,
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
            Self::Unreachable => "unreachable",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Good => "varve can use this bucket",
            Self::WithCare => "varve can use this bucket, with care: see below",
            Self::Refused => "varve must not use this bucket: see below",
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
    let findings = findings(&store, &folder).await;
    let is_there = findings.first().is_some_and(|finding| !matches!(finding.verdict, Verdict::Failed(_)));
    let mut report = Report {
        store: name(config, bucket, prefix),
        findings,
        settings: Settings::default(),
        latencies: Vec::new(),
        advice: Vec::new(),
    };
    if is_there {
        report.settings = Settings::read(&admin).await;
        report.latencies = latency::measure(&store, &folder, flags.samples).await;
    }
    report.advice = advice::all(&report, bucket, prefix);
    Ok(report)
}

fn name(config: &Config, bucket: &str, prefix: &str) -> String {
    let endpoint = config.s3.endpoint.as_deref();
    let style = if config.s3.path_style { "in the path" } else { "in the host name" };
    let server = endpoint.map_or_else(|| format!("AWS, {}", config.s3.region), str::to_owned);
    format!("s3://{bucket}/{prefix} at {server}, bucket {style}")
}

/// Stops where the first put already shows that nothing can be asked: every other check would say the same.
async fn findings(store: &S3, folder: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in Check::ALL {
        let begin = Instant::now();
        let verdict = Verdict::of(conformance::check(store, folder, check).await);
        let stops = check == Check::CreateOnly && matches!(verdict, Verdict::Failed(_));
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
            Verdict::Kept => "ok",
            Verdict::Tolerated(_) => "care",
            Verdict::Broken(_) => "BROKEN",
            Verdict::Failed(_) => "FAILED",
        }
    }

    fn detail(&self) -> String {
        match &self.verdict {
            Verdict::Kept => String::new(),
            Verdict::Tolerated(warning) => warning.to_string(),
            Verdict::Broken(reason) => reason.clone(),
            Verdict::Failed(failure) => failure.to_string(),
        }
    }
}

impl Report {
    fn conclusion(&self) -> Conclusion {
        let any = |wanted: fn(&Verdict) -> bool| self.findings.iter().any(|finding| wanted(&finding.verdict));
        if any(|verdict| matches!(verdict, Verdict::Broken(_))) || !self.settings.dangers().is_empty() {
            Conclusion::Refused
        } else if any(|verdict| matches!(verdict, Verdict::Failed(_))) {
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
        let mut text = format!("{}\n\n{}", self.store, checks.render());
        if !self.latencies.is_empty() {
            text += &format!("\n{}\n{}", self.settings.table(), latency::table(&self.latencies));
        }
        text += &format!("\n{}\n", self.conclusion().sentence());
        for advice in &self.advice {
            text += &format!("  - {advice}\n");
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
            "checks": self.findings.iter().map(finding).collect::<Value>(),
            "settings": self.settings.to_json(),
            "latencies": self.latencies.iter().map(Latency::to_json).collect::<Value>(),
            "advice": self.advice,
        })
    }
}

#[cfg(test)]
mod tests {
    use varve_objects::{Failure as StoreFailure, probe::Warning};

    use super::*;

    fn report(verdict: Verdict) -> Report {
        let findings = vec![Finding { check: Check::Checksum, verdict, took: Duration::ZERO }];
        let mut report = Report {
            store: "s3://b/p".into(),
            findings,
            settings: Settings::default(),
            latencies: Vec::new(),
            advice: Vec::new(),
        };
        report.advice = advice::all(&report, "b", "p");
        report
    }

    #[test]
    fn the_conclusion_is_that_of_the_worst_finding() {
        assert_eq!(report(Verdict::Kept).conclusion(), Conclusion::Good);
        let care = report(Verdict::Tolerated(Warning::ReadBackEveryPut));
        assert_eq!((care.conclusion(), care.advice.len()), (Conclusion::WithCare, 1));
        assert_eq!(report(Verdict::Broken("x".into())).conclusion(), Conclusion::Refused);
        let failed = report(Verdict::Failed(StoreFailure::Denied("403 AccessDenied".into())));
        assert_eq!(failed.conclusion(), Conclusion::Unreachable);
        assert!(failed.text().contains("s3:PutObject"), "{}", failed.text());
    }
}
