//! What is typed about routes and domains.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use platform_model::{HostName, PathPrefix, TenantName};

use super::AppArgs;
use super::access::lifetime;

/// A host and a path, as `HOST` or `HOST/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: HostName,
    pub(crate) path: PathPrefix,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, path) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, "/"),
        };
        Ok(Self {
            host: host.parse().map_err(|e| format!("{e}"))?,
            path: path.parse().map_err(|e| format!("{e}"))?,
        })
    }
}

/// `route …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// List the routes of an app, besides the host that it has of itself
    List(AppArgs),
    /// Let exactly these hosts and paths lead to an app, besides the host that it has of itself
    #[command(after_help = "Example: cloister route set shop shop.example www.shop.example/api")]
    Set {
        #[command(flatten)]
        app: AppArgs,
        /// Hosts and paths; the host is a proved domain, or the app's own
        #[arg(value_name = "HOST[/PATH]", required = true)]
        places: Vec<Place>,
    },
    /// Let one more host and path lead to an app, or elsewhere
    #[command(
        after_help = "Examples: cloister route add shop shop.example/api --strip-prefix\n          \
                      cloister route add shop www.shop.example --redirect https://shop.example"
    )]
    Add(AddRouteArgs),
    /// Take one route away
    Remove {
        #[command(flatten)]
        app: AppArgs,
        /// Host and path
        #[arg(value_name = "HOST[/PATH]")]
        place: Place,
    },
}

/// `route add`.
#[derive(Debug, Args)]
pub(crate) struct AddRouteArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Host and path; a route that has both is replaced
    #[arg(value_name = "HOST[/PATH]")]
    pub(crate) place: Place,
    /// Let the component see the path without this one
    #[arg(long, conflicts_with = "redirect")]
    pub(crate) strip_prefix: bool,
    /// Send clients to this URL, or to this path of the same host
    #[arg(long, value_name = "TO")]
    pub(crate) redirect: Option<String>,
    /// The status of the redirect: 301, 302, 307 or 308
    #[arg(
        long,
        value_name = "STATUS",
        default_value_t = 308,
        requires = "redirect"
    )]
    pub(crate) status: u16,
    /// Send clients to exactly that place, without the rest of the path and the query
    #[arg(long, requires = "redirect")]
    pub(crate) drop_path: bool,
}

/// A domain of a tenant.
#[derive(Debug, Args)]
pub(crate) struct DomainArgs {
    /// The domain
    pub(crate) domain: HostName,
    /// The tenant that it belongs to
    #[arg(long, short, default_value_t)]
    pub(crate) tenant: TenantName,
}

/// `domain …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Add a domain, or set anew what one is to be; says how it is proved
    #[command(
        after_help = "Example: cloister domain add shop.example --https-redirect --hsts 365d"
    )]
    Add(AddDomainArgs),
    /// List the domains of a tenant
    List {
        /// The tenant
        #[arg(long, short, default_value_t)]
        tenant: TenantName,
    },
    /// Show a domain: its proof, its certificate, and how it goes with obtaining one
    Show(DomainArgs),
    /// Have the node look for the proof; from then on the domain is served
    Verify(DomainArgs),
    /// Serve a domain with a certificate of your own
    #[command(
        after_help = "Example: cloister domain certificate shop.example --cert chain.pem --key key.pem"
    )]
    Certificate(CertificateArgs),
    /// Have the node obtain or renew the certificate now
    Renew(DomainArgs),
    /// Remove a domain with its certificate
    Remove(DomainArgs),
}

/// `domain add`.
#[derive(Debug, Args)]
pub(crate) struct AddDomainArgs {
    #[command(flatten)]
    pub(crate) of: DomainArgs,
    /// Send requests over plain HTTP to HTTPS, from when there is a certificate on
    #[arg(long)]
    pub(crate) https_redirect: bool,
    /// Tell clients to come over TLS only for so long, such as 365d (Strict-Transport-Security)
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) hsts: Option<u64>,
    /// Let that hold for names below the domain too
    #[arg(long, requires = "hsts")]
    pub(crate) hsts_subdomains: bool,
    /// Do not have the node obtain a certificate
    #[arg(long)]
    pub(crate) no_acme: bool,
}

/// `domain certificate`.
#[derive(Debug, Args)]
pub(crate) struct CertificateArgs {
    #[command(flatten)]
    pub(crate) of: DomainArgs,
    /// A PEM file with the chain, the domain's own certificate first
    #[arg(long, value_name = "FILE", required_unless_present = "remove")]
    pub(crate) cert: Option<PathBuf>,
    /// A PEM file with the private key
    #[arg(long, value_name = "FILE", required_unless_present = "remove")]
    pub(crate) key: Option<PathBuf>,
    /// Take the certificate away instead
    #[arg(long, conflicts_with_all = ["cert", "key"])]
    pub(crate) remove: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_a_host_and_a_path() {
        let place = |text: &str| {
            let Place { host, path } = text.parse().unwrap();
            format!("{host} {path}")
        };
        assert_eq!(place("Shop.example"), "shop.example /");
        assert_eq!(place("shop.example/api/v1/"), "shop.example /api/v1");
        for bad in [
            "",
            "/api",
            "shop",
            "shop.example:80",
            "http://shop.example",
            "a.example/../x",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
