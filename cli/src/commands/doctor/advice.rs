//! What to change, in a sentence each.

use varve_objects::{
    Failure,
    probe::{Verdict, Warning},
};

use super::{Finding, Report, rights::Right};

/// Everything that the findings and settings ask for, each once.
pub fn all(report: &Report, bucket: &str, prefix: &str) -> Vec<String> {
    let mut all: Vec<String> =
        report.rights.refused().map(|(right, failure)| of_right(right, failure, bucket, prefix)).collect();
    let of_rights = !all.is_empty();
    for finding in &report.findings {
        // Where a right is missing, what is denied in the checks is denied for that reason.
        let is_told = of_rights && matches!(finding.verdict, Some(Verdict::Failed(Failure::Denied(_))));
        all.extend(of_finding(finding, bucket, prefix).filter(|_| !is_told));
    }
    all.extend(report.settings.dangers());
    all.extend(report.settings.wishes());
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|advice| seen.insert(advice.clone()));
    all
}

fn of_finding(finding: &Finding, bucket: &str, prefix: &str) -> Option<String> {
    match finding.verdict.as_ref()? {
        Verdict::Kept => None,
        Verdict::Tolerated(Warning::ReadBackEveryPut) => Some(
            "the server stores bodies that do not match their checksum: varve reads every PUT back, which costs a GET each; \
             a newer release of the server may check"
                .into(),
        ),
        Verdict::Broken(_) => Some(format!(
            "the server breaks a promise that data rests on ({}): use another server or a release that keeps it; \
             docs/s3-servers.md names some",
            finding.check
        )),
        Verdict::Failed(failure) => Some(of_failure(failure, bucket, prefix)),
    }
}

/// Who acts so that a right is granted.
fn of_right(right: Right, failure: &Failure, bucket: &str, prefix: &str) -> String {
    let general = of_failure(failure, bucket, prefix);
    // It is the right itself only where nothing else is wrong with the request.
    if general != permissions(bucket, prefix) {
        return general;
    }
    let on = if right == Right::List { bucket.to_owned() } else { keys(bucket, prefix) };
    format!("allow {} on arn:aws:s3:::{on}: {}", right.name(), right.purpose())
}

fn keys(bucket: &str, prefix: &str) -> String {
    if prefix.is_empty() { format!("{bucket}/*") } else { format!("{bucket}/{prefix}/*") }
}

/// The permissions that a broker needs.
fn permissions(bucket: &str, prefix: &str) -> String {
    let keys = keys(bucket, prefix);
    format!(
        "allow s3:GetObject, s3:PutObject and s3:DeleteObject on arn:aws:s3:::{keys} and s3:ListBucket on arn:aws:s3:::{bucket}"
    )
}

/// Who acts, and how, after a request that was not answered with what was asked for.
pub fn of_failure(failure: &Failure, bucket: &str, prefix: &str) -> String {
    let text = failure.to_string();
    let says = |code: &str| text.contains(code);
    if says("NoSuchBucket") {
        return format!(
            "there is no bucket {bucket}: name another, or make it (--create-bucket, for development)"
        );
    }
    if says("RequestTimeTooSkewed") {
        return "this machine's clock is wrong by more than the server allows: set it (NTP)".into();
    }
    if says("SignatureDoesNotMatch") {
        return "the secret key does not belong to the access key: check AWS_SECRET_ACCESS_KEY".into();
    }
    if says("InvalidAccessKeyId") {
        return "the server does not know the access key: check AWS_ACCESS_KEY_ID".into();
    }
    if says("ExpiredToken") || says("InvalidToken") {
        return "the session has expired: renew the credentials (AWS_SESSION_TOKEN)".into();
    }
    if says("no credentials") {
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role gives them"
            .into();
    }
    if says("AuthorizationHeaderMalformed") || says("PermanentRedirect") {
        return "the bucket is in another region: set --s3-region".into();
    }
    match failure {
        Failure::Denied(_) => permissions(bucket, prefix),
        Failure::Retry(_) => {
            "the server does not answer, or not in time: check --s3-endpoint, the network and the server's load".into()
        }
        Failure::Busy(_) => {
            "the server asks to slow down: lower varve.store.requests.per.second, or look who else uses this prefix".into()
        }
        Failure::Corrupt(_) => "bytes were changed on their way: look at proxies between here and the server".into(),
        Failure::Invalid(_) | Failure::Fatal(_) => {
            "the server refuses the request: check --s3-endpoint and --s3-path-style, and the server's release".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_change() {
        let advice = |failure: Failure| of_failure(&failure, "b", "p");
        assert!(advice(Failure::Invalid("404 <Code>NoSuchBucket</Code>".into())).contains("--create-bucket"));
        assert!(advice(Failure::Denied("403 <Code>RequestTimeTooSkewed</Code>".into())).contains("clock"));
        assert!(
            advice(Failure::Denied("403 <Code>AccessDenied</Code>".into())).contains("arn:aws:s3:::b/p/*")
        );
        assert!(advice(Failure::Retry("connection refused".into())).contains("--s3-endpoint"));
    }

    #[test]
    fn a_right_that_is_refused_is_named_alone_and_a_wrong_clock_is_no_missing_right() {
        let advice = |right, reason: &str| of_right(right, &Failure::Denied(reason.into()), "b", "p");
        let delete = advice(Right::Delete, "403 <Code>AccessDenied</Code>");
        assert!(delete.starts_with("allow s3:DeleteObject on arn:aws:s3:::b/p/*: "), "{delete}");
        assert!(advice(Right::List, "403 ").starts_with("allow s3:ListBucket on arn:aws:s3:::b: "));
        assert!(advice(Right::Put, "403 <Code>RequestTimeTooSkewed</Code>").contains("clock"));
    }
}
