//! `wasi:http/types.fields`: headers and trailers.
//!
//! All names and values lie in one buffer, shared by clones until one of them changes. The fields of an incoming head
//! lie where the head was received.

use crate::http::held::Held;
use crate::http::syntax;
use crate::link::bindings::wasi::http::types::{HeaderError, HostFields};
use crate::runtime::State;
use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use wasmtime::component::Resource;
use wasmtime::{Result, bail};

/// Bytes of fields that a component may build, counted as `wasmtime serve` counts them.
const LARGEST: usize = 128 << 10;
/// What each name and each value counts beyond its bytes.
const NAME_COST: usize = 32;
const VALUE_COST: usize = 40;
/// Names that belong to the connection, not to the component. Sorted by nothing: there are few.
const FORBIDDEN: [&[u8]; 9] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
    b"host",
    b"http2-settings",
];

/// Where a name and its value lie.
#[derive(Clone, Copy)]
struct Span {
    name: (u32, u32),
    value: (u32, u32),
}

#[derive(Clone, Default)]
struct List {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    size: usize,
    held: Held,
}

fn slice(bytes: &[u8], (start, len): (u32, u32)) -> &[u8] {
    bytes
        .get(start as usize..(start + len) as usize)
        .unwrap_or_default()
}

impl List {
    fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.spans
            .iter()
            .map(|s| (slice(&self.bytes, s.name), slice(&self.bytes, s.value)))
    }

    fn put(&mut self, bytes: &[u8]) -> (u32, u32) {
        // `LARGEST` keeps the buffer far below 4 GiB.
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        (start, bytes.len() as u32)
    }

    /// Adds a field behind the last one of its name. `name` is in lower case.
    fn append(&mut self, name: &[u8], value: &[u8]) {
        let last = self
            .spans
            .iter()
            .rposition(|s| slice(&self.bytes, s.name) == name);
        let (at, name) = match last {
            Some(n) => (n + 1, self.spans.get(n).map_or((0, 0), |s| s.name)),
            None => (self.spans.len(), self.put(name)),
        };
        self.size += self.cost(last.is_none(), name.1 as usize, value.len());
        let value = self.put(value);
        self.spans.insert(at, Span { name, value });
    }

    fn cost(&self, new: bool, name: usize, value: usize) -> usize {
        value + VALUE_COST + if new { name + NAME_COST } else { 0 }
    }

    /// The list with `values` in place of the fields of this name. `None`: there is no room for what it is larger.
    fn replaced(&self, name: &[u8], values: &[Cow<'_, [u8]>]) -> Option<List> {
        let mut list = List::default();
        let mut put = false;
        for (n, v) in self.iter() {
            if n != name {
                list.append(n, v);
            } else if !core::mem::replace(&mut put, true) {
                for value in values {
                    list.append(n, value);
                }
            }
        }
        // As much as what it replaces it may hold in any case.
        let _ = list.held.grow(list.size.min(self.size));
        list.held
            .grow(list.size.saturating_sub(self.size))
            .then_some(list)
    }
}

/// Fields.
#[derive(Clone, Default)]
pub struct Fields {
    list: Arc<List>,
    mutable: bool,
}

/// Why fields were not changed.
pub enum Refused {
    /// The component is told.
    Error(HeaderError),
    /// They would be too large: that is a trap.
    TooLarge,
}

type Changed = core::result::Result<(), Refused>;

/// What the component is told, or the trap.
fn told(changed: Changed) -> Result<core::result::Result<(), HeaderError>> {
    match changed {
        Ok(()) => Ok(Ok(())),
        Err(Refused::Error(e)) => Ok(Err(e)),
        Err(Refused::TooLarge) => bail!("total size of fields exceeds limit"),
    }
}

impl Fields {
    /// Fields as they came over the ring, for reading only. Those that belong to the connection are left out.
    pub fn received(payload: &[u8], fields: sandbox_abi::head::Fields<'_>) -> Fields {
        let mut list = List {
            bytes: payload.to_vec(),
            ..List::default()
        };
        list.spans.reserve(fields.count().min(1024));
        let offset = |part: &[u8]| {
            let start = part.as_ptr().addr().wrapping_sub(payload.as_ptr().addr());
            (start as u32, part.len() as u32)
        };
        for (name, value) in fields.flatten() {
            if !FORBIDDEN.contains(&name) {
                list.spans.push(Span {
                    name: offset(name),
                    value: offset(value),
                });
                list.size += list.cost(true, name.len(), value.len());
            }
        }
        Fields {
            list: Arc::new(list),
            mutable: false,
        }
    }

    /// No more changes.
    pub fn freeze(mut self) -> Fields {
        self.mutable = false;
        self
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        self.list.iter()
    }

    /// Bytes that [`sandbox_abi::head::Fields::write`] makes of them.
    pub fn encoded_len(&self) -> usize {
        4 + self
            .iter()
            .map(|(n, v)| n.len() + v.len() + 8)
            .sum::<usize>()
    }

    /// The `content-length`, if there is one.
    pub fn content_length(&self) -> Option<u64> {
        let (_, value) = self.iter().find(|(n, _)| *n == b"content-length")?;
        syntax::content_length(value)
    }

    /// A name in lower case that the component may set.
    fn own(&self, name: String) -> core::result::Result<Vec<u8>, Refused> {
        let mut name = name.into_bytes();
        if !syntax::name(&name) {
            return Err(Refused::Error(HeaderError::InvalidSyntax));
        }
        name.make_ascii_lowercase();
        if FORBIDDEN.contains(&name.as_slice()) {
            return Err(Refused::Error(HeaderError::Forbidden));
        }
        Ok(name)
    }

    fn may_change(&self) -> Changed {
        if self.mutable {
            Ok(())
        } else {
            Err(Refused::Error(HeaderError::Immutable))
        }
    }

    /// The value as it is kept: a length without leading zeros.
    fn valid<'v>(name: &[u8], value: &'v [u8]) -> core::result::Result<Cow<'v, [u8]>, Refused> {
        let kept = if name == b"content-length" {
            syntax::content_length(value).map(|n| Cow::Owned(n.to_string().into_bytes()))
        } else {
            syntax::value(value).then_some(Cow::Borrowed(value))
        };
        kept.ok_or(Refused::Error(HeaderError::InvalidSyntax))
    }

    fn append(&mut self, name: String, value: &[u8]) -> Changed {
        let name = self.own(name)?;
        let value = Self::valid(&name, value)?;
        let new = !self.iter().any(|(n, _)| n == name);
        if name == b"content-length" && !new {
            return Err(Refused::Error(HeaderError::InvalidSyntax));
        }
        self.may_change()?;
        if self.list.size + self.list.cost(new, name.len(), value.len()) > LARGEST {
            return Err(Refused::TooLarge);
        }
        let list = Arc::make_mut(&mut self.list);
        if !list.held.grow(list.cost(new, name.len(), value.len())) {
            return Err(Refused::TooLarge);
        }
        list.append(&name, &value);
        Ok(())
    }

    fn set(&mut self, name: String, values: &[Vec<u8>]) -> Changed {
        let name = self.own(name)?;
        self.may_change()?;
        if name == b"content-length" && values.len() > 1 {
            return Err(Refused::Error(HeaderError::InvalidSyntax));
        }
        let values = values
            .iter()
            .map(|value| Self::valid(&name, value))
            .collect::<core::result::Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return self.remove(&name);
        }
        let added = values
            .iter()
            .fold(0_usize, |sum, v| sum.saturating_add(v.len() + VALUE_COST));
        if added > LARGEST {
            return Err(Refused::TooLarge);
        }
        if self.iter().any(|(n, _)| n == name) {
            let list = self.list.replaced(&name, &values);
            let fits = list.filter(|list| list.size <= LARGEST);
            self.list = Arc::new(fits.ok_or(Refused::TooLarge)?);
            return Ok(());
        }
        let size = added + name.len() + NAME_COST;
        if self.list.size + size > LARGEST {
            return Err(Refused::TooLarge);
        }
        let list = Arc::make_mut(&mut self.list);
        if !list.held.grow(size) {
            return Err(Refused::TooLarge);
        }
        for value in &values {
            list.append(&name, value);
        }
        Ok(())
    }

    fn delete(&mut self, name: String) -> Changed {
        let name = self.own(name)?;
        self.may_change()?;
        self.remove(&name)
    }

    fn remove(&mut self, name: &[u8]) -> Changed {
        if self.iter().any(|(n, _)| n == name) {
            let list = self.list.replaced(name, &[]);
            self.list = Arc::new(list.ok_or(Refused::TooLarge)?);
        }
        Ok(())
    }
}

impl HostFields for State {
    fn new(&mut self) -> Result<Resource<Fields>> {
        Ok(self.table.push(Fields {
            mutable: true,
            ..Fields::default()
        })?)
    }

    fn from_list(
        &mut self,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Result<core::result::Result<Resource<Fields>, HeaderError>> {
        let mut fields = Fields {
            mutable: true,
            ..Fields::default()
        };
        for (name, value) in entries {
            if let Err(e) = told(fields.append(name, &value))? {
                return Ok(Err(e));
            }
        }
        Ok(Ok(self.table.push(fields)?))
    }

    fn get(&mut self, fields: Resource<Fields>, name: String) -> Result<Vec<Vec<u8>>> {
        let fields = self.table.get(&fields)?;
        let matching = fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        Ok(matching.map(|(_, v)| v.to_vec()).collect())
    }

    fn has(&mut self, fields: Resource<Fields>, name: String) -> Result<bool> {
        Ok(self
            .table
            .get(&fields)?
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())))
    }

    fn set(
        &mut self,
        fields: Resource<Fields>,
        name: String,
        values: Vec<Vec<u8>>,
    ) -> Result<core::result::Result<(), HeaderError>> {
        told(self.table.get_mut(&fields)?.set(name, &values))
    }

    fn delete(
        &mut self,
        fields: Resource<Fields>,
        name: String,
    ) -> Result<core::result::Result<(), HeaderError>> {
        told(self.table.get_mut(&fields)?.delete(name))
    }

    fn append(
        &mut self,
        fields: Resource<Fields>,
        name: String,
        value: Vec<u8>,
    ) -> Result<core::result::Result<(), HeaderError>> {
        told(self.table.get_mut(&fields)?.append(name, &value))
    }

    fn entries(&mut self, fields: Resource<Fields>) -> Result<Vec<(String, Vec<u8>)>> {
        let fields = self.table.get(&fields)?;
        // Names are tokens, thus ASCII.
        Ok(fields
            .iter()
            .map(|(n, v)| (String::from_utf8_lossy(n).into_owned(), v.to_vec()))
            .collect())
    }

    fn clone(&mut self, fields: Resource<Fields>) -> Result<Resource<Fields>> {
        let mut fields = self.table.get(&fields)?.clone();
        fields.mutable = true;
        Ok(self.table.push(fields)?)
    }

    fn drop(&mut self, fields: Resource<Fields>) -> Result<()> {
        self.table.delete(fields)?;
        Ok(())
    }
}
