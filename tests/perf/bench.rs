//! What all rows go by: how long they measure, what they find where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::report::Outcome;
use crate::wrk::{self, Wrk};

/// A component to measure.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// What all rows go by.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Everything at its smallest: whether it works, not how fast.
    pub(crate) quick: bool,
    /// Rounds of a comparison; each measures every server once.
    pub(crate) rounds: u32,
    /// Seconds of one measurement, where the command line has them.
    pub(crate) seconds: Option<u64>,
    /// How many of what a row counts, where the command line has it.
    pub(crate) count: Option<usize>,
    /// Folder with components, looked into before the examples.
    pub(crate) components: Option<PathBuf>,
    /// The executable `cloister`.
    pub(crate) cloister: PathBuf,
}

impl Bench {
    /// Time of one measurement; `usual` seconds unless told otherwise.
    pub(crate) fn time(&self, usual: u64) -> Duration {
        Duration::from_secs(match self.quick {
            true => 1,
            false => self.seconds.unwrap_or(usual),
        })
    }

    /// How many of what the row counts.
    pub(crate) fn count(&self, usual: usize, quick: usize) -> usize {
        match self.quick {
            true => quick,
            false => self.count.unwrap_or(usual),
        }
    }

    /// A component by its name; where it is missing, the outcome says so.
    pub(crate) fn component(&self, name: &str, outcome: &mut Outcome) -> Result<Option<Component>> {
        let found = self.read(name)?;
        if found.is_none() {
            outcome.leave_out(format!(
                "{name}: no {name}.wasm in the folder of --components or in examples/"
            ));
        }
        Ok(found)
    }

    /// A component by its name, and what to ask it for; where it is missing, the tests' probe, which is asked otherwise.
    pub(crate) fn component_or_probe<T>(
        &self,
        name: &str,
        asked: T,
        asked_of_probe: T,
        outcome: &mut Outcome,
    ) -> Result<(Component, T)> {
        if let Some(component) = self.read(name)? {
            return Ok((component, asked));
        }
        outcome.note(format!("the tests' probe stands in for {name}"));
        Ok((probe(), asked_of_probe))
    }

    fn read(&self, name: &str) -> Result<Option<Component>> {
        let Some(file) = self.find(name) else {
            return Ok(None);
        };
        let bytes = std::fs::read(&file);
        let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
        let name = name.to_owned();
        Ok(Some(Component { name, bytes }))
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let long = match name {
            "py-hello" => "python-hello",
            other => other,
        };
        let given = self.components.as_ref();
        let given = given.map(|folder| folder.join(format!("{name}.wasm")));
        let example = examples.join(long).join(format!("{long}.wasm"));
        given
            .into_iter()
            .chain([example])
            .find(|file| file.is_file())
    }

    /// What may be missing only with --quick: the outcome says so then.
    pub(crate) fn optional<T>(
        &self,
        what: &str,
        found: Result<T>,
        outcome: &mut Outcome,
    ) -> Result<Option<T>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if self.quick => {
                outcome.leave_out(format!("{what}: {error:#}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The client `wrk`.
    pub(crate) fn wrk(&self, outcome: &mut Outcome) -> Result<Option<Wrk>> {
        self.optional("wrk", wrk::find(), outcome)
    }
}

/// The component that the tests have: one behaviour a path.
pub(crate) fn probe() -> Component {
    Component {
        name: "probe".to_owned(),
        bytes: cloister_tests::fixture::probe().to_vec(),
    }
}
