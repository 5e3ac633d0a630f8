//! Where a guest's requests may go. Pure rules.
//!
//! Nothing goes out unless the deployment lists the host. A name leads only to addresses of the public internet, so
//! that no name service can lead a guest into the host's own network; an address that is not public must itself be
//! listed, literally. The one exception is the name `localhost`, which means the loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use platform_model::AllowHost;

/// Whether one of `allowed` lists `host` at `port`.
pub(crate) fn is_listed(allowed: &[AllowHost], host: &str, port: u16) -> bool {
    allowed.iter().any(|entry| entry.matches(host, port))
}

/// Whether the name `name` may lead to `address`.
pub(crate) fn may_resolve(name: &str, address: IpAddr) -> bool {
    if name.eq_ignore_ascii_case("localhost") {
        return address.to_canonical().is_loopback();
    }
    is_public(address)
}

/// Whether an address belongs to the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Global unicast is 2000::/3 and nothing else; that leaves out ::, ::1, mapped addresses, 64:ff9b::, fc00::,
    // fe80::, fec0:: and ff00::. Within it, what carries an address of IPv4 or is not routed.
    let global = segments[0] & 0xe000 == 0x2000;
    let special = (segments[0] == 0x2001 && (segments[1] < 0x0200 || segments[1] == 0x0db8))
        || segments[0] == 0x2002
        || (segments[0] == 0x3fff && segments[1] < 0x1000);
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_that_are_not_public() {
        for text in [
            "127.0.0.1",
            "127.255.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn localhost_is_the_loopback_and_nothing_else_is() {
        let (home, out) = ("127.0.0.1".parse().unwrap(), "8.8.8.8".parse().unwrap());
        assert!(may_resolve("LocalHost", home) && !may_resolve("localhost", out));
        assert!(
            !may_resolve("a.localhost", home)
                && may_resolve("example.com", out)
                && !may_resolve("example.com", home)
        );
    }

    #[test]
    fn only_what_is_listed() {
        let allowed: Vec<AllowHost> = ["example.com:443", "127.0.0.1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert!(is_listed(&allowed, "EXAMPLE.com", 443) && !is_listed(&allowed, "example.com", 80));
        assert!(
            is_listed(&allowed, "127.0.0.1", 9)
                && !is_listed(&allowed, "localhost", 9)
                && !is_listed(&allowed, "[::ffff:127.0.0.1]", 9)
        );
        assert!(!is_listed(&[], "example.com", 443));
    }

    proptest! {
        #[test]
        fn mapped_addresses_are_never_public(bits: u32) {
            prop_assert!(!is_public(Ipv4Addr::from(bits).to_ipv6_mapped().into()));
        }
    }
}
