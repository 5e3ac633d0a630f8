//! `cloister.toml`: the apps of a folder, and what each is deployed with.
//!
//! The keys of an app are those of the API and mean the same. `cloister.schema.json` is made from the types here; a test
//! compares the two. A key that is none is an error, and the message has the one that was meant.

mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use platform_model::{
    AllowHost, AppName, AppRoute, AppRoutes, DeployRequest, Digest, Isolation, Limits, Scale,
    SecretName, TenantName,
};
use serde::Deserialize;
use utoipa::ToSchema;

/// The name of the file.
pub(crate) const FILE: &str = "cloister.toml";

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// There is none.
    #[error(
        "{} is not there: `cloister init` writes one, and `cloister deploy X.wasm --app NAME` needs none",
        .0.display()
    )]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or a value is not what it has to be.
    #[error("{}: {error}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its place.
        error: Box<toml::de::Error>,
    },
    /// A key that is none.
    #[error("{}: {unknown}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        unknown: schema::Unknown,
    },
    /// An app that is not in it.
    #[error("{} has no app {app}: it has {has}", path.display())]
    NoApp {
        /// The file.
        path: PathBuf,
        /// The app.
        app: AppName,
        /// Those that it has.
        has: String,
    },
    /// No app is named, and there is not only one.
    #[error("which app? {} has {has}", path.display())]
    Which {
        /// The file.
        path: PathBuf,
        /// Those that it has.
        has: String,
    },
    /// Flags for what is in the manifest.
    #[error(
        "limits, isolation and scale of these apps are in the manifest: change them there, or name a component"
    )]
    Flags,
    /// What builds an app ended badly.
    #[error("the build of {app} failed ({how}): {command}")]
    Build {
        /// The app.
        app: AppName,
        /// What was run.
        command: String,
        /// How it ended.
        how: String,
    },
    /// Secrets that the app has not.
    #[error("the app {app} needs secrets that it does not have: set {names} first")]
    Secrets {
        /// The app.
        app: AppName,
        /// Their names.
        names: String,
    },
    /// A file that would be written is there.
    #[error("{} is there already: it is left as it is", .0.display())]
    There(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The apps of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The tenant that the apps belong to. `default` by default.
    #[serde(default)]
    pub(crate) tenant: TenantName,
    /// The apps, by name: one table `[app.NAME]` each.
    #[serde(rename = "app")]
    pub(crate) apps: BTreeMap<AppName, AppManifest>,
}

/// What an app is deployed with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppManifest {
    /// The component: a file, from the folder of the manifest on.
    #[schema(value_type = String)]
    pub(crate) component: PathBuf,
    /// A command for `sh` that makes the component, run in the folder of the manifest before a deploy. None by default.
    #[serde(default)]
    pub(crate) build: Option<String>,
    /// Environment variables. None by default.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Names of secrets that the app must have; a deploy without one of them is refused. None by default.
    #[serde(default)]
    pub(crate) secrets: Vec<SecretName>,
    /// Hosts that the component may call: HOST or HOST:PORT. None by default.
    #[serde(default)]
    pub(crate) allow_hosts: Vec<AllowHost>,
    /// Limits. The defaults where they are left out.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// How much requests are kept apart: `instance`, `vm`, `vm:N`, `reuse`, `reuse:N`, `reuse:N,Ts`. `instance` by default.
    #[serde(default)]
    pub(crate) isolation: Isolation,
    /// How many VMs there are. The defaults where it is left out.
    #[serde(default)]
    pub(crate) scale: Scale,
    /// A path that has to answer with a status from 200 to 399 before a deployment answers anybody. Not asked by default.
    #[serde(default)]
    pub(crate) health: Option<String>,
    /// How many of the last deployments are kept, besides those that answer; 1 to 1000. As it is by default.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    pub(crate) keep: Option<u32>,
    /// The hosts and paths that lead to the app, besides the host that it has of itself: one table `[[app.NAME.routes]]` each.
    /// As they are by default.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub(crate) routes: Option<Vec<AppRoute>>,
}

impl AppManifest {
    /// What is asked of the node, for a component with this digest.
    pub(crate) fn request(&self, digest: Digest) -> DeployRequest {
        DeployRequest {
            env: self.env.clone(),
            allow_hosts: self.allow_hosts.clone(),
            limits: self.limits.clone(),
            isolation: self.isolation,
            scale: self.scale,
            health: self.health.clone(),
            ..DeployRequest::new(digest)
        }
    }

    /// The routes that the app is to have, where the manifest says so.
    pub(crate) fn routes(&self) -> Option<AppRoutes> {
        let routes = self.routes.clone()?;
        Some(AppRoutes { routes }.sorted())
    }
}

/// A manifest and where it is.
#[derive(Debug)]
pub(crate) struct Loaded {
    path: PathBuf,
    pub(crate) manifest: Manifest,
}

impl Loaded {
    /// Reads a manifest.
    pub(crate) fn read(path: &Path) -> Result<Self, ManifestError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ManifestError::Missing(path.to_owned()),
            _ => ManifestError::Read {
                path: path.to_owned(),
                source,
            },
        })?;
        let manifest = parse(&text, path)?;
        let path = path.to_owned();
        Ok(Self { path, manifest })
    }

    /// The folder that its paths begin at.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        // A command is not started in a folder without a name.
        match folder.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => folder.to_owned(),
        }
    }

    /// The apps: all of them, or the one that is named.
    pub(crate) fn apps(
        &self,
        only: Option<&AppName>,
    ) -> Result<Vec<(&AppName, &AppManifest)>, ManifestError> {
        let Some(name) = only else {
            return Ok(self.manifest.apps.iter().collect());
        };
        let found = self.manifest.apps.get_key_value(name);
        let found = found.ok_or_else(|| ManifestError::NoApp {
            path: self.path.clone(),
            app: name.clone(),
            has: self.names(),
        })?;
        Ok(vec![found])
    }

    /// The app, where there is only one.
    pub(crate) fn only_app(&self) -> Result<&AppName, ManifestError> {
        let mut names = self.manifest.apps.keys();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(ManifestError::Which {
                path: self.path.clone(),
                has: self.names(),
            }),
        }
    }

    /// The names of the apps, as people list them.
    fn names(&self) -> String {
        let names: Vec<_> = self.manifest.apps.keys().map(AppName::as_str).collect();
        if names.is_empty() {
            return "none".to_owned();
        }
        names.join(", ")
    }

    /// Runs what makes an app's component. What it prints goes to standard error.
    pub(crate) fn build(&self, name: &AppName, app: &AppManifest) -> Result<(), ManifestError> {
        let Some(command) = &app.build else {
            return Ok(());
        };
        let failed = |how: String| ManifestError::Build {
            app: name.clone(),
            command: command.clone(),
            how,
        };
        let status = std::process::Command::new("sh")
            .args(["-c", command])
            .current_dir(self.folder())
            .stdout(std::io::stderr())
            .status()
            .map_err(|error| failed(error.to_string()))?;
        match status.success() {
            true => Ok(()),
            false => Err(failed(status.to_string())),
        }
    }

    /// The file of an app's component.
    pub(crate) fn component(&self, app: &AppManifest) -> PathBuf {
        self.folder().join(&app.component)
    }
}

fn parse(text: &str, path: &Path) -> Result<Manifest, ManifestError> {
    let wrong = |error| ManifestError::Toml {
        path: path.to_owned(),
        error: Box::new(error),
    };
    let table: toml::Table = toml::from_str(text).map_err(wrong)?;
    if let Some(unknown) = schema::unknown(&table) {
        let path = path.to_owned();
        return Err(ManifestError::Unknown { path, unknown });
    }
    toml::from_str(text).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest, ManifestError> {
        parse(text, Path::new(FILE))
    }

    #[test]
    fn a_manifest_with_everything() {
        let manifest = read(
            r#"
            tenant = "acme"
            [app.shop]
            component = "shop.wasm"
            build = "make shop.wasm"
            env = { GREETING = "hi" }
            secrets = ["API_KEY"]
            allow_hosts = ["api.example.com:443"]
            isolation = "reuse:100"
            health = "/healthz"
            keep = 5
            [app.shop.limits]
            memory_bytes = 67108864
            [app.shop.scale]
            min = 1
            [[app.shop.routes]]
            host = "shop.example"
            path = "/api"
            strip_prefix = true
            [[app.shop.routes]]
            host = "shop.example"
            redirect = { to = "https://www.shop.example" }
            [app.other]
            component = "other.wasm"
            "#,
        );
        let manifest = manifest.unwrap();
        assert_eq!(manifest.apps.len(), 2);
        let shop = &manifest.apps[&"shop".parse().unwrap()];
        let request = shop.request(Digest::from_sha256([0; 32]));
        assert_eq!(request.check(), Ok(()));
        assert_eq!(request.limits.memory_bytes, 64 << 20);
        assert_eq!((request.scale.min, shop.keep), (1, Some(5)));
        let routes = shop.routes().unwrap();
        assert_eq!(routes.check(), Ok(()));
        assert!(routes.routes[0].redirect.is_some() && routes.routes[1].strip_prefix);
        let other = &manifest.apps[&"other".parse().unwrap()];
        let plain = DeployRequest::new(Digest::from_sha256([0; 32]));
        assert_eq!(other.request(plain.digest), plain);
        assert_eq!(other.routes(), None);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            (
                "tennant = 'x'",
                "\"tennant\" is no key: did you mean \"tenant\"?",
            ),
            (
                "[app.shop]\ncomponent = 'x'\nallow_host = []",
                "app.shop: \"allow_host\" is no key: did you mean \"allow_hosts\"?",
            ),
            (
                "[app.shop]\ncomponent = 'x'\nallow-hosts = []",
                "did you mean \"allow_hosts\"?",
            ),
            (
                "[app.shop]\ncomponent = 'x'\n[app.shop.limits]\nmemory = 1",
                "app.shop.limits: \"memory\" is no key: did you mean \"memory_bytes\"?",
            ),
            (
                "[app.shop]\ncomponent = 'x'\nzzzzzz = 1",
                "\"zzzzzz\" is no key: there are",
            ),
            (
                "[app.shop]\ncomponent = 'x'\n[[app.shop.routes]]\nhosst = 'a.example'",
                "unknown field `hosst`, expected one of `host`",
            ),
            ("[app.shop]\n", "missing field `component`"),
            ("[app.Shop]\ncomponent = 'x'", "a-z, 0-9"),
            ("[app.shop]\ncomponent = 1", "invalid type"),
            ("[app.shop", "TOML parse error"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with("cloister.toml: "), "{error}");
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
