//! What a caller expects a record to be before it is changed: `If-Match` of the API.

use crate::store::Revision;

/// The record is not the one that the caller has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was changed since it was read, or is not there: read it again, then decide")]
pub struct Unexpected;

/// Which state of a record a change is meant for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expected {
    /// Any, or none.
    #[default]
    Anything,
    /// Any, and it is there.
    Existing,
    /// One of these.
    OneOf(Vec<Revision>),
}

impl Expected {
    /// Compares with what is there.
    ///
    /// # Errors
    /// When that is not what was expected.
    pub fn check(&self, found: Option<Revision>) -> Result<(), Unexpected> {
        let fits = match self {
            Self::Anything => true,
            Self::Existing => found.is_some(),
            Self::OneOf(revisions) => found.is_some_and(|found| revisions.contains(&found)),
        };
        if fits { Ok(()) } else { Err(Unexpected) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits() {
        let some = Some(Revision(3));
        assert_eq!(Expected::Anything.check(None), Ok(()));
        assert_eq!(Expected::Existing.check(some), Ok(()));
        assert_eq!(Expected::Existing.check(None), Err(Unexpected));
        let one = Expected::OneOf(vec![Revision(2), Revision(3)]);
        assert_eq!(one.check(some), Ok(()));
        assert_eq!(one.check(Some(Revision(4))), Err(Unexpected));
        assert_eq!(one.check(None), Err(Unexpected));
    }
}
