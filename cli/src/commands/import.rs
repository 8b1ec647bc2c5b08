//! `config import`: what a server.properties of Kafka becomes here.

use std::{fs::File, io::Write as _, path::Path};

use serde_json::{Value, json};
use varve_broker::config::import::{self, Fate, Imported};

use crate::{
    failure::Failure,
    output::{self, Format, Table},
};

pub fn run(file: &Path, write: Option<&Path>, format: Format) -> Result<(), Failure> {
    let unreadable =
        |path: &Path, error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, error))?;
    let imported = import::import(&text);
    if let Some(path) = write {
        // Somebody's configuration is never written over.
        let written = File::create_new(path).and_then(|mut made| {
            made.write_all(import::file(&imported).as_bytes())?;
            made.sync_all()
        });
        written.map_err(|error| unreadable(path, error))?;
    }
    output::print(format, || table(&imported), || imported.iter().map(row).collect())?;
    let refused = imported.iter().any(|one| matches!(one.fate, Fate::Refused(_)));
    if refused { Err(Failure::Reported) } else { Ok(()) }
}

fn table(imported: &[Imported]) -> String {
    let mut table = Table::new(&["LINE", "PROPERTY", "VALUE", "HERE"]);
    for one in imported {
        let here = match &one.fate {
            Fate::Key { name, value, note } => {
                let note = note.map_or_else(String::new, |note| format!(" ({note})"));
                format!("{name} = {value}{note}")
            }
            Fate::Needless(why) => format!("not needed: {why}"),
            Fate::Missing(why) => format!("not there: {why}"),
            Fate::Refused(why) => format!("REFUSED: {why}"),
        };
        table.row([one.line.to_string(), one.property.clone(), one.value.clone(), here]);
    }
    table.render()
}

fn row(one: &Imported) -> Value {
    let mut row = json!({"line": one.line, "property": one.property, "value": one.value});
    match &one.fate {
        Fate::Key { name, value, note } => {
            row["status"] = json!("mapped");
            row["key"] = json!({"name": name, "value": value});
            row["why"] = json!(note);
        }
        Fate::Needless(why) => (row["status"], row["why"]) = (json!("not needed"), json!(why)),
        Fate::Missing(why) => (row["status"], row["why"]) = (json!("not there"), json!(why)),
        Fate::Refused(why) => (row["status"], row["why"]) = (json!("refused"), json!(why)),
    }
    row
}
