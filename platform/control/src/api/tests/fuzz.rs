//! Requests made from the description, sensible ones and others: no answer is an error of the server, and each is one that
//! the description has. `tests/api-fuzz.sh` does the same to a real node with schemathesis, for longer.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::string_regex;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::describe::{document, operations};
use super::*;

/// Requests for each operation; more with the environment variable `CLOISTER_API_CASES`.
fn cases() -> u32 {
    let cases = std::env::var("CLOISTER_API_CASES").ok();
    cases.and_then(|n| n.parse().ok()).unwrap_or(48)
}

/// Follows a reference.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// The types of a schema.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// Values that a schema has, and the examples that it gives.
fn values(document: &Value, schema: &Value) -> BoxedStrategy<Value> {
    let schema = resolved(document, schema);
    let made = made(document, schema);
    match schema["examples"].as_array() {
        Some(examples) => prop_oneof![made, select(examples.clone())].boxed(),
        None => made,
    }
}

/// Values that are made as a schema says.
fn made(document: &Value, schema: &Value) -> BoxedStrategy<Value> {
    if let Some(all) = schema["enum"].as_array() {
        return select(all.clone()).boxed();
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let any = any.iter().map(|schema| values(document, schema));
        return proptest::strategy::Union::new(any).boxed();
    }
    let kinds = types(schema).into_iter().map(|kind| match kind {
        "null" => Just(Value::Null).boxed(),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => {
            let (min, max) = (schema["minimum"].as_u64(), schema["maximum"].as_u64());
            (min.unwrap_or(0)..=max.unwrap_or(u64::MAX))
                .prop_map(Value::from)
                .boxed()
        }
        "array" => {
            let items = values(document, &schema["items"]);
            prop::collection::vec(items, 0..4)
                .prop_map(Value::from)
                .boxed()
        }
        "object" => object(document, schema),
        _ => texts(schema).prop_map(Value::from).boxed(),
    });
    let kinds: Vec<_> = kinds.collect();
    match kinds.is_empty() {
        true => anything(),
        false => proptest::strategy::Union::new(kinds).boxed(),
    }
}

fn texts(schema: &Value) -> BoxedStrategy<String> {
    match schema["pattern"].as_str() {
        Some(pattern) => {
            let inside = pattern.trim_start_matches('^').trim_end_matches('$');
            string_regex(inside).unwrap().boxed()
        }
        None => any::<String>().boxed(),
    }
}

fn object(document: &Value, schema: &Value) -> BoxedStrategy<Value> {
    let required: Vec<_> = schema["required"].as_array().cloned().unwrap_or_default();
    let mut object = Just(serde_json::Map::new()).boxed();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let value = values(document, property);
        let value = match required.contains(&json!(name)) {
            true => value.prop_map(Some).boxed(),
            false => prop::option::of(value).boxed(),
        };
        let name = name.clone();
        object = (object, value)
            .prop_map(move |(mut object, value)| {
                object.extend(value.map(|value| (name.clone(), value)));
                object
            })
            .boxed();
    }
    if schema["additionalProperties"].is_object() {
        let more = values(document, &schema["additionalProperties"]);
        let more = prop::collection::btree_map("[A-Z_]{1,8}", more, 0..4);
        object = (object, more)
            .prop_map(|(mut object, more)| {
                object.extend(more);
                object
            })
            .boxed();
    }
    object.prop_map(Value::from).boxed()
}

/// Values of any kind.
fn anything() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let object = prop::collection::btree_map(any::<String>(), inner.clone(), 0..3);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::from),
            object.prop_map(|object| object.into_iter().collect::<Value>()),
        ]
    })
    .boxed()
}

/// A request.
#[derive(Debug, Clone)]
struct Case {
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Requests for an operation.
fn requests(
    document: &Value,
    path: &str,
    operation: &Value,
    tokens: &Tokens,
) -> BoxedStrategy<Case> {
    let case = Case {
        path: path.to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    let mut request = Just(case).boxed();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap().to_owned();
        let place = parameter["in"].as_str().unwrap().to_owned();
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let fitting = values(document, &parameter["schema"]).prop_map(text);
        // Names that are there, so that something is found behind them.
        let known = match name.as_str() {
            // One that can be deleted, or one that has something.
            "tenant" if operation["operationId"] == "delete_tenant" => "acme",
            "token" if path.starts_with("/v1/tokens") => &tokens.of_node,
            "token" => &tokens.of_tenant,
            "tenant" => "default",
            "app" => "shop",
            "deployment" => "1",
            "secret" => "PASSWORD",
            "domain" => "shop.example",
            "follow" => "false",
            "since" => "15m",
            "until" => "1s",
            "stream" => "stdout,stderr",
            _ => "1",
        };
        let known = known.to_owned();
        let value = prop_oneof![
            4 => Just(Some(known.clone())),
            2 => fitting.prop_map(Some),
            1 => any::<String>().prop_map(Some),
            2 => Just(None),
        ];
        request = (request, value)
            .prop_map(move |(mut case, value)| {
                match (place.as_str(), value) {
                    ("path", value) => {
                        // Without a name in it, it is the path of another operation, or of none.
                        let value = value.filter(|value| !value.is_empty());
                        let value = value.unwrap_or_else(|| known.clone());
                        case.path = case.path.replace(&format!("{{{name}}}"), &escaped(&value));
                    }
                    // A log that is followed has no end.
                    ("query", Some(value)) if name != "follow" => {
                        case.query.push((name.clone(), value))
                    }
                    ("header", Some(value)) => case.headers.push((name.clone(), value)),
                    _ => {}
                }
                case
            })
            .boxed();
    }
    // A certificate and its key are nothing that a schema can say.
    let pair = match operation["operationId"] == "set_certificate" {
        true => Just(super::hosts::certificate(&["shop.example"], 30)).boxed(),
        false => anything(),
    };
    let content = &operation["requestBody"]["content"];
    let body = match content.get("application/json") {
        Some(content) => {
            let fitting = values(document, &content["schema"]);
            let json = prop_oneof![4 => fitting, 1 => pair];
            let json = json.prop_map(|json| json.to_string().into_bytes());
            prop_oneof![8 => json, 1 => any::<Vec<u8>>()].boxed()
        }
        None => any::<Vec<u8>>().boxed(),
    };
    (request, body)
        .prop_map(|(case, body)| Case { body, ..case })
        .boxed()
}

/// A text as a part of a path or a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let byte = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Objects that a value is all of, as one.
fn merged(document: &Value, all: &[Value]) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for part in all.iter().map(|part| resolved(document, part)) {
        let own = part["properties"].as_object().cloned();
        properties.extend(own.unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    json!({"type": "object", "properties": properties, "required": required})
}

/// Whether a value is what a schema says, as far as the schemas of this API go.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolved(document, schema);
    if let Some(any) = schema["oneOf"].as_array() {
        let any = any
            .iter()
            .any(|schema| fits(document, schema, value).is_ok());
        return any
            .then_some(())
            .ok_or(format!("{value} is none of {schema}"));
    }
    if let Some(all) = schema["allOf"].as_array() {
        let whole = merged(document, all);
        return fits(document, &whole, value);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = types(schema);
    if !kinds.is_empty() && !kinds.contains(&kind) {
        return Err(format!("{value} is no {kinds:?}"));
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|all| !all.contains(value))
    {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    if let (Some(max), Some(value)) = (schema["maximum"].as_u64(), value.as_u64())
        && value > max
    {
        return Err(format!("{value} is above {max}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Err(format!("{name} is missing in {value}"));
        }
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object())
    {
        for (name, value) in object {
            match properties.get(name) {
                Some(schema) => fits(document, schema, value)?,
                None if schema["additionalProperties"].is_object() => {}
                None => return Err(format!("{name} is not described")),
            }
        }
    }
    let mut items = value.as_array().into_iter().flatten();
    items.try_for_each(|item| fits(document, &schema["items"], item))
}

/// Whether an answer is one that the description has.
fn judge(
    document: &Value,
    operation: &Value,
    status: u16,
    kind: &str,
    body: &[u8],
) -> Result<(), String> {
    if status >= 500 {
        return Err("an error of the server".to_owned());
    }
    let response = &operation["responses"][status.to_string()];
    if response.is_null() {
        return Err("a status that is not described".to_owned());
    }
    let Some(content) = response["content"].as_object() else {
        return body
            .is_empty()
            .then_some(())
            .ok_or("a body that is not described".to_owned());
    };
    let kind = kind.split(';').next().unwrap_or_default();
    let described = content
        .get(kind)
        .ok_or(format!("{kind} is not described"))?;
    let texts: Vec<&[u8]> = match kind {
        _ if kind.ends_with("ndjson") => body.split(|byte| *byte == b'\n').collect(),
        _ if kind.ends_with("json") => vec![body],
        _ => Vec::new(),
    };
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        let value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        fits(document, &described["schema"], &value)?;
    }
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    if status >= 400 {
        let code = problem["code"].as_str().unwrap_or_default();
        // The compiler has words of its own in place of `component-rejected`.
        let listed = response["description"].as_str().unwrap();
        if !listed.contains(&format!("`{code}`")) && !code.starts_with("component-") {
            return Err(format!("the code {code} is not described"));
        }
    }
    Ok(())
}

/// Ids of tokens that are there.
struct Tokens {
    of_node: String,
    of_tenant: String,
}

/// A node on which the operations of a path have something to work on.
async fn furnished(of: &str) -> (Client, Tokens) {
    let client = Client::new().await;
    // The component whose digest is the example in the description.
    let (_, first) = client.deploy("shop", "abc").await;
    assert_eq!(client.call("PUT", "/v1/tenants/acme", "").await.0, 201);
    let secret = json!({"value": "v"}).to_string();
    let path = "/v1/tenants/default/apps/shop/secrets/PASSWORD";
    // It deploys: the first deployment answers no more, can be rolled back to and be deleted.
    assert_eq!(client.call("PUT", path, secret).await.0, 200);
    client.prove("default", "shop.example").await;
    if of.ends_with("/certificate") {
        let path = "/v1/tenants/default/domains/shop.example/certificate";
        let body = super::hosts::certificate(&["shop.example"], 30);
        assert_eq!(client.call("PUT", path, body.to_string()).await.0, 200);
    }
    if of.ends_with("/canary") {
        let canary = json!({"digest": first["digest"], "canary": {"steps": [10]}}).to_string();
        let path = "/v1/tenants/default/apps/shop/deployments";
        assert_eq!(client.call("POST", path, canary).await.0, 201);
    }
    write(&client, "a line\n");
    let token = async |path: &str| {
        let body = json!({"role": "read"}).to_string();
        let (status, token) = client.call("POST", path, body).await;
        assert_eq!(status, 201);
        token["id"].as_str().unwrap().to_owned()
    };
    let of_node = token("/v1/tokens").await;
    let of_tenant = token("/v1/tenants/default/tokens").await;
    let tokens = Tokens { of_node, of_tenant };
    (client, tokens)
}

impl Client {
    /// Sends a request, and reads all of its answer: status, type, body. None where HTTP itself cannot carry it.
    async fn carry(&self, method: &str, case: &Case) -> Option<(u16, String, Vec<u8>)> {
        let query = case.query.iter();
        let query: Vec<_> = query
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}?{}", case.path, query.join("&")))
            .header("authorization", format!("Bearer {TOKEN}"));
        let mut request = request.body(Body::from(case.body.clone())).ok()?;
        for (name, value) in &case.headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
            let value = http::HeaderValue::from_bytes(value.as_bytes()).ok()?;
            request.headers_mut().append(name, value);
        }
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type");
        let kind = kind.map_or("", |kind| kind.to_str().unwrap()).to_owned();
        assert!(response.headers().contains_key("x-request-id"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Some((status, kind, body.to_vec()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_gets_an_answer_that_is_not_described() {
    let document = document().await;
    let mut successes = 0;
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        let (client, tokens) = furnished(path).await;
        let strategy = requests(&document, path, operation, &tokens);
        let config = Config {
            cases: cases(),
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let runtime = tokio::runtime::Handle::current();
        let counted = std::cell::Cell::new(0);
        let verb = method.to_uppercase();
        let check = |case: Case| {
            let carried = client.carry(&verb, &case);
            let carried = tokio::task::block_in_place(|| runtime.block_on(carried));
            let Some((status, kind, body)) = carried else {
                return Err(TestCaseError::reject("HTTP cannot carry it"));
            };
            counted.set(counted.get() + u32::from(status < 300));
            judge(&document, operation, status, &kind, &body).map_err(|why| {
                let body = String::from_utf8_lossy(&body).into_owned();
                TestCaseError::fail(format!("{status} {kind}: {why}: {body}"))
            })
        };
        let ran = TestRunner::new_with_rng(config, rng).run(&strategy, check);
        if let Err(error) = ran {
            panic!("{id}: {error}");
        }
        assert!(counted.get() > 0, "{id}: none of the requests did anything");
        successes += counted.get();
    }
    println!("{successes} requests did something");
}
