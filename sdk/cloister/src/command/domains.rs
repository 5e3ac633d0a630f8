//! `domain`: names of a tenant's own, their proof and their certificates.

use std::path::Path;

use platform_model::{
    CertificateRequest, CertificateSource, Domain, DomainOptions, HstsOptions, Secret, TenantName,
};
use sdk_client::Client;
use serde_json::json;
use time::{OffsetDateTime, UtcOffset};

use super::or_dash;
use crate::args::hosts::{AddDomainArgs, CertificateArgs, DomainArgs, DomainCommand};
use crate::failure::CliError;
use crate::quantity::age;
use crate::table::{Table, text};
use crate::terminal::{Terminal, Tone, printable};

/// Runs a command on domains.
pub(super) async fn run(
    command: &DomainCommand,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    match command {
        DomainCommand::Add(args) => add(args, client, terminal).await,
        DomainCommand::List { tenant } => list(tenant, client, terminal).await,
        DomainCommand::Show(of) => {
            let domain = client.domain(&of.tenant, &of.domain).await?;
            show(&domain, terminal)
        }
        DomainCommand::Verify(of) => verify(of, client, terminal).await,
        DomainCommand::Certificate(args) => certificate(args, client, terminal).await,
        DomainCommand::Renew(of) => {
            let domain = client.renew_certificate(&of.tenant, &of.domain).await?;
            let then = format!("`cloister domain show {}` tells how it goes", of.domain);
            told(
                &domain,
                "the certificate is being obtained",
                Some(&then),
                terminal,
            )
        }
        DomainCommand::Remove(of) => {
            client.delete_domain(&of.tenant, &of.domain).await?;
            if terminal.json {
                return terminal.print_json(&json!({"domain": of.domain, "deleted": true}));
            }
            terminal.done(&format!("{} is removed", of.domain))
        }
    }
}

async fn add(args: &AddDomainArgs, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let options = DomainOptions {
        https_redirect: args.https_redirect,
        hsts: args.hsts.map(|max_age_seconds| HstsOptions {
            max_age_seconds,
            include_subdomains: args.hsts_subdomains,
        }),
        acme: !args.no_acme,
    };
    let of = &args.of;
    let domain = client.set_domain(&of.tenant, &of.domain, &options).await?;
    if terminal.json {
        return terminal.print_json(&domain);
    }
    if domain.proved_at.is_some() {
        return terminal.done(&format!("{} is set", domain.domain));
    }
    terminal.done(&format!(
        "{} is added, and served when it is proved",
        domain.domain
    ))?;
    proof(&domain, terminal)
}

/// Says how a domain is proved.
fn proof(domain: &Domain, terminal: &Terminal) -> Result<(), CliError> {
    let strong = |text: &str| terminal.paint(Tone::Strong, &printable(text));
    let proof = &domain.proof;
    let (name, value) = (strong(&proof.txt_name), strong(&proof.txt_value));
    terminal.print(&format!("  put into DNS:  {name}  TXT  {value}"))?;
    let (url, body) = (strong(&proof.http_url), strong(&proof.http_body));
    terminal.print(&format!("  or answer at:  {url}  with  {body}"))?;
    let of = match domain.tenant.is_default() {
        true => String::new(),
        false => format!(" --tenant {}", domain.tenant),
    };
    terminal.print(&format!(
        "  then:          cloister domain verify {}{of}",
        domain.domain
    ))
}

async fn verify(of: &DomainArgs, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let domain = {
        let _shown = terminal.spinner("looking for the proof");
        client.verify_domain(&of.tenant, &of.domain).await?
    };
    let then = format!(
        "`cloister route add APP {}` lets it lead to an app",
        of.domain
    );
    told(&domain, "it is proved", Some(&then), terminal)
}

async fn certificate(
    args: &CertificateArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let of = &args.of;
    let (Some(cert), Some(key)) = (&args.cert, &args.key) else {
        client.delete_certificate(&of.tenant, &of.domain).await?;
        let domain = client.domain(&of.tenant, &of.domain).await?;
        return told(&domain, "the certificate is gone", None, terminal);
    };
    let chain = String::from_utf8_lossy(&read(cert)?).into_owned();
    let key = Secret::from_bytes(read(key)?);
    let key = key.ok_or_else(|| CliError::NoValue("the key is no PEM file".to_owned()))?;
    let request = CertificateRequest { chain, key };
    let domain = client.set_certificate(&of.tenant, &of.domain, &request);
    told(&domain.await?, "the certificate is served", None, terminal)
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let path = path.to_owned();
    std::fs::read(&path).map_err(|source| CliError::File { path, source })
}

/// Says what was done, and what can be done then.
fn told(
    domain: &Domain,
    what: &str,
    then: Option<&str>,
    terminal: &Terminal,
) -> Result<(), CliError> {
    if terminal.json {
        return terminal.print_json(domain);
    }
    terminal.done(&format!("{}: {what}", domain.domain))?;
    match then {
        Some(then) => terminal.print(&format!("  {then}")),
        None => Ok(()),
    }
}

async fn list(tenant: &TenantName, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let domains = client.domains(tenant).await?;
    if terminal.json {
        return terminal.print_json(&domains);
    }
    let now = OffsetDateTime::now_utc();
    let columns = ["DOMAIN", "PROVED", "CERTIFICATE", "HTTPS"].map(text);
    let mut table = Table::new(terminal, columns);
    for domain in domains {
        let proved = domain
            .proved_at
            .map_or("no".to_owned(), |then| age(then, now));
        table.row([
            domain.domain.to_string(),
            proved,
            validity(&domain),
            https(&domain),
        ]);
    }
    terminal.print(&table.text())
}

/// Until when there is a certificate, or why there is none.
fn validity(domain: &Domain) -> String {
    match (&domain.certificate, &domain.issuance) {
        (Some(certificate), _) => {
            let from = match certificate.source {
                CertificateSource::Uploaded => "uploaded",
                CertificateSource::Acme => "ACME",
            };
            format!("until {} ({from})", certificate.not_after.date())
        }
        (None, Some(issuance)) if issuance.failures > 0 => "failing".to_owned(),
        (None, Some(_)) => "being obtained".to_owned(),
        (None, None) => "none".to_owned(),
    }
}

fn https(domain: &Domain) -> String {
    let options = &domain.options;
    let redirect = options.https_redirect.then_some("redirect");
    let hsts = options.hsts.as_ref().map(|_| "hsts");
    let all: Vec<_> = redirect.into_iter().chain(hsts).collect();
    or_dash(all.join(", "))
}

fn show(domain: &Domain, terminal: &Terminal) -> Result<(), CliError> {
    if terminal.json {
        return terminal.print_json(domain);
    }
    let now = OffsetDateTime::now_utc();
    terminal.print(&terminal.paint(Tone::Strong, domain.domain.as_str()))?;
    match domain.proved_at {
        Some(then) => terminal.print(&format!("  proved       {}", age(then, now)))?,
        None => {
            terminal.print("  not proved, and so not served")?;
            proof(domain, terminal)?;
        }
    }
    terminal.print(&format!("  certificate  {}", validity(domain)))?;
    terminal.print(&format!("  https        {}", https(domain)))?;
    if let Some(issuance) = &domain.issuance {
        let at = issuance.next_at.to_offset(UtcOffset::UTC);
        let what = match &domain.certificate {
            Some(_) => "renewal",
            None => "next try",
        };
        let at = format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute());
        terminal.print(&format!("  {what:<11}  {at}"))?;
        if let Some(error) = &issuance.last_error {
            let error = terminal.paint(Tone::Bad, &printable(error));
            terminal.print(&format!("  failed {} times: {error}", issuance.failures))?;
        }
    }
    Ok(())
}
