//! From settings to one of opendal's services.

#[cfg(not(madsim))]
mod others;

use std::sync::Arc;

use opendal::raw::{OpWrite, Servicer};
use opendal::{options, services};

use super::credentials::{Keyring, profile_region};
use super::http::{Http, Route};
use super::problem::Dialect;
use super::settings::{S3, ServerEncryption, Service, Settings};
use super::webdav::Dav;
use super::wire::Server;
use crate::store::{Capabilities, PutCondition, StoreError, StoreErrorKind};

/// S3's and Google's least size of a part that is not the last, in bytes.
const PART_BYTES_MIN: u64 = 5 << 20;
/// Where nothing else is asked for: the buffers of one upload are then 20 MiB at the most.
const PART_BYTES: u64 = 5 << 20;
const CONCURRENCY: usize = 2;

/// A service, and what is to be known of it. All replicas on one server and bucket share it, and so
/// their credentials; what lies where in the bucket is not its business.
pub(super) struct Place {
    pub(super) service: Servicer,
    pub(super) server: Arc<Server>,
    pub(super) dialect: Dialect,
    pub(super) capabilities: Capabilities,
    pub(super) part_bytes: u64,
    pub(super) concurrency: usize,
    /// The bucket, as messages name it.
    pub(super) name: String,
    /// Where multipart uploads are listed, by S3.
    pub(super) bucket_url: Option<String>,
    /// What WebDAV needs beside opendal's service.
    pub(super) dav: Option<Arc<Dav>>,
}

impl Place {
    /// How to tell opendal of a condition; `None` if the service cannot have it.
    pub(super) fn write_args(&self, condition: &PutCondition) -> Option<OpWrite> {
        let mut options = options::WriteOptions { concurrent: self.concurrency, ..Default::default() };
        match condition {
            PutCondition::Always => {}
            PutCondition::IfAbsent if !self.capabilities.create_if_absent => return None,
            PutCondition::IfAbsent => options.if_not_exists = true,
            PutCondition::Matches(_) if !self.capabilities.swap => return None,
            PutCondition::Matches(version) if self.dialect == Dialect::Gcs => {
                options.if_version_match = Some(version.0.to_string());
            }
            PutCondition::Matches(version) => options.if_match = Some(version.0.to_string()),
        }
        let capability = self.service.capability_dyn();
        Some(OpWrite::from_options(&capability, options).expect("no identity is asked for").0)
    }
}

/// The place that `settings` name.
///
/// # Errors
/// `Misconfigured`.
pub(super) fn open(settings: &Settings, http: &Arc<Http>) -> Result<Place, StoreError> {
    let route = Route { skip_verify: settings.transport.skip_verify, direct: false };
    let opened = match &settings.service {
        Service::S3(s3) => open_s3(s3, http, route),
        #[cfg(not(madsim))]
        Service::Azure(azure) => others::open_azure(azure, http, route),
        #[cfg(not(madsim))]
        Service::Gcs(gcs) => others::open_gcs(gcs, http, route),
        #[cfg(not(madsim))]
        Service::WebDav(webdav) => others::open_webdav(webdav, http, route),
        #[cfg(madsim)]
        _ => Err("S3 alone is simulated".into()),
    };
    opened.map_err(|cause| StoreError::new(StoreErrorKind::Misconfigured, settings.url(), cause))
}

fn server(http: &Arc<Http>, route: Route, keyring: Option<Keyring>) -> Arc<Server> {
    Arc::new(Server { http: Arc::clone(http), route, keyring, shows_refusals: false })
}

fn build(builder: impl opendal::Builder) -> Result<Servicer, String> {
    match builder.build() {
        Ok(service) => Ok(Arc::new(service)),
        Err(error) => Err(super::problem::one_line(&error.message().to_lowercase())),
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

const EVERYTHING: Capabilities = Capabilities { create_if_absent: true, swap: true, modified: true };

fn open_s3(s3: &S3, http: &Arc<Http>, route: Route) -> Result<Place, String> {
    let region = s3.region.clone().filter(|region| !region.is_empty());
    let region = region.or_else(|| env("AWS_REGION")).or_else(|| env("AWS_DEFAULT_REGION"));
    let region = region.or_else(|| profile_region(s3.profile.as_deref())).unwrap_or("us-east-1".into());
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    let amazon = || format!("https://s3.{region}.amazonaws.com{china}");
    let endpoint = s3.endpoint.clone().unwrap_or_else(amazon);
    let endpoint = endpoint.trim_end_matches('/');
    let endpoint = if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") };
    // Requests are signed by our own transport, those of opendal's and those that it lacks.
    let mut builder = services::S3::default()
        .bucket(&s3.bucket)
        .region(&region)
        .endpoint(&endpoint)
        .disable_config_load()
        .disable_ec2_metadata()
        .skip_signature();
    if !s3.path_style {
        builder = builder.enable_virtual_host_style();
    }
    if let Some(class) = &s3.storage_class {
        builder = builder.default_storage_class(class);
    }
    if s3.checksum {
        builder = builder.checksum_algorithm("crc32c");
    }
    builder = match &s3.encryption {
        None => builder,
        Some(ServerEncryption::Server) => builder.server_side_encryption_with_s3_key(),
        Some(ServerEncryption::Kms { key_id: None }) => {
            builder.server_side_encryption_with_aws_managed_kms_key()
        }
        Some(ServerEncryption::Kms { key_id: Some(id) }) => {
            builder.server_side_encryption_with_customer_managed_kms_key(id)
        }
        Some(ServerEncryption::Customer { key }) => {
            builder.server_side_encryption_with_customer_key("AES256", &key.0)
        }
    };
    let bucket_url = match endpoint.split_once("://") {
        Some((scheme, host)) if !s3.path_style => format!("{scheme}://{}.{host}", s3.bucket),
        _ => format!("{endpoint}/{}", s3.bucket),
    };
    Ok(Place {
        service: build(builder)?,
        server: server(http, route, Some(Keyring::new(s3, &region, http))),
        dialect: Dialect::S3,
        capabilities: EVERYTHING,
        part_bytes: s3.part_size.unwrap_or(PART_BYTES).max(PART_BYTES_MIN),
        concurrency: s3.concurrency.map_or(CONCURRENCY, |n| n.max(1) as usize),
        name: format!("bucket {}", s3.bucket),
        bucket_url: Some(bucket_url),
        dav: None,
    })
}
