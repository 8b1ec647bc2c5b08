//! What is asked of servers and buckets rather than of objects: is the server there, make the bucket, and which of the
//! bucket's settings matter to data that is written once and deleted by its owner alone. Nothing here changes a setting.

use http::{HeaderMap, Method, StatusCode};

use crate::{
    Failure,
    s3::{Answer, ConfigureError, Options, S3},
};

/// A client for the server of a bucket.
pub struct Admin(S3);

/// Whether a bucket keeps old versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// It never did.
    Off,
    /// It does: a delete hides, and frees nothing.
    Enabled,
    /// It did, and still has what it kept then.
    Suspended,
}

/// A lifecycle rule, as far as it can take objects away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// What the keys begin with that it speaks of.
    pub prefix: String,
    /// Whether current objects expire.
    pub expires: bool,
    /// Whether old versions expire.
    pub expires_old_versions: bool,
    /// Whether objects move to another storage class.
    pub moves: bool,
}

impl Admin {
    /// Makes the client; nothing is asked yet.
    pub fn new(options: Options) -> Result<Self, ConfigureError> {
        S3::new(options).map(Self)
    }

    /// Asks for the list of buckets: the server is ready once this succeeds.
    pub async fn check_ready(&self) -> Result<(), Failure> {
        let answer = self.0.signed().send_to_server(Method::GET).await?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.failure()) }
    }

    /// Makes the bucket of the options. Fine where it is ours already.
    pub async fn create_bucket(&self) -> Result<(), Failure> {
        let answer = self.0.signed().send_empty(Method::PUT, "", HeaderMap::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::CONFLICT if answer.code() == "BucketAlreadyOwnedByYou" => Ok(()),
            _ => Err(answer.failure()),
        }
    }

    /// Whether old versions are kept.
    pub async fn versioning(&self) -> Result<Versioning, Failure> {
        let text = self.setting("versioning", &[]).await?.unwrap_or_default();
        Ok(match element(&text, "Status") {
            Some("Enabled") => Versioning::Enabled,
            Some("Suspended") => Versioning::Suspended,
            _ => Versioning::Off,
        })
    }

    /// The lifecycle rules that are switched on.
    pub async fn lifecycle(&self) -> Result<Vec<Rule>, Failure> {
        let text = self.setting("lifecycle", &["NoSuchLifecycleConfiguration"]).await?.unwrap_or_default();
        Ok(rules(&text))
    }

    /// The algorithm by which the bucket encrypts what says nothing about it.
    pub async fn encryption(&self) -> Result<Option<String>, Failure> {
        let text = self.setting("encryption", &["ServerSideEncryptionConfigurationNotFoundError"]).await?;
        Ok(text.and_then(|text| element(&text, "SSEAlgorithm").map(str::to_owned)))
    }

    /// Whether objects can be locked against deletion.
    pub async fn object_lock(&self) -> Result<bool, Failure> {
        let text = self.setting("object-lock", &["ObjectLockConfigurationNotFoundError"]).await?;
        Ok(text.is_some_and(|text| element(&text, "ObjectLockEnabled") == Some("Enabled")))
    }

    /// A setting as XML, `None` where the bucket has none of that kind.
    async fn setting(&self, name: &str, absent: &[&str]) -> Result<Option<String>, Failure> {
        let answer: Answer = self.0.signed().get_setting(name).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(String::from_utf8_lossy(&answer.body).into_owned())),
            StatusCode::NOT_FOUND if absent.contains(&answer.code()) => Ok(None),
            _ => Err(answer.failure()),
        }
    }
}

/// The text of the first element of that name, which has none inside.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let after = xml.split_once(&format!("<{name}>"))?.1;
    after.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

fn rules(xml: &str) -> Vec<Rule> {
    let rule = |text: &str| Rule {
        id: element(text, "ID").unwrap_or_default().to_owned(),
        prefix: element(text, "Prefix").unwrap_or_default().to_owned(),
        expires: element(text, "Expiration")
            .is_some_and(|inner| !inner.contains("ExpiredObjectDeleteMarker")),
        expires_old_versions: text.contains("<NoncurrentVersionExpiration>"),
        moves: text.contains("<Transition>"),
    };
    let texts =
        xml.split("<Rule>").skip(1).filter_map(|rest| rest.split_once("</Rule>")).map(|(text, _)| text);
    texts.filter(|text| element(text, "Status") == Some("Enabled")).map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_that_are_on_are_read() {
        let xml = "<LifecycleConfiguration><Rule><ID>a</ID><Filter><Prefix>p/</Prefix></Filter><Status>Enabled</Status>\
            <Expiration><Days>3</Days></Expiration></Rule><Rule><ID>b</ID><Status>Disabled</Status><Expiration><Days>1</Days>\
            </Expiration></Rule><Rule><ID>c</ID><Prefix></Prefix><Status>Enabled</Status><Expiration>\
            <ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration><NoncurrentVersionExpiration>\
            <NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
        let a = Rule { id: "a".into(), prefix: "p/".into(), expires: true, ..Rule::default() };
        let c = Rule { id: "c".into(), expires_old_versions: true, ..Rule::default() };
        assert_eq!(rules(xml), [a, c]);
    }

    #[test]
    fn an_empty_answer_has_no_rules() {
        assert_eq!((rules(""), element("<A></A>", "A"), element("<A>", "A")), (Vec::new(), Some(""), None));
    }
}
