//! Whether what is sealed opens.

use super::Report;
use super::records::Content;
use crate::engine;
use crate::keyring::FILE;
use crate::sealing::Keys;
use crate::store::records::{Record as _, Stored};

/// Opens every sealed value, and lets go of it.
pub(super) fn check(keys: Option<&Keys>, content: &Content, report: &mut Report) {
    let answers = content.requests.iter();
    let answers = answers.filter(|request| request.record.answer.is_some());
    let Some(keys) = keys else {
        let others = content.certificates.len() + content.accounts.len();
        let sealed = content.secrets.len() + others + answers.count();
        if sealed > 0 {
            report.problem(
                FILE,
                format!("there is no key, and {sealed} values are sealed"),
            );
        }
        return;
    };
    for Stored { record, .. } in &content.secrets {
        report.sealed += 1;
        if let Err(error) = engine::open_secret(keys, record) {
            report.problem(record.key().as_str(), error.to_string());
        }
    }
    for Stored { record, .. } in &content.certificates {
        report.sealed += 1;
        if let Err(error) = engine::open_certificate(keys, record) {
            report.problem(record.key().as_str(), error.to_string());
        }
    }
    for Stored { record, .. } in &content.accounts {
        report.sealed += 1;
        if let Err(error) = engine::open_account(keys, record) {
            report.problem(record.key().as_str(), error.to_string());
        }
    }
    for Stored { record, .. } in answers {
        report.sealed += 1;
        if !engine::answer_opens(keys, record) {
            report.problem(record.key().as_str(), "its answer does not open");
        }
    }
}
