//! What the steps of a deploy took, as the node says it in the header `server-timing`.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};

/// One step and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// The step, such as `compile` or `boot`.
    pub step: String,
    /// How long it took.
    pub time: Duration,
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Reads the header: `compile;dur=12.5, boot;dur=1.9`, in milliseconds. What is not of that form is left out.
pub(crate) fn read(headers: &HeaderMap) -> Vec<Timing> {
    let values = headers.get_all(SERVER_TIMING);
    let texts = values.iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .filter_map(metric)
        .collect()
}

/// One step of the header.
fn metric(text: &str) -> Option<Timing> {
    let mut parts = text.split(';').map(str::trim);
    let step = parts.next().filter(|step| !step.is_empty())?.to_owned();
    let millis = parts
        .find_map(|part| part.strip_prefix("dur="))?
        .parse::<f64>()
        .ok()?;
    let time = Duration::try_from_secs_f64(millis / 1000.0).ok()?;
    Some(Timing { step, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        let mut headers = HeaderMap::new();
        headers.append(
            SERVER_TIMING,
            "compile;dur=12.5, boot;desc=x;dur=2".parse().unwrap(),
        );
        headers.append(
            SERVER_TIMING,
            "store;dur=0.25, odd, ;dur=1, nan;dur=x, minus;dur=-1"
                .parse()
                .unwrap(),
        );
        let steps: Vec<_> = read(&headers)
            .into_iter()
            .map(|t| (t.step, t.time.as_micros()))
            .collect();
        let want = [("compile", 12_500), ("boot", 2_000), ("store", 250)];
        assert_eq!(steps, want.map(|(step, time)| (step.to_owned(), time)));
    }
}
