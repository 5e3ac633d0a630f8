//! Lists in pages: `?limit=N&after=CURSOR`, where the cursor is the `next` of the page before.

use serde::Deserialize;
use utoipa::IntoParams;

/// Items of a page where the client does not say how many.
const DEFAULT: usize = 100;

/// Most items of a page.
const MOST: usize = 1_000;

/// Which page of a list is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// How many items at most; 100 by default. More than 1,000 are never given.
    #[param(minimum = 0)]
    limit: Option<u64>,
    /// The `next` of the page before. It means nothing by itself.
    #[param(max_length = 512)]
    pub(super) after: Option<String>,
}

impl PageQuery {
    /// Items of the page: at least one, so that a list that is read page by page ends.
    pub(super) fn limit(&self) -> usize {
        let limit = self
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(MOST));
        limit.unwrap_or(DEFAULT).clamp(1, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let limit = |limit| PageQuery { limit, after: None }.limit();
        assert_eq!(limit(None), 100);
        assert_eq!(limit(Some(0)), 1);
        assert_eq!(limit(Some(u64::MAX)), 1_000);
    }
}
