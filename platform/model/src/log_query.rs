//! Which lines of an app's log are wanted: the query of `GET …/logs`, for the API and its clients alike.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use utoipa::IntoParams;

use crate::log::LogStreamError;
use crate::schema;
use crate::{DeploymentId, LogStream};

/// Which lines are wanted: those that meet all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// How many of the lines that are there, counted from the last. All by default.
    pub tail: Option<u64>,
    /// Whether to go on with lines that are written from now on.
    #[param(required = false)]
    pub follow: bool,
    /// Only lines of this moment or later.
    #[param(inline)]
    pub since: Option<LogTime>,
    /// Only lines before this moment. With `follow` the answer ends when it has come.
    #[param(inline)]
    pub until: Option<LogTime>,
    /// Only lines whose text has a match of this regular expression.
    pub grep: Option<String>,
    /// Only lines of the request with this id.
    pub request: Option<String>,
    /// Only lines of these streams. By default all but `access`.
    #[param(inline)]
    pub stream: Option<LogStreams>,
    /// Only lines of this deployment.
    #[param(inline)]
    pub deployment: Option<DeploymentId>,
}

impl LogQuery {
    /// The query as names and values, for a URL.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<_>| value.as_ref().map(ToString::to_string);
        let pairs = [
            ("tail", self.tail.map(|tail| tail.to_string())),
            ("follow", self.follow.then(|| "true".to_owned())),
            ("since", text(&self.since)),
            ("until", text(&self.until)),
            ("grep", self.grep.clone()),
            ("request", self.request.clone()),
            ("stream", self.stream.map(|streams| streams.to_string())),
            ("deployment", self.deployment.map(|id| id.to_string())),
        ];
        let given = |(name, value): (_, Option<_>)| value.map(|value| (name, value));
        pairs.into_iter().filter_map(given).collect()
    }
}

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no moment: give a time such as 2026-01-02T15:04:05Z, or how long ago as 90s, 15m, 2h or 7d"
)]
pub struct LogTimeError(String);

/// A moment: a time of RFC 3339, or how long ago it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTime {
    /// A time.
    At(OffsetDateTime),
    /// So many seconds before the node reads the query.
    Ago(u32),
}

impl LogTime {
    /// The time that is meant when it is `now`.
    #[must_use]
    pub fn resolve(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::At(time) => time,
            Self::Ago(seconds) => now.saturating_sub(Duration::seconds(seconds.into())),
        }
    }
}

impl FromStr for LogTime {
    type Err = LogTimeError;

    fn from_str(text: &str) -> Result<Self, LogTimeError> {
        if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
            return Ok(Self::At(time));
        }
        let wrong = || LogTimeError(text.chars().take(40).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self::Ago).ok_or_else(wrong)
    }
}

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => f.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?),
            Self::Ago(seconds) => write!(f, "{seconds}s"),
        }
    }
}

schema::schema!(
    LogTime,
    "LogTime",
    schema::free_text(
        "A moment: a time of RFC 3339, or how long ago it is, such as 15m.",
        40,
        "2h"
    )
);

/// A set of streams, as a list with commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStreams(u8);

schema::schema!(
    LogStreams,
    "LogStreams",
    schema::text(
        "Streams, with commas between them.",
        "^(stdout|stderr|system|access)(,(stdout|stderr|system|access))*$",
        "stdout,stderr"
    )
);

impl LogStreams {
    /// What is shown where nothing else is asked for: all but `access`.
    pub const OUTPUT: Self = Self(0b0111);
    /// All of them.
    pub const ALL: Self = Self(0b1111);

    fn bit(stream: LogStream) -> u8 {
        1 << match stream {
            LogStream::Stdout => 0,
            LogStream::Stderr => 1,
            LogStream::System => 2,
            LogStream::Access => 3,
        }
    }

    /// Whether a stream is in it.
    #[must_use]
    pub fn has(self, stream: LogStream) -> bool {
        self.0 & Self::bit(stream) != 0
    }
}

impl FromIterator<LogStream> for LogStreams {
    fn from_iter<I: IntoIterator<Item = LogStream>>(streams: I) -> Self {
        Self(
            streams
                .into_iter()
                .fold(0, |set, stream| set | Self::bit(stream)),
        )
    }
}

impl FromStr for LogStreams {
    type Err = LogStreamError;

    fn from_str(text: &str) -> Result<Self, LogStreamError> {
        text.split(',').map(LogStream::from_str).collect()
    }
}

impl fmt::Display for LogStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = LogStream::ALL
            .into_iter()
            .filter(|stream| self.has(*stream));
        let words: Vec<_> = has.map(LogStream::as_str).collect();
        f.write_str(&words.join(","))
    }
}

/// Both stand in JSON and in queries as they do on a command line.
macro_rules! as_text {
    ($($type:ident)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text! { LogTime LogStreams }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(10);
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)] {
            let time: LogTime = text.parse().unwrap();
            assert_eq!(
                time.resolve(now),
                now - Duration::seconds(seconds),
                "{text}"
            );
        }
        let time: LogTime = "1970-01-02T01:00:00+01:00".parse().unwrap();
        assert_eq!(
            time.resolve(now),
            OffsetDateTime::UNIX_EPOCH + Duration::DAY
        );
        assert_eq!(time.to_string().parse(), Ok(time));
        for text in ["", "5", "-5s", "5w", "99999999d", "yesterday", "2026-01-02"] {
            assert!(text.parse::<LogTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn sets_of_streams() {
        let streams: LogStreams = "access,stdout".parse().unwrap();
        assert!(streams.has(LogStream::Access) && !streams.has(LogStream::Stderr));
        assert_eq!(streams.to_string(), "stdout,access");
        assert_eq!(
            LogStream::ALL.into_iter().collect::<LogStreams>(),
            LogStreams::ALL
        );
        assert!(!LogStreams::OUTPUT.has(LogStream::Access));
        for text in ["", "stdout,", "all"] {
            assert!(text.parse::<LogStreams>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_query_as_pairs() {
        assert!(LogQuery::default().pairs().is_empty());
        let query = LogQuery {
            tail: Some(5),
            follow: true,
            since: Some(LogTime::Ago(60)),
            grep: Some("a&b".to_owned()),
            stream: Some(LogStreams::ALL),
            ..LogQuery::default()
        };
        let pairs: Vec<_> = query.pairs();
        let names: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            names,
            [
                "tail=5",
                "follow=true",
                "since=60s",
                "grep=a&b",
                "stream=stdout,stderr,system,access"
            ]
        );
    }
}
