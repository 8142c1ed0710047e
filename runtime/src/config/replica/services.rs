//! From options to the settings of Azure, Google Cloud Storage and WebDAV.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftless_adapters::object::settings::{Azure, Gcs, Secret, Service, Settings, Transport, WebDav};

use super::options::{Kind, Options, Origin};
use super::provider::endpoint_url;
use super::{About, Described, Lookup, Place, Replica, ReplicaError, Url, error, first_of};

/// An Azure container.
pub(super) fn azure(place: &Place, mut options: Options, env: Lookup<'_>) -> Result<Described, ReplicaError> {
    if let Place::Url(url) = place {
        if url.password.is_some() {
            return Err(error(
                "an abs url takes no password",
                "give account-key: in the configuration, or DRIFTLESS_AZURE_ACCOUNT_KEY in the environment",
            ));
        }
        if let Some(user) = &url.user {
            options.add("account-name", user, Origin::Url)?;
        }
    }
    options.check(Kind::Azure)?;
    let container = bucket(place, &options, "abs://ACCOUNT@CONTAINER/PATH")?;
    let endpoint = given_endpoint(&options)?;
    let account = options.text("account-name").unwrap_or_default();
    if account.is_empty() && endpoint.is_none() {
        return Err(error(
            "an abs replica has no account",
            "write abs://ACCOUNT@CONTAINER/PATH, or give account-name:",
        ));
    }
    let (azure_key, sas, credentials, warning) = azure_credentials(&options, env, &account)?;
    let azure = Azure { container, account, account_key: azure_key, sas_token: sas, endpoint };
    let about = About {
        provider: "Azure Blob Storage",
        credentials,
        options: Vec::new(),
        warnings: warning.into_iter().collect(),
    };
    finish(place, Service::Azure(azure), &options, about)
}

type AzureCredentials = (Option<Secret>, Option<Secret>, String, Option<String>);

/// A signature wins over a key, as in Litestream.
fn azure_credentials(
    options: &Options,
    env: Lookup<'_>,
    account: &str,
) -> Result<AzureCredentials, ReplicaError> {
    let pick = |option: &str, variables: &[&'static str]| match options.get(option) {
        Some(given) => Some((given.value.clone(), format!("{option}, as given"))),
        None => first_of(env, variables).map(|(name, value)| (value, format!("{name} of the environment"))),
    };
    let sas = pick("sas-token", &["DRIFTLESS_AZURE_SAS_TOKEN", "LITESTREAM_AZURE_SAS_TOKEN"]);
    let key = pick("account-key", &["DRIFTLESS_AZURE_ACCOUNT_KEY", "LITESTREAM_AZURE_ACCOUNT_KEY"]);
    if let Some((token, words)) = sas {
        let warning = key.map(|(_, key)| format!("{key}, has no effect beside a shared access signature"));
        let token = token.trim_start_matches('?').to_owned();
        return Ok((None, Some(Secret::new(token)), words, warning));
    }
    let Some((key, words)) = key else {
        let words = "whatever Azure's rules find: environment, workload identity, managed identity";
        return Ok((None, None, words.to_owned(), None));
    };
    if account.is_empty() {
        return Err(error("an account key is given without an account", "give account-name:"));
    }
    if STANDARD.decode(key.trim()).is_err() {
        return Err(error(
            format!("the account key is not base64 ({words})"),
            "copy it whole from the account's access keys",
        ));
    }
    Ok((Some(Secret::new(key.trim())), None, words, None))
}

/// A Google bucket.
pub(super) fn gcs(place: &Place, options: &Options, env: Lookup<'_>) -> Result<Described, ReplicaError> {
    refuse_user(place, "gs")?;
    options.check(Kind::Gcs)?;
    let bucket = bucket(place, options, "gs://BUCKET/PATH")?;
    let mut endpoint = given_endpoint(options)?;
    let mut anonymous = options.flag("anonymous")?;
    if endpoint.is_none()
        && let Some((name, value)) = first_of(env, &["STORAGE_EMULATOR_HOST"])
    {
        // Google's libraries take an emulator without a scheme for plain http.
        let value = if value.contains("://") { value } else { format!("http://{value}") };
        endpoint = Some(endpoint_url(&value, name)?);
        anonymous = anonymous.or(Some(true));
    }
    let credential_path = options.text("credential-path");
    let anonymous = anonymous.unwrap_or(false);
    let credentials = match (&credential_path, anonymous) {
        (Some(_), true) => {
            let given = options.get("credential-path").expect("it was read above");
            return Err(
                given.wrong("credential-path has no effect on an anonymous replica", "keep one of them")
            );
        }
        (Some(path), false) => format!("the file {path}"),
        (None, true) => "none".to_owned(),
        (None, false) => match first_of(env, &["GOOGLE_APPLICATION_CREDENTIALS"]) {
            Some((name, path)) => format!("the file {path} ({name})"),
            None => "whatever Google's rules find: gcloud's file, instance metadata".to_owned(),
        },
    };
    let about =
        About { provider: "Google Cloud Storage", credentials, options: Vec::new(), warnings: Vec::new() };
    finish(place, Service::Gcs(Gcs { bucket, endpoint, credential_path, anonymous }), options, about)
}

/// A directory of a WebDAV server. `secure` is of the URL's scheme.
pub(super) fn webdav(place: &Place, mut options: Options, secure: bool) -> Result<Described, ReplicaError> {
    let url = match place {
        Place::Url(url) => {
            if let Some(given) = options.own("webdav-url") {
                return Err(given.wrong("a replica has both url and webdav-url", "keep one of them"));
            }
            if let Some(user) = &url.user {
                options.add("webdav-username", user, Origin::Url)?;
            }
            if let Some(password) = &url.password {
                options.add("webdav-password", password, Origin::Url)?;
            }
            let scheme = if secure { "https" } else { "http" };
            Some(format!("{scheme}://{}", url.host)).filter(|_| !url.host.is_empty())
        }
        Place::Keys { .. } => options.text("webdav-url"),
    };
    options.check(Kind::WebDav)?;
    let Some(url) = url else {
        return Err(error(
            "a webdav replica has no server",
            "write webdavs://HOST/PATH, or give webdav-url:",
        ));
    };
    let url = endpoint_url(&url, "webdav-url")?;
    let (username, password) = (options.text("webdav-username"), options.text("webdav-password"));
    let credentials = match (&username, &password) {
        (None, Some(_)) => {
            return Err(error("a webdav password is given without a user", "give webdav-username:"));
        }
        (None, None) => "none".to_owned(),
        (Some(_), _) => "webdav-username and webdav-password, as given".to_owned(),
    };
    let mut warnings = Vec::new();
    if username.is_some() && url.starts_with("http://") && !super::provider::is_local(&url) {
        warnings.push("the password goes over the network in the clear: use https".to_owned());
    }
    let about = About { provider: "a WebDAV server", credentials, options: Vec::new(), warnings };
    let password = password.map(Secret::new);
    finish(place, Service::WebDav(WebDav { url, username, password }), &options, about)
}

fn finish(
    place: &Place,
    service: Service,
    options: &Options,
    about: About,
) -> Result<Described, ReplicaError> {
    let root = match place {
        Place::Url(url) => url.path.clone(),
        Place::Keys { path, .. } => super::url::clean(path.as_deref().unwrap_or_default()),
    };
    if let (Place::Keys { path: Some(path), line }, false) = (place, matches!(service, Service::WebDav(_)))
        && path.starts_with('/')
    {
        // Litestream's keys would begin with a slash, which is another place than ours.
        return Err(ReplicaError {
            error: format!("path is {path:?}, which would make keys with an empty component"),
            hint: format!(
                "write path: {root}; litestream keeps that slash in its keys: move what is there to hand it over"
            ),
            line: Some(*line),
        });
    }
    let skip_verify = options.flag("skip-verify")?.unwrap_or(false);
    let settings = Settings { root, service, transport: Transport { skip_verify } };
    Ok(Described { replica: Replica::Object(Box::new(settings)), about })
}

fn bucket(place: &Place, options: &Options, hint: &str) -> Result<String, ReplicaError> {
    let bucket = match place {
        Place::Url(url) => {
            if let Some(given) = options.own("bucket") {
                return Err(given.wrong("a replica has both url and bucket", "keep one of them"));
            }
            url.host.clone()
        }
        Place::Keys { .. } => options.text("bucket").unwrap_or_default(),
    };
    match bucket.is_empty() {
        true => Err(error("the replica has no bucket", format!("write {hint}, or give bucket: and path:"))),
        false => Ok(bucket),
    }
}

fn given_endpoint(options: &Options) -> Result<Option<String>, ReplicaError> {
    let Some(given) = options.get("endpoint") else { return Ok(None) };
    endpoint_url(&given.value, "endpoint").map(Some).map_err(|wrong| given.wrong(wrong.error, wrong.hint))
}

fn refuse_user(place: &Place, scheme: &str) -> Result<(), ReplicaError> {
    match place {
        Place::Url(Url { user: None, password: None, .. }) | Place::Keys { .. } => Ok(()),
        Place::Url(_) => {
            Err(error(format!("a {scheme} url takes no user"), format!("write {scheme}://BUCKET/PATH")))
        }
    }
}
