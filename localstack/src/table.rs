//! The servers against the suite of `objects::conformance`: one column each, and docs/s3-servers.md made of them.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use varve_objects::{
    Directory, S3, Store,
    conformance::{self, Check},
    probe::{Verdict, folder},
    testing::PlainDisk,
};

use crate::{Kind, Server};

/// What one store does with each check.
pub type Column = BTreeMap<Check, Mark>;

/// The name of the column of the embedded store.
pub const DIRECTORY: &str = "directory";

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The promise is kept.
    Yes,
    /// It is not.
    No,
    /// It is not kept in every run.
    Varies,
    /// The store did not answer as it should to anything; never in the document.
    Failed(String),
}

impl Mark {
    fn text(&self) -> &str {
        match self {
            Self::Yes => "yes",
            Self::No => "**no**",
            Self::Varies => "**at times**",
            Self::Failed(why) => why,
        }
    }
}

/// What is not the same in every run.
const VARYING: [(Kind, Check); 2] =
    [(Kind::S3Mock, Check::RacingCreates), (Kind::S3Mock, Check::OverlappingCreates)];

const BUCKET: &str = "varve-table";

/// Makes every check.
pub async fn examine(store: &dyn Store) -> Column {
    let folder = folder("suite/of all", 1);
    let mut column = Column::new();
    for check in Check::ALL {
        let mark = match Verdict::of(conformance::check(store, &folder, check).await) {
            Verdict::Kept => Mark::Yes,
            Verdict::Tolerated(_) | Verdict::Broken(_) => Mark::No,
            Verdict::Failed(failure) => Mark::Failed(format!("{check:?}: {failure}")),
        };
        column.insert(check, mark);
    }
    column
}

/// Makes every check of a server that was just started.
///
/// # Errors
/// Where the bucket cannot be made or the client cannot be configured, as text.
pub async fn examine_server(kind: Kind, server: &Server) -> Result<Column, String> {
    server.create_bucket(BUCKET).await.map_err(|error| error.to_string())?;
    let store = S3::new(server.options(BUCKET)).map_err(|error| error.to_string())?;
    let mut column = examine(&store).await;
    for (varying, check) in VARYING {
        if varying == kind {
            column.insert(check, Mark::Varies);
        }
    }
    Ok(column)
}

/// Makes every check of the embedded store, over plain files.
///
/// # Errors
/// Where the folder cannot be made, as text.
pub async fn examine_directory() -> Result<Column, String> {
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let store =
        Directory::open(Arc::<PlainDisk>::default(), root.path(), 1).map_err(|error| error.to_string())?;
    Ok(examine(&store).await)
}

const HEAD: &str = "\
# S3 servers: what each promises

`varve` needs a store to keep the promises below; the suite is `objects/src/conformance`. At the start it asks for those
marked *start* and refuses a server that breaks one, with two exceptions: *wrong checksum refused* (every PUT is then read back) and
a server that does not answer (hot data is served, uploads wait). `varve doctor s3` asks for all of them in your own bucket.

This page is written by `cargo run -p varve-localstack -- table > docs/s3-servers.md`, which starts each server, and the tests of
`localstack/` hold every column against a fresh run. `yes`: as Amazon S3 documents it.

";

const TAIL: &str = "
- moto and LocalStack keep everything in memory; moto, LocalStack and S3Mock check no signature: for tests only.
- S3Mock lets several racing creates win: two writers could both believe that a segment is theirs.
- A server that is not here: point `varve doctor s3 --object-store s3://bucket/prefix --s3-endpoint URL` at it.
";

/// The whole page, from the columns in their order: name, version, marks.
#[must_use]
pub fn page(columns: &[(String, String, Column)]) -> String {
    let mut text = HEAD.to_owned();
    let line = |text: &mut String, cells: Vec<String>| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let names = columns.iter().map(|(name, ..)| name.clone());
    line(&mut text, std::iter::once("check".to_owned()).chain(names).collect());
    line(&mut text, vec!["---".to_owned(); columns.len() + 1]);
    let versions = columns.iter().map(|(_, version, _)| version.clone());
    line(&mut text, std::iter::once("version".to_owned()).chain(versions).collect());
    for check in Check::ALL {
        let marks = columns.iter().map(|(.., column)| column.get(&check).map_or("-", Mark::text).to_owned());
        line(&mut text, std::iter::once(row_name(check)).chain(marks).collect());
    }
    let verdicts = columns.iter().map(|(.., column)| verdict(column).to_owned());
    line(&mut text, std::iter::once("**so `varve serve`**".to_owned()).chain(verdicts).collect());
    text + TAIL
}

fn row_name(check: Check) -> String {
    let start = if Check::AT_START.contains(&check) { " (*start*)" } else { "" };
    format!("{}{start}", check.title())
}

/// What the probe at the start makes of it.
fn verdict(column: &Column) -> &'static str {
    let kept = |check: &Check| column.get(check) == Some(&Mark::Yes);
    let broken: Vec<&Check> = Check::AT_START.iter().filter(|check| !kept(check)).collect();
    match broken.as_slice() {
        [] => "takes it",
        [Check::Checksum] => "takes it, reads back every PUT",
        _ => "refuses it",
    }
}

/// A column as the page shows it, `None` where it has none of that name.
#[must_use]
pub fn column_in(page: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = page.lines().filter(|line| line.starts_with('|')).map(cells);
    let place = rows.next()?.iter().position(|cell| cell == name)?;
    rows.map(|row| Some((row.first()?.clone(), row.get(place)?.clone()))).collect()
}

/// What the page does not say of a store as it was found: nothing where it is fresh.
#[must_use]
pub fn stale(page: &str, name: &str, column: &Column) -> Vec<String> {
    let Some(written) = column_in(page, name) else { return vec![format!("no column {name}")] };
    let differs = |(check, mark): (&Check, &Mark)| {
        let written = written.get(&row_name(*check)).map_or("nothing", String::as_str);
        (written != mark.text()).then(|| format!("{name}: {check}: found {}, written {written}", mark.text()))
    };
    column.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_was_written() {
        let mut column: Column = Check::ALL.into_iter().map(|check| (check, Mark::Yes)).collect();
        let page = page(&[("one".into(), "1.0".into(), column.clone())]);
        assert_eq!(stale(&page, "one", &column), Vec::<String>::new());
        assert!(page.contains("| takes it |"));
        column.insert(Check::Range, Mark::No);
        assert_eq!(stale(&page, "one", &column), ["one: ranged GET: found **no**, written yes"]);
        assert_eq!((stale(&page, "two", &column).len(), verdict(&column)), (1, "refuses it"));
    }
}
