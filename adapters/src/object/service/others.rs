//! Azure, Google and WebDAV.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use opendal::services;
use reqsign_azure_storage as azure;
use reqsign_core::ProvideCredentialChain;
use reqsign_google as google;

use super::{CONCURRENCY, EVERYTHING, PART_BYTES, Place, build, env, server};
use crate::object::credentials::{Ours, check_google};
use crate::object::http::{Http, Route};
use crate::object::problem::Dialect;
use crate::object::settings::{Azure, Gcs, WebDav};
use crate::object::webdav::Dav;
use crate::object::wire::Server;
use crate::store::Capabilities;

pub(super) fn open_azure(azure: &Azure, http: &Arc<Http>, route: Route) -> Result<Place, String> {
    let account = Some(azure.account.clone()).filter(|account| !account.is_empty());
    let account =
        account.or_else(|| env("AZURE_STORAGE_ACCOUNT")).ok_or("the storage account is not named")?;
    let endpoint =
        azure.endpoint.clone().unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
    let variables = ["LITESTREAM_AZURE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"];
    let key = azure.account_key.as_ref().map(|key| key.reveal().to_owned());
    let key = key.or_else(|| variables.into_iter().find_map(env));
    let sas = azure.sas_token.as_ref().map(|token| token.reveal().to_owned());
    let sas = sas.or_else(|| env("AZURE_STORAGE_SAS_TOKEN").filter(|_| key.is_none()));
    let mut chain = ProvideCredentialChain::new();
    chain = match (&sas, &key) {
        (Some(token), _) => {
            chain.push(azure::StaticCredentialProvider::new_sas_token(token.trim_start_matches('?')))
        }
        (None, Some(key)) => {
            BASE64_STANDARD.decode(key).map_err(|_| "the account key is not base64")?;
            chain.push(azure::StaticCredentialProvider::new_shared_key(&account, key))
        }
        (None, None) => chain.push(Ours::new(azure::DefaultCredentialProvider::new(), http)),
    };
    let builder = services::Azblob::default()
        .container(&azure.container)
        .account_name(&account)
        .endpoint(endpoint.trim_end_matches('/'))
        .credential_provider_chain(chain);
    Ok(Place {
        service: build(builder)?,
        server: server(http, route, None),
        dialect: Dialect::Azure,
        capabilities: EVERYTHING,
        part_bytes: PART_BYTES,
        concurrency: CONCURRENCY,
        name: format!("container {}", azure.container),
        bucket_url: None,
        dav: None,
    })
}

pub(super) fn open_gcs(gcs: &Gcs, http: &Arc<Http>, route: Route) -> Result<Place, String> {
    if !gcs.anonymous {
        check_google(gcs.credential_path.as_deref())?;
    }
    const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
    let mut builder = services::Gcs::default().bucket(&gcs.bucket).scope(SCOPE);
    if let Some(endpoint) = &gcs.endpoint {
        builder = builder.endpoint(endpoint.trim_end_matches('/'));
    }
    // opendal's own sources read files through tokio; they are replaced and not only preceded.
    builder = builder.disable_config_load().disable_vm_metadata();
    builder = if gcs.anonymous {
        builder.skip_signature()
    } else if let Some(path) = &gcs.credential_path {
        let file = google::FileCredentialProvider::new(path).with_scope(SCOPE);
        builder.credential_provider(Ours::new(file, http))
    } else {
        let sources = google::DefaultCredentialProvider::builder().build();
        builder.credential_provider(Ours::new(sources, http))
    };
    Ok(Place {
        service: build(builder)?,
        server: server(http, route, None),
        dialect: Dialect::Gcs,
        capabilities: EVERYTHING,
        part_bytes: PART_BYTES,
        concurrency: CONCURRENCY,
        name: format!("bucket {}", gcs.bucket),
        bucket_url: None,
        dav: None,
    })
}

pub(super) fn open_webdav(webdav: &WebDav, http: &Arc<Http>, route: Route) -> Result<Place, String> {
    let mut builder = services::Webdav::default().endpoint(webdav.url.trim_end_matches('/'));
    if let Some(username) = &webdav.username {
        builder = builder.username(username);
    }
    if let Some(password) = &webdav.password {
        builder = builder.password(password.reveal());
    }
    Ok(Place {
        service: build(builder)?,
        server: Arc::new(Server { http: Arc::clone(http), route, keyring: None, shows_refusals: true }),
        dialect: Dialect::WebDav,
        capabilities: Capabilities { modified: true, ..Capabilities::default() },
        part_bytes: PART_BYTES,
        concurrency: 1,
        name: webdav.url.clone(),
        bucket_url: None,
        dav: Some(Arc::new(Dav::new(webdav)?)),
    })
}
