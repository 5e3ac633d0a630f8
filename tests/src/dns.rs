//! A name server for tests: answers A and TXT for the names that it is told, over UDP.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

const A: u16 = 1;
const TXT: u16 = 16;

type Names = HashMap<String, Vec<(u16, Vec<u8>)>>;

/// A name server; it ends with the runtime.
#[derive(Debug, Clone)]
pub struct Dns {
    address: SocketAddr,
    names: Arc<Mutex<Names>>,
}

impl Dns {
    /// Starts one that knows no name.
    ///
    /// # Panics
    /// When there is no port for it.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let names = Arc::<Mutex<Names>>::default();
        let known = Arc::clone(&names);
        tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &known.lock().unwrap());
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, names }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn set(&self, name: &str, kind: u16, data: Vec<u8>) {
        let mut names = self.names.lock().unwrap();
        let records = names.entry(name.to_ascii_lowercase()).or_default();
        records.retain(|(known, _)| *known != kind);
        records.push((kind, data));
    }

    /// Gives a name an address.
    ///
    /// # Panics
    /// When the server panicked.
    pub fn address_of(&self, name: &str, address: Ipv4Addr) {
        self.set(name, A, address.octets().to_vec());
    }

    /// Gives a name a text, in place of the one that it has.
    ///
    /// # Panics
    /// When the text is longer than 255 bytes, or the server panicked.
    pub fn txt(&self, name: &str, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        self.set(name, TXT, [&[length], text.as_bytes()].concat());
    }
}

/// The answer to a query with one question.
fn answer(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (head, rest) = query.split_at_checked(12)?;
    let (mut name, mut at) = (Vec::new(), 0);
    loop {
        let length = usize::from(*rest.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = rest.get(at..at + length)?;
        name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]);
    let question = rest.get(..at + 4)?;
    let found = names.get(&name.join("."));
    let records: Vec<_> = found.into_iter().flatten().collect();
    let records: Vec<_> = records.iter().filter(|(known, _)| *known == kind).collect();
    // A response of an authority that would recurse; a name that is not there is NXDOMAIN.
    let code = if found.is_some() { 0 } else { 3 };
    let count = u8::try_from(records.len()).ok()?;
    let mut answer = head[..2].to_vec();
    answer.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    for (kind, data) in records {
        // The name of the question, the kind, the class IN, no time to keep it.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0]);
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}
