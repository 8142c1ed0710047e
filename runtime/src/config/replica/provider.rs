//! Who runs an S3 endpoint, and what that implies.
//!
//! Litestream knows a dozen providers by their host names, in two places. `s3://BUCKET.HOST/PATH`
//! names the endpoint in the URL's host, for five of them; the others are read here as well, since
//! a bucket called `app.fsn1.your-objectstorage.com` on Amazon is never meant. And an endpoint that
//! is given by name brings a preset: whether the bucket stands in the path, how many parts go up at
//! a time. What Litestream 0.5.17 makes of each was seen by running it behind a proxy; the table in
//! `tests.rs` is that experiment.

use super::{ReplicaError, error};

/// Who runs an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Provider {
    /// Amazon.
    Amazon,
    /// Cloudflare R2.
    R2,
    /// Backblaze B2.
    Backblaze,
    /// Tigris, of Fly.io.
    Tigris,
    /// DigitalOcean Spaces.
    DigitalOcean,
    /// Hetzner Object Storage.
    Hetzner,
    /// Scaleway Object Storage.
    Scaleway,
    /// Filebase.
    Filebase,
    /// Supabase Storage.
    Supabase,
    /// Wasabi.
    Wasabi,
    /// Linode, now Akamai.
    Linode,
    /// Google Cloud Storage by its S3 interface.
    Google,
    /// Alibaba's OSS by its S3 interface.
    Oss,
    /// A host with a port: MinIO or another server of one's own.
    Minio,
    /// Anything else.
    Other,
}

/// How host names tell who runs them: the end of the name, and for some what stands before it.
struct Form {
    provider: Provider,
    domain: &'static str,
    /// The label that stands before the region, or before the domain.
    service: Option<&'static str>,
    /// Whether a region stands before the domain.
    region: bool,
    /// Whether Litestream puts the bucket into the path when it was in the URL's host.
    path_style: bool,
}

const fn form(provider: Provider, domain: &'static str, service: Option<&'static str>, region: bool) -> Form {
    Form { provider, domain, service, region, path_style: false }
}

const FORMS: [Form; 13] = [
    Form { path_style: true, ..form(Provider::Backblaze, "backblazeb2.com", Some("s3"), true) },
    Form { path_style: true, ..form(Provider::Filebase, "filebase.com", Some("s3"), false) },
    form(Provider::DigitalOcean, "digitaloceanspaces.com", None, true),
    form(Provider::Scaleway, "scw.cloud", Some("s3"), true),
    form(Provider::Amazon, "amazonaws.com", Some("s3"), true),
    form(Provider::Amazon, "amazonaws.com", Some("s3"), false),
    form(Provider::Amazon, "amazonaws.com.cn", Some("s3"), true),
    form(Provider::Tigris, "fly.storage.tigris.dev", None, false),
    form(Provider::Tigris, "t3.storage.dev", None, false),
    form(Provider::Hetzner, "your-objectstorage.com", None, true),
    form(Provider::Wasabi, "wasabisys.com", Some("s3"), true),
    form(Provider::Wasabi, "wasabisys.com", Some("s3"), false),
    form(Provider::Linode, "linodeobjects.com", None, true),
];

/// What a URL's host says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// The bucket.
    pub bucket: String,
    /// The region, where the host names it.
    pub region: Option<String>,
    /// The server, where it is not Amazon's for the region.
    pub endpoint: Option<String>,
    /// Whether the bucket belongs into the path, where the host decides that.
    pub path_style: Option<bool>,
    /// Whether the host says itself that it is Amazon.
    pub amazon: bool,
}

impl Form {
    /// The bucket's labels and the region of a host of this form.
    fn split<'a>(&self, host: &'a str) -> Option<(Vec<&'a str>, Option<&'a str>)> {
        let front = host.strip_suffix(self.domain)?.strip_suffix('.')?;
        let mut labels: Vec<&str> = front.split('.').collect();
        let region = if self.region { Some(labels.pop()?) } else { None };
        if let Some(service) = self.service
            && labels.pop()? != service
        {
            return None;
        }
        (!front.is_empty()).then_some((labels, region))
    }

    fn endpoint(&self, region: Option<&str>) -> String {
        let parts = [self.service, region, Some(self.domain)];
        format!("https://{}", parts.into_iter().flatten().collect::<Vec<_>>().join("."))
    }
}

/// Reads the host of `s3://HOST/PATH`.
///
/// # Errors
/// If it names a server and no bucket. `path` is for the hint.
pub fn read_host(authority: &str, path: &str) -> Result<Host, ReplicaError> {
    let (name, port) = split_port(authority);
    let lower = name.to_ascii_lowercase();
    let no_bucket = |scheme: &str| {
        let (bucket, rest) =
            path.split_once('/').unwrap_or((if path.is_empty() { "BUCKET" } else { path }, "PATH"));
        error(
            format!("s3://{authority} names a server and no bucket"),
            format!("write s3://{bucket}/{rest}?endpoint={scheme}://{authority}"),
        )
    };
    if lower == "localhost" || lower.ends_with(".localhost") {
        let bucket = name[..name.len() - "localhost".len()].trim_end_matches('.');
        if bucket.is_empty() {
            return Err(no_bucket("http"));
        }
        return Ok(own_server(bucket, "localhost", port));
    }
    if let Some(front) = lower.strip_suffix(".r2.cloudflarestorage.com") {
        let Some((bucket, account)) = front.split_once('.') else { return Err(no_bucket("https")) };
        return Ok(Host {
            bucket: bucket.to_owned(),
            endpoint: Some(format!("https://{account}.r2.cloudflarestorage.com")),
            path_style: Some(false),
            ..Host::default()
        });
    }
    for form in &FORMS {
        let Some((labels, region)) = form.split(&lower) else { continue };
        if labels.is_empty() {
            return Err(no_bucket("https"));
        }
        let amazon = form.provider == Provider::Amazon;
        // The adapter knows Amazon's endpoints, but for those of China, by region.
        let known = amazon && form.domain == "amazonaws.com";
        let region = region.map(str::to_owned).or(known.then(|| "us-east-1".to_owned()));
        let endpoint = (!known).then(|| with_port(form.endpoint(region.as_deref()), port));
        let bucket = labels.join(".");
        return Ok(Host { bucket, region, endpoint, path_style: Some(form.path_style), amazon });
    }
    match port {
        None => Ok(Host { bucket: name.to_owned(), ..Host::default() }),
        // A bucket, and a server of one's own behind it.
        Some(_) => match name.split_once('.') {
            Some((bucket, server)) if !bucket.is_empty() => Ok(own_server(bucket, server, port)),
            _ => Err(no_bucket(if is_local(authority) { "http" } else { "https" })),
        },
    }
}

fn own_server(bucket: &str, server: &str, port: Option<&str>) -> Host {
    Host {
        bucket: bucket.to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(with_port(format!("http://{server}"), port)),
        path_style: Some(true),
        amazon: false,
    }
}

/// Reads the ARN of an access point, `arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME`, which is a bucket
/// with a host of its own.
///
/// # Errors
/// For any other ARN.
pub fn read_arn(arn: &str) -> Result<Host, ReplicaError> {
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    let wrong = |what: &str| {
        error(
            format!("{arn} {what}"),
            "name the bucket, or an access point: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME",
        )
    };
    let [_, partition, service, region, account, resource] = fields[..] else {
        return Err(wrong("is no arn of an access point"));
    };
    let name = resource.strip_prefix("accesspoint/").or_else(|| resource.strip_prefix("accesspoint:"));
    let name = name.filter(|name| !name.is_empty() && !name.contains(['/', ':']) && !account.is_empty());
    let Some(name) = name.filter(|_| service == "s3") else {
        return Err(wrong("is no arn of an access point"));
    };
    if region.is_empty() {
        return Err(wrong(
            "is of an access point of several regions, whose signatures are not in this release",
        ));
    }
    let end = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
    Ok(Host {
        bucket: format!("{name}-{account}"),
        region: Some(region.to_owned()),
        endpoint: Some(format!("https://s3-accesspoint.{region}.{end}")),
        path_style: Some(false),
        amazon: true,
    })
}

impl Provider {
    /// Who runs an endpoint; Amazon where there is none.
    pub fn of(endpoint: Option<&str>) -> Provider {
        let Some(endpoint) = endpoint else { return Provider::Amazon };
        let authority = authority(endpoint).to_ascii_lowercase();
        let (name, port) = split_port(&authority);
        let ends = |domain: &str| name == domain || name.ends_with(&format!(".{domain}"));
        let form = FORMS.iter().find(|form| ends(form.domain)).map(|form| form.provider);
        let others = [
            ("r2.cloudflarestorage.com", Provider::R2),
            ("supabase.co", Provider::Supabase),
            ("storage.googleapis.com", Provider::Google),
            ("aliyuncs.com", Provider::Oss),
        ];
        let other = others.into_iter().find(|(domain, _)| ends(domain)).map(|(_, provider)| provider);
        let unknown = if port.is_some() { Provider::Minio } else { Provider::Other };
        form.or(other).unwrap_or(unknown)
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Amazon => "Amazon S3",
            Provider::R2 => "Cloudflare R2",
            Provider::Backblaze => "Backblaze B2",
            Provider::Tigris => "Tigris",
            Provider::DigitalOcean => "DigitalOcean Spaces",
            Provider::Hetzner => "Hetzner Object Storage",
            Provider::Scaleway => "Scaleway Object Storage",
            Provider::Filebase => "Filebase",
            Provider::Supabase => "Supabase Storage",
            Provider::Wasabi => "Wasabi",
            Provider::Linode => "Linode Object Storage",
            Provider::Google => "Google Cloud Storage by its S3 interface",
            Provider::Oss => "Alibaba Cloud OSS by its S3 interface",
            Provider::Minio => "MinIO or another S3 server",
            Provider::Other => "another S3 server",
        }
    }

    /// Litestream's preset: the bucket stands in the path unless told otherwise.
    pub fn path_style(self) -> bool {
        matches!(self, Provider::Backblaze | Provider::Filebase | Provider::Minio | Provider::Supabase)
    }

    /// Litestream's preset: R2 takes two or three parts at a time.
    pub fn concurrency(self) -> Option<u32> {
        (self == Provider::R2).then_some(2)
    }

    /// The region that an endpoint's name tells, or that the provider wants in signatures.
    pub fn region(self, endpoint: &str) -> Option<String> {
        let authority = authority(endpoint).to_ascii_lowercase();
        let (name, _) = split_port(&authority);
        match self {
            Provider::R2 | Provider::Tigris => Some("auto".to_owned()),
            _ => {
                let parts = FORMS.iter().find_map(|form| form.split(name).filter(|_| form.region))?;
                parts.1.map(str::to_owned)
            }
        }
    }
}

/// An endpoint as a URL without a slash at its end; `https://` where it names no scheme, and
/// `http://` for servers of this host or of a private network.
///
/// # Errors
/// If it is none. `what` names the option.
pub fn endpoint_url(text: &str, what: &str) -> Result<String, ReplicaError> {
    let text = text.trim().trim_end_matches('/');
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ((if is_local(text) { "http" } else { "https" }).to_owned(), text),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let plain =
        !authority.is_empty() && !rest.contains(['?', '#', '@']) && !rest.contains(char::is_whitespace);
    if !plain || !matches!(scheme.as_str(), "http" | "https") {
        return Err(error(
            format!("{what} is not the url of a server"),
            format!("write {what}: https://host, or http://host:port"),
        ));
    }
    Ok(format!("{scheme}://{rest}"))
}

/// Host and port of an endpoint.
fn authority(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// The host of an endpoint, without its port.
pub fn host_of(endpoint: &str) -> &str {
    split_port(authority(endpoint)).0
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, Some(port))
        }
        _ => (authority, None),
    }
}

fn with_port(endpoint: String, port: Option<&str>) -> String {
    match port {
        Some(port) => format!("{endpoint}:{port}"),
        None => endpoint,
    }
}

/// Whether a server is this host or in a private network, by its name.
pub fn is_local(endpoint: &str) -> bool {
    let name = host_of(endpoint).to_ascii_lowercase();
    match name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(std::net::IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local"),
    }
}

/// Whether a bucket can stand in a host name, under which certificates and DNS find it: what
/// Amazon's own library asks before it puts one there.
pub fn fits_host(bucket: &str, endpoint: Option<&str>) -> bool {
    let by_address = endpoint
        .map(|endpoint| host_of(endpoint).trim_start_matches('[').trim_end_matches(']'))
        .is_some_and(|host| host.parse::<std::net::IpAddr>().is_ok());
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    // A certificate for *.host covers one label, so a dot in the bucket is one too many.
    !by_address && (3..=63).contains(&bucket.len()) && bucket.bytes().all(plain)
}
