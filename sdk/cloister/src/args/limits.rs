//! The limits of a deployment as flags. A flag that is left out leaves the default.

use clap::Args;
use platform_model::Limits;

use crate::quantity::{parse_millis, parse_size, parse_small_size};

/// One flag for each limit.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Memory of one request's instance [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Memory of the app's VM in all [default: 512MiB, or more where --memory is]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    vm_memory: Option<u64>,
    /// CPU time of one request [default: 10s]
    #[arg(long, visible_alias = "cpu-ms", value_name = "TIME", value_parser = parse_millis)]
    cpu: Option<u64>,
    /// Time until the head of the response is there [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    head_timeout: Option<u64>,
    /// Time of the whole request, bodies included [default: 10min]
    #[arg(long, visible_alias = "wall-ms", value_name = "TIME", value_parser = parse_millis)]
    wall: Option<u64>,
    /// Time to work on after the response has ended [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    post_return: Option<u64>,
    /// Requests of the app that run at the same time [default: 128]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Requests of the app that wait beyond those [default: 1024]
    #[arg(long, value_name = "N")]
    queue: Option<u32>,
    /// Length of a request's body [default: 4GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    request_body: Option<u64>,
    /// Size of the head of a request, and of a response [default: 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_small_size)]
    head_size: Option<u32>,
    /// Header fields in a head [default: 256]
    #[arg(long, value_name = "N")]
    header_count: Option<u32>,
    /// Size of the scratch folder that a request has [default: none]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    scratch: Option<u64>,
    /// Length of a line in the log; what is longer is cut [default: 16KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_small_size)]
    log_line: Option<u32>,
}

impl LimitArgs {
    /// The limits. A VM grows with the memory that one request in it may have, unless its own was given.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        let memory_bytes = self.memory.unwrap_or(default.memory_bytes);
        Limits {
            memory_bytes,
            vm_memory_bytes: self
                .vm_memory
                .unwrap_or(default.vm_memory_bytes.max(memory_bytes)),
            cpu_ms: self.cpu.unwrap_or(default.cpu_ms),
            head_timeout_ms: self.head_timeout.unwrap_or(default.head_timeout_ms),
            wall_ms: self.wall.unwrap_or(default.wall_ms),
            post_return_ms: self.post_return.unwrap_or(default.post_return_ms),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            queue: self.queue.unwrap_or(default.queue),
            request_body_bytes: self.request_body.unwrap_or(default.request_body_bytes),
            head_bytes: self.head_size.unwrap_or(default.head_bytes),
            header_count: self.header_count.unwrap_or(default.header_count),
            scratch_bytes: self.scratch.unwrap_or(default.scratch_bytes),
            log_line_bytes: self.log_line.unwrap_or(default.log_line_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vm_grows_with_a_request() {
        let args = LimitArgs {
            memory: Some(1 << 30),
            ..LimitArgs::default()
        };
        assert_eq!(args.limits().vm_memory_bytes, 1 << 30);
        assert_eq!(args.limits().check(), Ok(()));
        let args = LimitArgs {
            memory: Some(1 << 30),
            vm_memory: Some(1 << 29),
            ..LimitArgs::default()
        };
        assert!(args.limits().check().is_err());
    }

    #[test]
    fn the_defaults_in_the_help_are_the_defaults() {
        use clap::Args as _;
        let command = LimitArgs::augment_args(clap::Command::new("x"));
        let shown = |id: &str| {
            let arg = command
                .get_arguments()
                .find(|arg| arg.get_id() == id)
                .unwrap();
            let help = arg.get_help().unwrap().to_string();
            let (_, default) = help.split_once("[default: ").unwrap();
            default
                .trim_end_matches(']')
                .split(',')
                .next()
                .unwrap()
                .to_owned()
        };
        let limits = Limits::default();
        assert_eq!(parse_size(&shown("memory")), Ok(limits.memory_bytes));
        assert_eq!(parse_size(&shown("vm_memory")), Ok(limits.vm_memory_bytes));
        assert_eq!(parse_millis(&shown("cpu")), Ok(limits.cpu_ms));
        assert_eq!(
            parse_millis(&shown("head_timeout")),
            Ok(limits.head_timeout_ms)
        );
        assert_eq!(parse_millis(&shown("wall")), Ok(limits.wall_ms));
        assert_eq!(
            parse_millis(&shown("post_return")),
            Ok(limits.post_return_ms)
        );
        assert_eq!(shown("concurrency"), limits.concurrency.to_string());
        assert_eq!(shown("queue"), limits.queue.to_string());
        assert_eq!(
            parse_size(&shown("request_body")),
            Ok(limits.request_body_bytes)
        );
        assert_eq!(parse_small_size(&shown("head_size")), Ok(limits.head_bytes));
        assert_eq!(shown("header_count"), limits.header_count.to_string());
        assert_eq!(
            (shown("scratch").as_str(), limits.scratch_bytes),
            ("none", 0)
        );
        assert_eq!(
            parse_small_size(&shown("log_line")),
            Ok(limits.log_line_bytes)
        );
    }
}
