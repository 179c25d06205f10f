//! The client: signs what it is told to, sends it, returns what came back.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use hyper::body::Body as _;

use super::{
    sign::{Credentials, Moment, Payload, SERVICE, Signed, authorization, canonical_query, encode},
    xml::first,
};
use crate::{
    cluster_file::{ClusterFile, NodeEntry},
    http_client::{Answer, Body, Https, Trust, full},
};

/// One request, with room for every deviation a test needs.
#[derive(Debug)]
pub struct Call {
    method: Method,
    bucket: String,
    key: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    payload: Payload,
    moment: Moment,
    virtual_host: Option<String>,
    service: &'static str,
}

impl Call {
    /// A request on a bucket (`key` empty) or an object, body unsigned.
    #[must_use]
    pub fn new(method: Method, bucket: &str, key: &str) -> Self {
        Self {
            method,
            bucket: bucket.into(),
            key: key.into(),
            query: Vec::new(),
            headers: Vec::new(),
            payload: Payload::Unsigned,
            moment: Moment::now(),
            virtual_host: None,
            service: SERVICE,
        }
    }

    /// A request of IAM's with these parameters, and its body.
    #[must_use]
    pub fn iam(action: &str, parameters: &[(&str, &str)]) -> (Self, Bytes) {
        let mut form = format!("Action={action}&Version=2010-05-08");
        for (name, value) in parameters {
            form.push_str(&format!("&{name}={}", encode(value, false)));
        }
        let call = Self::new(Method::POST, "", "")
            .header("content-type", "application/x-www-form-urlencoded")
            .payload(Payload::signed(form.as_bytes()));
        (Self { service: "iam", ..call }, form.into())
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.into(), value.to_string()));
        self
    }

    /// Adds a header; it is signed. Lower-case name.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// States the hash of the body.
    #[must_use]
    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// Signs as of another moment.
    #[must_use]
    pub fn at(mut self, moment: Moment) -> Self {
        self.moment = moment;
        self
    }

    /// Names the bucket in the Host header, `bucket.DOMAIN`, and not in the path.
    #[must_use]
    pub fn virtual_host(mut self, domain: &str) -> Self {
        self.virtual_host = Some(domain.into());
        self
    }

    fn path(&self) -> String {
        match (&self.virtual_host, self.bucket.as_str(), self.key.as_str()) {
            (Some(_), _, key) => format!("/{}", encode(key, true)),
            (None, "", _) => "/".into(),
            (None, bucket, "") => format!("/{bucket}"),
            (None, bucket, key) => format!("/{bucket}/{}", encode(key, true)),
        }
    }
}

/// One page of ListObjectsV2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Listed {
    pub keys: Vec<String>,
    pub sizes: Vec<u64>,
    pub etags: Vec<String>,
    pub common_prefixes: Vec<String>,
    pub next_token: Option<String>,
}

/// A tenant's client of one node.
#[derive(Debug, Clone)]
pub struct Client {
    https: Https,
    credentials: Credentials,
}

impl Client {
    /// Speaks to `https` as `credentials`.
    #[must_use]
    pub fn new(https: Https, credentials: Credentials) -> Self {
        Self { https, credentials }
    }

    /// The first tenant's client of a node.
    ///
    /// # Errors
    /// When the cluster has no tenant or its CA file cannot be read.
    pub fn of(cluster: &ClusterFile, node: &NodeEntry) -> Result<Self> {
        let tenant = cluster.tenants.first().context("the cluster has no tenant")?;
        let credentials = Credentials {
            access_key: tenant.access_key.clone(),
            secret_key: tenant.secret_key.clone(),
            region: tenant.region.clone(),
        };
        Ok(Self::new(Https::new(&node.s3, Trust::ca_file(&cluster.ca_path())?)?, credentials))
    }

    /// The same server, other credentials.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self { https: self.https.clone(), credentials }
    }

    /// The same, waiting longer for answers.
    #[must_use]
    pub fn patient(&self, limit: Duration) -> Self {
        Self { https: self.https.patient(limit), ..self.clone() }
    }

    /// Who it speaks as.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whom it speaks to.
    #[must_use]
    pub fn https(&self) -> &Https {
        &self.https
    }

    /// Signs a call and puts a body to it.
    ///
    /// # Errors
    /// When a header is not one.
    pub fn request(&self, call: Call, body: Body) -> Result<Request<Body>> {
        let path = call.path();
        let host = match &call.virtual_host {
            Some(domain) => format!("{}.{domain}", call.bucket),
            None => self.https.authority().to_owned(),
        };
        let mut headers = call.headers;
        headers.push(("host".into(), host));
        headers.push(("x-amz-date".into(), call.moment.as_str().into()));
        headers.push(("x-amz-content-sha256".into(), call.payload.header().into()));
        let signed = Signed {
            method: call.method.as_str(),
            path: &path,
            query: &call.query,
            headers: &headers,
            payload: call.payload.header(),
            service: call.service,
        };
        let authorization = authorization(&signed, &self.credentials, &call.moment);
        let query = canonical_query(&call.query);
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut request =
            Request::builder().method(call.method).uri(target).header("authorization", authorization);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        // An empty body says so too: S3 asks every PUT for its length.
        if let Some(length) = body.size_hint().exact() {
            request = request.header("content-length", length);
        }
        Ok(request.body(body)?)
    }

    /// Sends a call with a body in memory.
    ///
    /// # Errors
    /// When the connection breaks; an S3 error is an answer.
    pub async fn send(&self, call: Call, body: impl Into<Bytes>) -> Result<Answer> {
        self.https.send(self.request(call, full(body))?).await
    }

    /// Sends a call and expects success.
    ///
    /// # Errors
    /// Also when S3 refuses, with its error document.
    pub async fn expect(&self, call: Call, body: impl Into<Bytes>) -> Result<Answer> {
        let what = format!("{} {}/{}", call.method, call.bucket, call.key);
        let answer = self.send(call, body).await?;
        if !answer.status.is_success() {
            bail!("{what}: {} {}", answer.status, answer.text());
        }
        Ok(answer)
    }

    /// Makes a bucket; one of ours that is there already is fine.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let answer = self.send(Call::new(Method::PUT, bucket, ""), Bytes::new()).await?;
        let code = first(&answer.text(), "Code");
        if answer.status.is_success() || code.as_deref() == Some("BucketAlreadyOwnedByYou") {
            return Ok(());
        }
        bail!("creating bucket {bucket}: {} {}", answer.status, answer.text())
    }

    /// Stores an object with its hash signed; returns the ETag without quotes.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> Result<String> {
        let body = body.into();
        let call = Call::new(Method::PUT, bucket, key).payload(Payload::signed(&body));
        let answer = self.expect(call, body).await?;
        Ok(answer.header("etag").context("PUT answered without ETag")?.trim_matches('"').to_owned())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Bytes> {
        Ok(self.expect(Call::new(Method::GET, bucket, key), Bytes::new()).await?.body)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.expect(Call::new(Method::DELETE, bucket, key), Bytes::new()).await.map(drop)
    }

    /// One page of ListObjectsV2; `call` holds further parameters.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn list_page(&self, call: Call) -> Result<Listed> {
        let document = self.expect(call.query("list-type", 2), Bytes::new()).await?.text();
        let mut page = Listed { next_token: first(&document, "NextContinuationToken"), ..Listed::default() };
        for contents in fields_raw(&document, "Contents") {
            page.keys.push(first(contents, "Key").context("Contents without Key")?);
            page.sizes.push(first(contents, "Size").context("Contents without Size")?.parse()?);
            page.etags.push(first(contents, "ETag").unwrap_or_default().trim_matches('"').to_owned());
        }
        for prefixes in fields_raw(&document, "CommonPrefixes") {
            page.common_prefixes.push(first(prefixes, "Prefix").context("CommonPrefixes without Prefix")?);
        }
        Ok(page)
    }

    /// Every key under a prefix, with its size, over all pages.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn list_all(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, u64)>> {
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut call = Call::new(Method::GET, bucket, "").query("prefix", prefix);
            if let Some(token) = &token {
                call = call.query("continuation-token", token);
            }
            let page = self.list_page(call).await?;
            all.extend(page.keys.into_iter().zip(page.sizes));
            token = page.next_token;
            if token.is_none() {
                return Ok(all);
            }
        }
    }
}

/// Inner text of every `<tag>`, entities left alone.
fn fields_raw<'a>(document: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    document.split(open.as_str()).skip(1).filter_map(|rest| rest.split(close.as_str()).next()).collect()
}
