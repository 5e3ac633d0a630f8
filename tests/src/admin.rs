//! The admin API over plain HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::client::{Answer, Body, Connection, empty, full};
use crate::wait::within;

/// Longest that a call of the admin API may take: a deploy compiles.
const CALL: Duration = Duration::from_secs(120);

/// Where the admin API is, and the token to call it with.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The address.
    pub addr: SocketAddr,
    /// The bearer token.
    pub token: String,
}

impl Admin {
    /// Sends a request.
    ///
    /// # Errors
    /// When there is no whole answer: the node is gone, for example.
    pub async fn try_call(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: Body,
    ) -> anyhow::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.addr.to_string())
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", kind)
            .body(body)?;
        let mut connection = Connection::h1(self.addr).await?;
        Ok(connection.call(request).await?)
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When there is no whole answer in time.
    pub async fn call(&self, method: &str, path: &str, kind: &str, body: Body) -> Answer {
        let what = format!("the answer to {method} {path} of the admin API");
        let answer = within(CALL, &what, self.try_call(method, path, kind, body)).await;
        answer.unwrap_or_else(|error| panic!("{what}: {error:#}"))
    }

    /// `GET`s a path that has an answer.
    ///
    /// # Panics
    /// When the status is not 200.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, "application/json", empty()).await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "GET {path}: {}",
            answer.text()
        );
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The items of a list.
    ///
    /// # Panics
    /// When there is no such list.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await;
        list["items"]
            .as_array()
            .unwrap_or_else(|| panic!("{path} is no list: {list}"))
            .clone()
    }

    /// `DELETE`s a path.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "application/json", empty()).await
    }

    /// The VM of an app's deployment that serves, as the status has it.
    ///
    /// # Panics
    /// When there is no status.
    pub async fn vm(&self, tenant: &str, app: &str) -> Option<Value> {
        let status = self.get("/v1/status").await;
        let vms = status["vms"]
            .as_array()
            .unwrap_or_else(|| panic!("no vms in {status}"));
        let mut mine = vms
            .iter()
            .filter(|vm| vm["tenant"] == tenant && vm["app"] == app);
        mine.find(|vm| vm["state"] == "ready").cloned()
    }

    /// The process of a tenant's worker.
    ///
    /// # Panics
    /// When there is no status.
    pub async fn worker(&self, tenant: &str) -> Option<u32> {
        let status = self.get("/v1/status").await;
        let workers = status["workers"]
            .as_array()
            .unwrap_or_else(|| panic!("no workers in {status}"));
        let mine = workers.iter().find(|worker| worker["tenant"] == tenant)?;
        u32::try_from(mine["pid"].as_u64()?).ok()
    }

    /// A deploy of a component under this app's name, to be filled in.
    #[must_use]
    pub fn deploy<'a>(&'a self, app: &str, component: &'a [u8]) -> Deploy<'a> {
        Deploy {
            admin: self,
            component,
            tenant: "default".to_owned(),
            app: app.to_owned(),
            env: BTreeMap::new(),
            allow_hosts: Vec::new(),
            limits: json!({}),
            isolation: "instance".to_owned(),
            scale: json!({}),
        }
    }
}

/// A deploy that is being put together.
#[derive(Debug)]
pub struct Deploy<'a> {
    admin: &'a Admin,
    component: &'a [u8],
    tenant: String,
    app: String,
    env: BTreeMap<String, String>,
    allow_hosts: Vec<String>,
    limits: Value,
    isolation: String,
    scale: Value,
}

impl Deploy<'_> {
    /// For this tenant rather than the default one.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        tenant.clone_into(&mut self.tenant);
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a host that it may call.
    #[must_use]
    pub fn allow_host(mut self, host: &str) -> Self {
        self.allow_hosts.push(host.to_owned());
        self
    }

    /// With these limits, the defaults for the others.
    #[must_use]
    pub fn limits(mut self, limits: Value) -> Self {
        self.limits = limits;
        self
    }

    /// With this isolation of its requests, as the command line has it.
    #[must_use]
    pub fn isolation(mut self, isolation: &str) -> Self {
        isolation.clone_into(&mut self.isolation);
        self
    }

    /// With so many VMs: `{"min_vms": …, "max_vms": …, "idle_ms": …}`.
    #[must_use]
    pub fn scale(mut self, scale: Value) -> Self {
        self.scale = scale;
        self
    }

    /// Uploads and deploys.
    ///
    /// # Errors
    /// When the node is gone before it has answered.
    pub async fn try_send(self) -> anyhow::Result<Answer> {
        let path = format!("/v1/tenants/{}/components", self.tenant);
        let body = full(self.component.to_vec());
        let upload = self
            .admin
            .try_call("POST", &path, "application/wasm", body)
            .await?;
        if upload.status != StatusCode::CREATED {
            return Ok(upload);
        }
        let upload: Value = serde_json::from_slice(&upload.body)?;
        let request = json!({
            "digest": upload["digest"], "env": self.env, "allow_hosts": self.allow_hosts, "limits": self.limits,
            "isolation": self.isolation, "scale": self.scale,
        });
        let path = format!("/v1/tenants/{}/apps/{}/deployments", self.tenant, self.app);
        let body = full(request.to_string());
        self.admin
            .try_call("POST", &path, "application/json", body)
            .await
    }

    /// Uploads and deploys; the answer of whichever step was the last.
    ///
    /// # Panics
    /// When there is no answer in time.
    pub async fn send(self) -> Answer {
        let what = format!("the deploy of {}", self.app);
        within(CALL, &what, self.try_send())
            .await
            .unwrap_or_else(|e| panic!("{what}: {e:#}"))
    }

    /// Uploads and deploys what is well; the deployment.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn done(self) -> Value {
        let answer = self.send().await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Uploads and deploys what is not well; status and code of the refusal, and what it says.
    ///
    /// # Panics
    /// When it is accepted, or refused without a problem.
    pub async fn refused(self) -> Refusal {
        let answer = self.send().await;
        assert!(
            answer.status.is_client_error(),
            "{}: {}",
            answer.status,
            answer.text()
        );
        let code = answer.problem();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let detail = body["detail"].as_str().unwrap_or_default().to_owned();
        Refusal {
            status: answer.status.as_u16(),
            code,
            detail,
        }
    }
}

/// Why a deploy was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What it says.
    pub detail: String,
}
