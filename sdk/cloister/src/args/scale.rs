//! How many VMs a deployment has, as flags. A flag that is left out leaves the default.

use clap::Args;
use platform_model::Scale;

use crate::quantity::parse_millis;

/// One flag for each number.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Scale")]
pub(crate) struct ScaleArgs {
    /// VMs that are there without any request [default: 0]
    #[arg(long, value_name = "N")]
    min_vms: Option<u32>,
    /// Most VMs [default: as many as the node has processors]
    #[arg(long, value_name = "N")]
    max_vms: Option<u32>,
    /// Time without a request after which VMs go [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    idle: Option<u64>,
}

impl ScaleArgs {
    /// The numbers.
    pub(crate) fn scale(&self) -> Scale {
        let default = Scale::default();
        Scale {
            min: self.min_vms.unwrap_or(default.min),
            max: self.max_vms.unwrap_or(default.max),
            idle_ms: self.idle.unwrap_or(default.idle_ms),
        }
    }
}
