//! The verbs that a kata brings along.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, builder::PossibleValuesParser};
use shared::services::Postgres;

use super::context::{Context, Ran, Refusal};
use crate::{
    app::BoxError,
    command::{Argument, Call, Command},
};

/// What was typed: one of the kata's own verbs, and its values.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    command: Command,
    values: BTreeMap<&'static str, String>,
}

impl Typed {
    /// Finds it among the matches of a command line that [`described`] verbs belong to.
    pub(super) fn read(commands: &[Command], matches: &ArgMatches) -> Option<Self> {
        let (name, matches) = matches.subcommand()?;
        let command = *commands.iter().find(|command| command.name == name)?;
        let value = |argument: &Argument| {
            let typed = matches.get_one::<String>(argument.name)?;
            Some((argument.name, typed.clone()))
        };
        Some(Self {
            command,
            values: command.arguments.iter().filter_map(value).collect(),
        })
    }
}

/// A verb as clap knows it, with its help.
pub(super) fn described(command: &Command) -> clap::Command {
    let arguments = command.arguments.iter().map(|argument| {
        let arg = Arg::new(argument.name)
            .help(argument.help)
            .value_name(argument.value);
        let arg = match argument.positional {
            true => arg.required(true),
            false => arg.long(argument.name),
        };
        match argument.known {
            [] => arg,
            known => arg.value_parser(PossibleValuesParser::new(known)),
        }
    });
    clap::Command::new(command.name)
        .about(command.about)
        .args(arguments)
}

pub(super) async fn run(context: &Context, typed: &Typed) -> Ran {
    let call = Call {
        lent: Lent(context.clone()),
        screen: context.screen.clone(),
        seed: context.seed,
        values: typed.values.clone(),
    };
    (typed.command.run)(call)
        .await
        .map_err(|error| Refusal::new(format!("{error}.")))?;
    Ok(0)
}

/// What a command borrows of the run.
#[derive(Clone)]
pub(crate) struct Lent(Context);

impl Lent {
    pub(crate) async fn postgres(&self) -> Result<Postgres, BoxError> {
        let grounds = self.0.grounds().await.map_err(|refusal| refusal.message)?;
        Ok(grounds.postgres().clone())
    }

    pub(crate) fn headline(&self, about: &str, right: &str) -> String {
        self.0.headline(about, right)
    }
}
