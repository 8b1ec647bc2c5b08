//! `config print|reference|validate`.

use varve_broker::config::{Sources, print};

use crate::{args::ConfigCommand, failure::Failure, output};

pub fn run(command: ConfigCommand, sources: Sources) -> Result<(), Failure> {
    match command {
        ConfigCommand::Print { server, output } => {
            let config = server.load(sources)?;
            output::print(output.format(), || print::text(&config), || print::json(&config))?;
        }
        ConfigCommand::Reference => output::text(&print::commented_file())?,
        ConfigCommand::Validate { server } => {
            server.load(sources)?;
            output::text("the configuration is valid\n")?;
        }
    }
    Ok(())
}
