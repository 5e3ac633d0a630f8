//! Who reads logs at the moment: bounded, for the node and for each app.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::LogKey;

/// Readers of all logs at the same time.
const READERS: usize = 512;

/// Readers of one log at the same time.
const READERS_OF_APP: usize = 16;

/// There is no place for one more reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadersError {
    /// Of the log of this app.
    #[error("{READERS_OF_APP} requests read the log of this app already: end one of them")]
    App,
    /// Of all.
    #[error("{READERS} requests read logs of this node already: try again later")]
    Node,
}

/// The readers by the app whose log they read.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<HashMap<LogKey, usize>>);

impl Readers {
    /// Takes a place.
    pub(super) fn enter(self: &Arc<Self>, key: LogKey) -> Result<Reader, ReadersError> {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.values().sum::<usize>() >= READERS {
            return Err(ReadersError::Node);
        }
        let count = readers.entry(key.clone()).or_insert(0);
        if *count >= READERS_OF_APP {
            return Err(ReadersError::App);
        }
        *count += 1;
        Ok(Reader {
            readers: Arc::clone(self),
            key,
        })
    }
}

/// A place among the readers.
#[derive(Debug)]
pub struct Reader {
    readers: Arc<Readers>,
    key: LogKey,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let readers = &self.readers.0;
        let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = readers.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(app: &str) -> LogKey {
        ("acme".parse().unwrap(), app.parse().unwrap())
    }

    #[test]
    fn an_app_and_the_node_have_so_many_places() {
        let readers = Arc::new(Readers::default());
        let mut held: Vec<_> = (0..READERS_OF_APP)
            .map(|_| readers.enter(key("a")).unwrap())
            .collect();
        assert_eq!(readers.enter(key("a")).unwrap_err(), ReadersError::App);
        held.pop();
        held.push(readers.enter(key("a")).unwrap());
        for n in 0..READERS - READERS_OF_APP {
            held.push(readers.enter(key(&format!("b{n}"))).unwrap());
        }
        assert_eq!(readers.enter(key("c")).unwrap_err(), ReadersError::Node);
        drop(held);
        assert!(readers.0.lock().unwrap().is_empty());
    }
}
