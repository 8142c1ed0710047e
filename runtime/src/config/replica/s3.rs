//! From options to the settings of an S3 bucket.

use driftless_adapters::object::settings::{AccessKeys, S3, Secret, Service, Settings, Transport};

use super::encryption::encryption;
use super::options::{Kind, Options};
use super::provider::{self, Host, Provider, endpoint_url};
use super::{About, Described, Lookup, Place, Replica, ReplicaError, Url, error, first_of};

/// The smallest part that S3 takes, but for the last of an upload.
const PART_BYTES_MIN: u64 = 5 << 20;
const PART_BYTES_MAX: u64 = 5 << 30;
/// More parts at a time than this fill no line that we know of.
const CONCURRENCY_MAX: u32 = 256;

/// Where the endpoint was found.
struct Endpoint {
    url: Option<String>,
    /// Whether the user gave it for this replica: then it is path-style unless told otherwise.
    given: bool,
}

/// Builds the replica.
pub(super) fn build(place: &Place, options: &Options, env: Lookup<'_>) -> Result<Described, ReplicaError> {
    options.check(Kind::S3)?;
    let host = host(place, options)?;
    let endpoint = endpoint(&host, options, env)?;
    let provider = if host.amazon { Provider::Amazon } else { Provider::of(endpoint.url.as_deref()) };
    let url = endpoint.url.as_deref();
    let path_style = match options.flag("force-path-style")? {
        Some(flag) => flag,
        None => provider.path_style() || host.path_style.unwrap_or(endpoint.given),
    };
    let (keys, credentials) = keys(options, env)?;
    let s3 = S3 {
        path_style: path_style || !provider::fits_host(&host.bucket, url),
        region: region(&host, &endpoint, provider, options),
        keys,
        profile: options.text("profile"),
        storage_class: options.text("storage-class"),
        encryption: encryption(options, url)?,
        part_size: options.bytes("part-size", PART_BYTES_MIN, PART_BYTES_MAX)?,
        concurrency: options.number("concurrency", CONCURRENCY_MAX)?.or(provider.concurrency()),
        checksum: options.flag("require-content-md5")?.unwrap_or(false),
        endpoint: endpoint.url,
        bucket: host.bucket,
    };
    let skip_verify = options.flag("skip-verify")?.unwrap_or(false);
    let about = About {
        provider: provider.name(),
        credentials,
        options: effective(&s3),
        warnings: warnings(options, env)?,
    };
    let settings = Settings {
        root: root(place, options.are_for_many())?,
        service: Service::S3(s3),
        transport: Transport { skip_verify },
    };
    Ok(Described { replica: Replica::Object(Box::new(settings)), about })
}

/// The bucket, and what its place in the URL says.
fn host(place: &Place, options: &Options) -> Result<Host, ReplicaError> {
    let bucket = match place {
        Place::Url(Url { user: Some(_), .. } | Url { password: Some(_), .. }) => {
            return Err(error(
                "an s3 url takes no user and password",
                "give access-key-id: and secret-access-key: in the configuration, or DRIFTLESS_ACCESS_KEY_ID and DRIFTLESS_SECRET_ACCESS_KEY in the environment",
            ));
        }
        Place::Url(url) => {
            if let Some(bucket) = options.own("bucket") {
                return Err(bucket.wrong("a replica has both url and bucket", "keep one of them"));
            }
            url.host.clone()
        }
        Place::Keys { .. } => options.text("bucket").unwrap_or_default(),
    };
    if bucket.is_empty() {
        return Err(error(
            "an s3 replica has no bucket",
            "write s3://BUCKET/PATH, or give bucket: and path:",
        ));
    }
    if bucket.starts_with("arn:") {
        if let Some(endpoint) = options.own("endpoint") {
            return Err(endpoint.wrong(
                "an access point has an endpoint of its own",
                "leave endpoint out, or name the bucket instead of the access point",
            ));
        }
        return provider::read_arn(&bucket);
    }
    match place {
        Place::Url(url) => provider::read_host(&bucket, &url.path),
        Place::Keys { .. } => Ok(Host { bucket, ..Host::default() }),
    }
}

fn endpoint(host: &Host, options: &Options, env: Lookup<'_>) -> Result<Endpoint, ReplicaError> {
    if let Some(given) = options.get("endpoint").filter(|_| !host.bucket_is_elsewhere()) {
        let url = endpoint_url(&given.value, "endpoint").map_err(|e| given.wrong(e.error, e.hint))?;
        return Ok(Endpoint { url: Some(url), given: true });
    }
    if host.endpoint.is_some() || host.amazon {
        return Ok(Endpoint { url: host.endpoint.clone(), given: false });
    }
    if let Some((name, value)) = first_of(env, &["DRIFTLESS_S3_ENDPOINT", "LITESTREAM_S3_ENDPOINT"]) {
        return Ok(Endpoint { url: Some(endpoint_url(&value, name)?), given: true });
    }
    let ignored = env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value == "true");
    match first_of(env, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]).filter(|_| !ignored) {
        Some((name, value)) => Ok(Endpoint { url: Some(endpoint_url(&value, name)?), given: false }),
        None => Ok(Endpoint { url: None, given: false }),
    }
}

impl Host {
    /// Whether the bucket is an access point, to which no endpoint for all replicas applies.
    fn bucket_is_elsewhere(&self) -> bool {
        self.amazon && self.endpoint.as_ref().is_some_and(|endpoint| endpoint.contains("s3-accesspoint."))
    }
}

/// The region, unless the adapter is to find it in the environment.
fn region(host: &Host, endpoint: &Endpoint, provider: Provider, options: &Options) -> Option<String> {
    let of_endpoint = || endpoint.url.as_deref().and_then(|url| provider.region(url));
    let found = options.text("region").or_else(|| host.region.clone()).or_else(of_endpoint);
    // Servers of one's own want this in signatures, whatever AWS_REGION says of Amazon.
    found.or_else(|| endpoint.given.then(|| "us-east-1".to_owned()))
}

/// The keys that were given, and in words where the keys come from.
fn keys(options: &Options, env: Lookup<'_>) -> Result<(Option<AccessKeys>, String), ReplicaError> {
    let (id, secret) = (options.get("access-key-id"), options.get("secret-access-key"));
    let token = options.get("session-token");
    match (id, secret) {
        (Some(id), Some(secret)) => {
            if let Some(profile) = options.own("profile") {
                return Err(profile.wrong("profile has no effect beside access-key-id", "keep one of them"));
            }
            let session_token = token.map(|token| Secret::new(token.value.clone()));
            let keys =
                AccessKeys { id: id.value.clone(), secret: Secret::new(secret.value.clone()), session_token };
            return Ok((Some(keys), "access-key-id and secret-access-key, as given".to_owned()));
        }
        (Some(half), None) => {
            return Err(half.wrong("access-key-id is given without secret-access-key", "give both"));
        }
        (None, Some(half)) => {
            return Err(half.wrong("secret-access-key is given without access-key-id", "give both"));
        }
        (None, None) => {}
    }
    if let Some(token) = token {
        return Err(token.wrong("session-token is given without access-key-id", "give all three"));
    }
    if let Some(profile) = options.text("profile") {
        return Ok((None, format!("the profile {profile} of Amazon's shared files")));
    }
    keys_of_environment(env)
}

/// `DRIFTLESS_*` wins; of the others `AWS_*` wins over `LITESTREAM_*`, as in Litestream, each
/// variable for itself.
fn keys_of_environment(env: Lookup<'_>) -> Result<(Option<AccessKeys>, String), ReplicaError> {
    let pairs = [
        (
            ["DRIFTLESS_ACCESS_KEY_ID"].as_slice(),
            ["DRIFTLESS_SECRET_ACCESS_KEY"].as_slice(),
            "DRIFTLESS_SESSION_TOKEN",
        ),
        (
            &["AWS_ACCESS_KEY_ID", "LITESTREAM_ACCESS_KEY_ID"],
            &["AWS_SECRET_ACCESS_KEY", "LITESTREAM_SECRET_ACCESS_KEY"],
            "AWS_SESSION_TOKEN",
        ),
    ];
    for (ids, secrets, token) in pairs {
        match (first_of(env, ids), first_of(env, secrets)) {
            (Some((id_name, id)), Some((secret_name, secret))) => {
                let words = format!("{id_name} and {secret_name} of the environment");
                let session_token = first_of(env, &[token]).map(|(_, token)| Secret::new(token));
                // What Amazon's own variables say is for the adapter, which knows more of them.
                let amazon = id_name.starts_with("AWS_") && secret_name.starts_with("AWS_");
                let keys = AccessKeys { id, secret: Secret::new(secret), session_token };
                return Ok(((!amazon).then_some(keys), words));
            }
            (Some((name, _)), None) => {
                return Err(error(
                    format!("{name} is set in the environment, and {} is not", secrets[0]),
                    "set both or neither",
                ));
            }
            (None, Some((name, _))) => {
                return Err(error(
                    format!("{name} is set in the environment, and {} is not", ids[0]),
                    "set both or neither",
                ));
            }
            (None, None) => {}
        }
    }
    let found = match first_of(env, &["AWS_PROFILE"]) {
        Some((_, profile)) => format!("the profile {profile} of Amazon's shared files (AWS_PROFILE)"),
        None => "whatever Amazon's rules find: shared files, web identity, container, instance".to_owned(),
    };
    Ok((None, found))
}

/// What every key begins with.
///
/// Litestream writes an empty path as `.`, and keeps slashes at the ends of `path`. Neither can be
/// asked for through a library that knows what a path is, and a replica beside the one that is
/// there already would be taken for a new one.
fn root(place: &Place, many: bool) -> Result<String, ReplicaError> {
    match place {
        Place::Url(Url { path, .. }) if many => Ok(path.clone()),
        Place::Keys { path: None, .. } if many => Ok(String::new()),
        Place::Url(url) if url.path.is_empty() => Err(error(
            format!("s3://{} has no path below the bucket", url.host),
            format!("write s3://{}/NAME: one bucket then holds several databases", url.host),
        )),
        Place::Url(url) => Ok(url.path.clone()),
        Place::Keys { path: None, .. } => Err(error(
            "an s3 replica has no path below the bucket",
            "give path: NAME: one bucket then holds several databases",
        )),
        Place::Keys { path: Some(path), line } => {
            let clean = super::url::clean(path);
            if clean == *path && !clean.is_empty() {
                return Ok(clean);
            }
            Err(ReplicaError {
                error: format!("path is {path:?}, which would make keys with empty or dotted components"),
                hint: format!(
                    "write path: {clean}; litestream keeps such slashes in its keys: move what is there to hand it over"
                ),
                line: Some(*line),
            })
        }
    }
}

/// Options as they take effect, for people.
fn effective(s3: &S3) -> Vec<(&'static str, String)> {
    use driftless_adapters::object::settings::ServerEncryption;
    let encryption = s3.encryption.as_ref().map(|encryption| match encryption {
        ServerEncryption::Server => "by the server, with its own key".to_owned(),
        ServerEncryption::Kms { key_id: Some(key) } => format!("SSE-KMS, with the key {key}"),
        ServerEncryption::Kms { key_id: None } => "SSE-KMS, with the default key".to_owned(),
        ServerEncryption::Customer { .. } => "SSE-C, with the key as given".to_owned(),
    });
    let checksum = s3.checksum.then(|| "sent with each body".to_owned());
    [
        ("storage class", s3.storage_class.clone()),
        ("encryption", encryption),
        ("part size", s3.part_size.map(|bytes| format!("{bytes} bytes"))),
        ("parts at a time", s3.concurrency.map(|parts| parts.to_string())),
        ("checksum", checksum),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// Options that are understood and have no effect.
fn warnings(options: &Options, env: Lookup<'_>) -> Result<Vec<String>, ReplicaError> {
    let mut warnings = Vec::new();
    if options.flag("sign-payload")? == Some(true) {
        warnings.push(
            "sign-payload has no effect: bodies are not signed; tls and the checksum in each segment protect them"
                .to_owned(),
        );
    }
    if options.flag("sign-accept-encoding")? == Some(true) {
        warnings.push("sign-accept-encoding has no effect: that header is never signed".to_owned());
    }
    if first_of(env, &["LITESTREAM_S3_DEBUG"]).is_some() {
        warnings.push(
            "LITESTREAM_S3_DEBUG has no effect: it is about the log of a library that is not used here"
                .to_owned(),
        );
    }
    Ok(warnings)
}
