//! Which access keys are valid at the moment.

use std::collections::BTreeMap;

use super::answer::Answer;
use super::record::credential;
use crate::http::Request;

/// The keys that a proxy knows. None at all means that it does not ask for any.
#[derive(Clone, Default, Debug)]
pub(super) struct Keys(BTreeMap<String, Key>);

#[derive(Clone, Debug)]
struct Key {
    token: Option<String>,
    expired: bool,
}

impl Keys {
    pub fn allow(&mut self, id: &str, token: Option<&str>) {
        self.0.insert(id.to_owned(), Key { token: token.map(str::to_owned), expired: false });
    }

    /// Panics if the key is unknown: a test that expires nothing would show nothing.
    pub fn expire(&mut self, id: &str) {
        let key = self.0.get_mut(id).unwrap_or_else(|| panic!("the key {id} was never allowed"));
        key.expired = true;
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The refusal of a request, if it is to be refused. Signatures are not checked: the secret parts
    /// are the server's business.
    pub fn refusal(&self, request: &Request) -> Option<Answer> {
        if self.0.is_empty() {
            return None;
        }
        let Some(id) = credential(&request.headers, request.query()) else {
            return Some(Answer::access_denied());
        };
        match self.0.get(id) {
            None => Some(Answer::invalid_key()),
            Some(key) if key.expired => Some(Answer::expired_token()),
            Some(key) if key.token.as_deref() != request.headers.get("x-amz-security-token") => {
                Some(Answer::s3(400, "InvalidToken", "The provided token is malformed or otherwise invalid."))
            }
            Some(_) => None,
        }
    }
}
