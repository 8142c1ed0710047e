//! Encryption by the server: SSE-KMS and SSE-C.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftless_adapters::object::settings::{Secret32, ServerEncryption};

use super::ReplicaError;
use super::options::{Given, Options};
use super::provider::is_local;

/// What the options ask of the server at `endpoint`.
pub(super) fn encryption(
    options: &Options,
    endpoint: Option<&str>,
) -> Result<Option<ServerEncryption>, ReplicaError> {
    let kms = options.get("sse-kms-key-id");
    let customer = customer_key(options)?;
    match (kms, customer) {
        (Some(kms), Some(_)) => Err(kms.wrong(
            "sse-kms-key-id and a customer's key exclude each other",
            "keep sse-kms-key-id or sse-customer-key",
        )),
        (Some(kms), None) => Ok(Some(ServerEncryption::Kms { key_id: Some(kms.value.clone()) })),
        (None, Some((given, key))) => {
            if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://") && !is_local(endpoint)) {
                return Err(given.wrong(
                    "a customer's key would go over the network in the clear",
                    "use an https endpoint",
                ));
            }
            Ok(Some(ServerEncryption::Customer { key }))
        }
        (None, None) => {
            let lonely = ["sse-customer-algorithm", "sse-customer-key-md5"];
            match lonely.into_iter().find_map(|name| options.get(name).map(|given| (name, given))) {
                Some((name, given)) => Err(given.wrong(
                    format!("{name} is given without a key"),
                    "give sse-customer-key or sse-customer-key-path",
                )),
                None => Ok(None),
            }
        }
    }
}

/// The customer's key, and the option that it comes from. Its digest is computed from it, so one
/// that is given as well is not looked at.
fn customer_key(options: &Options) -> Result<Option<(&Given, Secret32)>, ReplicaError> {
    if let Some(algorithm) = options.get("sse-customer-algorithm").filter(|given| given.value != "AES256") {
        return Err(algorithm.wrong("sse-customer-algorithm is AES256 or nothing", "leave it out"));
    }
    let (given, text) = match (options.get("sse-customer-key"), options.get("sse-customer-key-path")) {
        (None, None) => return Ok(None),
        (Some(_), Some(path)) => {
            return Err(
                path.wrong("both sse-customer-key and sse-customer-key-path are given", "keep one of them")
            );
        }
        (Some(key), None) => (key, key.value.clone()),
        (None, Some(given)) => {
            let read = crate::config::absolute(given.value.as_ref())
                .and_then(std::fs::read_to_string)
                .map_err(|error| {
                    given.wrong(
                        format!("cannot read sse-customer-key-path {}: {error}", given.value),
                        "name a file that holds the key in base64",
                    )
                })?;
            (given, read)
        }
    };
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    match bytes {
        Some(key) => Ok(Some((given, Secret32(key)))),
        None => Err(given
            .wrong("the customer's key is not 32 bytes in base64", "make one with: openssl rand -base64 32")),
    }
}
