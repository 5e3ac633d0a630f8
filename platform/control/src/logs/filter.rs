//! Which lines a reader wants. Applied where the lines are: what is not wanted does not leave the node.

use platform_model::{DeploymentId, LogLine, LogQuery, LogStream, LogStreams};
use regex::bytes::{Regex, RegexBuilder};
use time::OffsetDateTime;

use super::file::{ACCESS, OUTPUT, Ring};

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;

/// Memory that a pattern may take when it is compiled, in bytes. Time grows with it: the worst pattern of this size
/// takes 2 us for a byte of text.
const MAX_COMPILED: usize = 32 << 10;

/// Memory that a matcher keeps to be fast, in bytes.
const CACHE: usize = 256 << 10;

/// Why a filter cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The pattern has too many bytes.
    #[error("grep has {0} bytes, at most {MAX_PATTERN} are possible")]
    PatternTooLong(usize),
    /// The pattern is no regular expression, or one that takes too much.
    #[error("grep: {0}")]
    Pattern(String),
}

/// Which lines are wanted.
#[derive(Debug, Clone)]
pub struct Filter {
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    grep: Option<Regex>,
    request: Option<String>,
    streams: LogStreams,
    deployment: Option<DeploymentId>,
}

impl Filter {
    /// The filter of a query that came `now`.
    ///
    /// # Errors
    /// When its pattern cannot be used.
    pub fn new(query: &LogQuery, now: OffsetDateTime) -> Result<Self, FilterError> {
        Ok(Self {
            since: query.since.map(|time| time.resolve(now)),
            until: query.until.map(|time| time.resolve(now)),
            grep: query.grep.as_deref().map(pattern).transpose()?,
            request: query.request.clone(),
            streams: query.stream.unwrap_or(LogStreams::OUTPUT),
            deployment: query.deployment,
        })
    }

    /// When the last line that can be wanted is written.
    #[must_use]
    pub fn until(&self) -> Option<OffsetDateTime> {
        self.until
    }

    /// Whether it takes noticeable time to apply.
    pub(super) fn is_costly(&self) -> bool {
        self.grep.is_some()
    }

    /// The rings that can hold what is wanted.
    pub(super) fn rings(&self) -> impl Iterator<Item = Ring> {
        let output = [LogStream::Stdout, LogStream::Stderr, LogStream::System];
        let output = output.iter().any(|stream| self.streams.has(*stream));
        let access = self.streams.has(LogStream::Access);
        let rings = [output.then_some(OUTPUT), access.then_some(ACCESS)];
        rings.into_iter().flatten()
    }

    /// Whether a line is wanted.
    pub(super) fn wants(&self, line: &LogLine) -> bool {
        let request = || line.request.as_deref();
        self.streams.has(line.stream)
            && self.since.is_none_or(|since| line.time >= since)
            && self.until.is_none_or(|until| line.time < until)
            && self
                .deployment
                .is_none_or(|deployment| line.deployment == deployment)
            && self.request.as_ref().is_none_or(|id| request() == Some(id))
            && self
                .grep
                .as_ref()
                .is_none_or(|grep| grep.is_match(line.line.as_bytes()))
    }
}

impl Default for Filter {
    /// What is wanted where nothing is asked for.
    fn default() -> Self {
        Self {
            since: None,
            until: None,
            grep: None,
            request: None,
            streams: LogStreams::OUTPUT,
            deployment: None,
        }
    }
}

/// A regular expression that takes time in proportion to what it is matched with, and bounded memory. Classes such as
/// `\w` are those of ASCII: those of Unicode take more memory than all else.
fn pattern(text: &str) -> Result<Regex, FilterError> {
    if text.len() > MAX_PATTERN {
        return Err(FilterError::PatternTooLong(text.len()));
    }
    let mut builder = RegexBuilder::new(text);
    builder.unicode(false);
    builder.size_limit(MAX_COMPILED).dfa_size_limit(CACHE);
    builder.build().map_err(|error| {
        let reason = error.to_string();
        // The first lines draw the pattern with a mark below it.
        let last = reason.lines().last().unwrap_or_default();
        FilterError::Pattern(last.trim().trim_start_matches("error: ").to_owned())
    })
}

#[cfg(test)]
mod tests {
    use platform_model::LogTime;

    use super::*;

    fn line(stream: LogStream, seconds: i64, request: &str, text: &str) -> LogLine {
        LogLine {
            time: OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds),
            deployment: DeploymentId(1),
            request: Some(request.to_owned()),
            stream,
            line: text.to_owned(),
            access: None,
        }
    }

    fn filter(query: LogQuery) -> Filter {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(100);
        Filter::new(&query, now).unwrap()
    }

    #[test]
    fn each_condition_counts() {
        let some = line(LogStream::Stderr, 50, "r1", "a needle here");
        let all = LogQuery {
            since: Some(LogTime::Ago(50)),
            until: Some(LogTime::Ago(49)),
            grep: Some("n.+le".to_owned()),
            request: Some("r1".to_owned()),
            stream: Some("stderr".parse().unwrap()),
            deployment: Some(DeploymentId(1)),
            ..LogQuery::default()
        };
        assert!(filter(all.clone()).wants(&some));
        let not = |change: fn(&mut LogQuery)| {
            let mut query = all.clone();
            change(&mut query);
            assert!(!filter(query.clone()).wants(&some), "{query:?}");
        };
        not(|query| query.since = Some(LogTime::Ago(49)));
        not(|query| query.until = Some(LogTime::Ago(50)));
        not(|query| query.grep = Some("^needle".to_owned()));
        not(|query| query.request = Some("r".to_owned()));
        not(|query| query.stream = Some("stdout,access".parse().unwrap()));
        not(|query| query.deployment = Some(DeploymentId(2)));
    }

    #[test]
    fn requests_are_shown_when_they_are_asked_for() {
        let access = line(LogStream::Access, 0, "r1", "GET /");
        assert!(!Filter::default().wants(&access));
        assert_eq!(Filter::default().rings().collect::<Vec<_>>(), [OUTPUT]);
        let asked = filter(LogQuery {
            stream: Some("access".parse().unwrap()),
            ..LogQuery::default()
        });
        assert!(asked.wants(&access));
        assert_eq!(asked.rings().collect::<Vec<_>>(), [ACCESS]);
    }

    #[test]
    fn patterns_have_bounds() {
        let refused = |text: &str| pattern(text).unwrap_err().to_string();
        assert!(refused("(").contains("unclosed"), "{}", refused("("));
        assert!(refused("((a{100}){100}){100}").contains("size limit"));
        assert!(refused(&"x".repeat(5000)).contains("5000"));
        for usual in [
            "käse",
            r"(?i)timeout|refused",
            r"^\S+ (ERROR|WARN) .*took \d{3,}ms$",
        ] {
            assert!(pattern(usual).is_ok(), "{usual}");
        }
    }
}
