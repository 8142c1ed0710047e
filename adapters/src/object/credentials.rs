//! Where credentials come from, and signing with them.
//!
//! The sources are those of reqsign, opendal's own. Here they get files from our pool of threads
//! and connections from our transport, so that none wants tokio. opendal's chain of sources drops
//! their errors; this one keeps them for the message, and does not ask the instance's metadata
//! where something else was meant to give credentials and failed.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::FutureExt as _;
use http::{Request, Response, request};
use reqsign_aws_v4 as aws;
use reqsign_core::{
    CommandExecute, CommandOutput, Context, Error, ErrorKind, FileRead, HttpSend, OsEnv, ProvideCredential,
    ProvideCredentialDyn, Signer,
};

use super::http::{Body, Http, Route};
use super::problem::{What, one_line};
use super::settings::S3;
use crate::children;
use crate::pool::unblock_store;
use crate::timer::Timer;

/// How long a metadata service may take: it is next door, or it is not there.
const METADATA: Duration = Duration::from_secs(1);
/// How long any other server, or a command, may take to give out credentials.
const ISSUER: Duration = Duration::from_secs(20);
/// The longest answer with credentials, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// What sources of credentials reach the world through.
pub(super) fn context(http: &Arc<Http>) -> Context {
    Context::new()
        .with_file_read(Files)
        .with_http_send(Issuers(Arc::clone(http)))
        .with_command_execute(Commands)
        .with_env(OsEnv)
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let (name, owned) = (path.to_owned(), path.to_owned());
        let read = unblock_store(move || std::fs::read(owned)).await;
        let read = read.map_err(|error| Error::config_invalid(format!("{name}: {error}")))?;
        // It may have become one since it was looked at first.
        match google_runs_a_program(&read) {
            true => Err(Error::config_invalid(format!("{name}: {NO_PROGRAMS}"))),
            false => Ok(read),
        }
    }
}

const NO_PROGRAMS: &str =
    "it has a program give Google's credentials (credential_source.executable), which is not supported";

/// Whether a file of Google's has a program give credentials: reqsign wants tokio for that.
fn google_runs_a_program(file: &[u8]) -> bool {
    let file: serde_json::Value = serde_json::from_slice(file).unwrap_or_default();
    file["type"] == "external_account" && file["credential_source"].get("executable").is_some()
}

/// Refuses a file of credentials that Google's rules find and that cannot be used. One that cannot be
/// read may be there later. Blocks.
#[cfg(not(madsim))]
pub(super) fn check_google(file: Option<&str>) -> Result<(), String> {
    let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let found = file.map(str::to_owned).or_else(|| var("GOOGLE_APPLICATION_CREDENTIALS"));
    let found = found.or_else(|| {
        let directory = var("APPDATA").or_else(|| var("XDG_CONFIG_HOME"));
        let directory = directory.or_else(|| Some(format!("{}/.config", var("HOME")?)))?;
        Some(format!("{directory}/gcloud/application_default_credentials.json"))
    });
    match found.map(|path| (std::fs::read(&path), path)) {
        Some((Ok(read), path)) if google_runs_a_program(&read) => Err(format!("{path}: {NO_PROGRAMS}")),
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct Commands;

impl CommandExecute for Commands {
    async fn command_execute<'a>(
        &'a self,
        program: &'a str,
        args: &'a [&'a str],
    ) -> reqsign_core::Result<CommandOutput> {
        let mut command = std::process::Command::new(program);
        command.args(args);
        let output = unblock_store(move || children::run(&mut command, ISSUER, ANSWER_MAX)).await;
        let output = output.map_err(|error| match error.kind() {
            // Another time it may not hang.
            io::ErrorKind::TimedOut => Error::unexpected(format!("{program}: {error}")).set_retryable(true),
            _ => Error::config_invalid(format!("{program}: {error}")),
        })?;
        let status = output.status.code().unwrap_or(-1);
        Ok(CommandOutput { status, stdout: output.stdout, stderr: output.stderr })
    }
}

struct Issuers(Arc<Http>);

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuers")
    }
}

/// Addresses of metadata services: Amazon's and Azure's instances, Amazon's containers, Google's.
fn is_metadata(host: &str) -> bool {
    let hosts = ["169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "[fd00:ec2::23]"];
    hosts.contains(&host) || matches!(host, "metadata.google.internal" | "metadata")
}

impl HttpSend for Issuers {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let direct = is_metadata(&host);
        let limit = if direct { METADATA } else { ISSUER };
        let send = async {
            let answer = self.0.send(request.map(Body::memory), Route { skip_verify: false, direct }).await?;
            let (head, answer) = answer.into_parts();
            Ok(Response::from_parts(head, Bytes::from(answer.whole(ANSWER_MAX).await?)))
        };
        let late = async {
            Timer::after(limit).await;
            let cause = format!("no answer within {} s", limit.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, cause))
        };
        let send = async { send.await.map_err(|failure: super::http::Failure| io::Error::other(failure)) };
        let answer = send.or(late).await;
        answer.map_err(|error| Error::unexpected(format!("{host}: {error}")).set_retryable(true))
    }
}

/// A source that reaches the world through us, whatever opendal would have it use.
#[cfg(not(madsim))]
#[derive(Debug)]
pub(super) struct Ours<P> {
    source: P,
    context: Context,
}

#[cfg(not(madsim))]
impl<P> Ours<P> {
    pub(super) fn new(source: P, http: &Arc<Http>) -> Ours<P> {
        Ours { source, context: context(http) }
    }
}

#[cfg(not(madsim))]
impl<P: ProvideCredential> ProvideCredential for Ours<P> {
    type Credential = P::Credential;

    async fn provide_credential(&self, _: &Context) -> reqsign_core::Result<Option<P::Credential>> {
        self.source.provide_credential(&self.context).await
    }
}

/// The sources of S3 credentials, in the order in which they are asked.
struct Sources(Vec<Source>);

struct Source {
    name: &'static str,
    /// Asked only if no other source has anything to say, not even an error.
    last_resort: bool,
    provider: Box<dyn ProvideCredentialDyn<Credential = aws::Credential>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|source| source.name)).finish()
    }
}

impl Sources {
    fn of(s3: &S3, region: &str) -> Sources {
        fn source(
            name: &'static str,
            provider: impl ProvideCredential<Credential = aws::Credential>,
        ) -> Source {
            Source { name, last_resort: false, provider: Box::new(provider) }
        }
        if let Some(keys) = &s3.keys {
            let mut given = aws::StaticCredentialProvider::new(&keys.id, keys.secret.reveal());
            if let Some(token) = &keys.session_token {
                given = given.with_session_token(token.reveal());
            }
            return Sources(vec![source("settings", given)]);
        }
        let mut profile = aws::ProfileCredentialProvider::new();
        let mut login = aws::SSOCredentialProvider::new();
        let mut process = aws::ProcessCredentialProvider::new();
        if let Some(name) = &s3.profile {
            profile = profile.with_profile(name);
            login = login.with_profile(name);
            process = process.with_profile(name);
        }
        let web = aws::AssumeRoleWithWebIdentityCredentialProvider::new().with_region(region.to_owned());
        let mut sources = vec![
            source("profile", profile),
            source("SSO", login),
            source("web identity", web),
            source("credential process", process),
            source("container metadata", aws::ECSCredentialProvider::new()),
            Source { last_resort: true, ..source("instance metadata", aws::IMDSv2CredentialProvider::new()) },
        ];
        // A profile in the settings means that one and not what happens to be in the environment.
        if s3.profile.is_none() {
            sources.insert(0, source("environment", aws::EnvCredentialProvider::new()));
        } else {
            sources.retain(|source| matches!(source.name, "profile" | "SSO" | "credential process"));
        }
        Sources(sources)
    }
}

impl ProvideCredential for Sources {
    type Credential = aws::Credential;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<aws::Credential>> {
        let mut failed: Vec<String> = Vec::new();
        let mut retry = false;
        for source in &self.0 {
            if source.last_resort && !failed.is_empty() {
                break;
            }
            match source.provider.provide_credential_dyn(context).await {
                Ok(Some(credential)) => return Ok(Some(credential)),
                Ok(None) => {}
                Err(error) => {
                    // Not being on Amazon's machines is the rule, and no trouble that passes.
                    retry |= error.is_retryable() && !source.last_resort;
                    failed.push(format!("{}: {}", source.name, one_line(&error.to_string())));
                }
            }
        }
        let failed = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join("; ")) };
        Err(Error::credential_invalid(format!("no credentials found{failed}")).set_retryable(retry))
    }
}

/// Signs requests to S3 with credentials that it keeps until they end or are doubted.
pub(super) struct Keyring {
    sources: Arc<Sources>,
    signer: Mutex<Signer<aws::Credential>>,
}

impl Keyring {
    pub(super) fn new(s3: &S3, region: &str, http: &Arc<Http>) -> Keyring {
        let sources = Arc::new(Sources::of(s3, region));
        let how = aws::RequestSigner::new("s3", region);
        let signer = Signer::new(context(http), Arc::clone(&sources), how);
        Keyring { sources, signer: Mutex::new(signer) }
    }

    /// Signs a request.
    pub(super) async fn sign(&self, parts: &mut request::Parts) -> Result<(), What> {
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        signer.sign(parts, None).await.map_err(|error| {
            let cause = one_line(&error.to_string());
            match error.kind() {
                ErrorKind::RequestInvalid => What::Credentials { retry: false, cause },
                _ => What::Credentials { retry: error.is_retryable(), cause },
            }
        })
    }

    /// The server does not accept the credentials: the next request reads them again, since a
    /// file or a metadata service may have newer ones by now.
    pub(super) fn doubt(&self) {
        let mut signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        *signer = signer.clone().with_credential_provider(Arc::clone(&self.sources));
    }
}

/// The region of a profile in the shared configuration file, if it has one. Blocks.
pub(super) fn profile_region(profile: Option<&str>) -> Option<String> {
    let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let profile = profile.map(str::to_owned).or_else(|| var("AWS_PROFILE")).unwrap_or("default".into());
    let path =
        var("AWS_CONFIG_FILE").map(Into::into).or_else(|| Some(std::env::home_dir()?.join(".aws/config")));
    region_of(&std::fs::read_to_string(path?).ok()?, &profile)
}

fn region_of(config: &str, profile: &str) -> Option<String> {
    let mut within = false;
    for line in config.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name = section.trim();
            within = name.strip_prefix("profile ").unwrap_or(name).trim() == profile;
        } else if within
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "region"
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{check_google, region_of};

    #[test]
    fn a_program_of_googles_is_refused_before_it_is_run() {
        let path = std::env::temp_dir().join(format!("driftless-google-{}", std::process::id()));
        let check = |source: &str| {
            let text = format!("{{\"type\": \"external_account\", \"credential_source\": {source}}}");
            std::fs::write(&path, text).unwrap();
            check_google(path.to_str())
        };
        let error = check("{\"executable\": {\"command\": \"/bin/token\"}}").unwrap_err();
        assert!(error.contains("executable") && error.starts_with(path.to_str().unwrap()), "{error}");
        assert_eq!(check("{\"file\": \"/token\"}"), Ok(()));
        assert_eq!(check("not json"), Ok(()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(check_google(path.to_str()), Ok(()), "it may come yet");
    }

    #[test]
    fn a_profile_has_its_own_region() {
        let config = "[default]\nregion = eu-west-1\noutput=json\n\n[profile prod]\n# region = no\nregion=eu-north-1\n[profile bare]\n";
        let check = |profile, region: Option<&str>| assert_eq!(region_of(config, profile).as_deref(), region);
        check("default", Some("eu-west-1"));
        check("prod", Some("eu-north-1"));
        check("bare", None);
        check("other", None);
    }
}
