//! `config print|reference|import|validate`.

use serde_json::json;
use varve_broker::config::{Sources, print};

use crate::{args::ConfigCommand, failure::Failure, output};

pub fn run(command: ConfigCommand, sources: Sources) -> Result<(), Failure> {
    match command {
        ConfigCommand::Print { server, output } => {
            let config = server.load(sources)?;
            output::print(output.format(), || print::text(&config), || print::json(&config))?;
        }
        ConfigCommand::Reference(output) => {
            output::print(output.format(), print::commented_file, print::reference_json)?;
        }
        ConfigCommand::Import { file, write, output } => {
            super::import::run(&file, write.as_deref(), output.format())?;
        }
        ConfigCommand::Validate { server, output } => {
            server.load(sources)?;
            let text = || "the configuration is valid\n".to_owned();
            output::print(output.format(), text, || json!({"valid": true}))?;
        }
    }
    Ok(())
}
