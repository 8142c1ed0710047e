//! The parts of a replica's URL: `scheme://user:password@host:port/path?name=value&…`.

use std::fmt;

use super::{ReplicaError, error};

/// A URL that names a place in an object store.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Url {
    /// Before `@`, without the password.
    pub user: Option<String>,
    /// Between `:` and `@`.
    pub password: Option<String>,
    /// With its port. May be empty.
    pub host: String,
    /// Components divided by `/`, none of them empty, `.` or `..`; no slash at either end.
    pub path: String,
    /// What stands after `?`, in order.
    pub query: Vec<(String, String)>,
}

impl Url {
    /// Reads what stands after `scheme://`. `url` is all of it, for errors, from which the password
    /// and the parameters are left out.
    pub fn parse(scheme: &str, rest: &str) -> Result<Url, ReplicaError> {
        let (before, query) = match rest.split_once('?') {
            Some((before, query)) => (before, query),
            None => (rest, ""),
        };
        let (authority, path) = before.split_once('/').unwrap_or((before, ""));
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let shown = format!("{scheme}://{host}/{path}");
        if before.contains('#') {
            return Err(error(
                format!("{shown:?} has a part after '#', which replica urls do not take"),
                "write %23 if it belongs to the path",
            ));
        }
        let decode = |text: &str| {
            percent_decode(text).ok_or_else(|| {
                error(
                    format!("{shown:?} has a percent sign that is no escape"),
                    "write %25 for a percent sign",
                )
            })
        };
        let (mut user, mut password) = (None, None);
        if let Some(userinfo) = userinfo {
            let (name, secret) = match userinfo.split_once(':') {
                Some((name, secret)) => (name, Some(secret)),
                None => (userinfo, None),
            };
            user = Some(decode(name)?).filter(|name| !name.is_empty());
            password = secret.map(decode).transpose()?;
        }
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Forms write a blank as a plus sign, and so does whoever builds a URL with them.
            parameters.push((decode(name)?, decode(&value.replace('+', " "))?));
        }
        let path = clean(&decode(path)?);
        Ok(Url { user, password, host: host.to_owned(), path, query: parameters })
    }
}

impl fmt::Debug for Url {
    /// Without what may be secret: the password and the parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

/// A path without empty and `.` components, `..` applied: what `path.Clean` of Go makes of it.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Turns `%41` into `A`; `None` for a percent sign that is no escape, or for bytes that are no text.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rest: &str, user: Option<&str>, password: Option<&str>, host: &str, path: &str, query: &str) {
        let url = Url::parse("s3", rest).unwrap();
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (user, password), "{rest}");
        assert_eq!((url.host.as_str(), url.path.as_str()), (host, path), "{rest}");
        let shown: Vec<String> = url.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown.join(";"), query, "{rest}");
    }

    #[test]
    fn urls_come_apart() {
        check("bkt", None, None, "bkt", "", "");
        check("bkt/", None, None, "bkt", "", "");
        check("bkt/a//b/./c/../d/", None, None, "bkt", "a/b/d", "");
        check("bkt/../a", None, None, "bkt", "a", "");
        check("h:1/a%20b", None, None, "h:1", "a b", "");
        check("bkt?a=1&b", None, None, "bkt", "", "a=1;b=");
        check("bkt/x?endpoint=http://h/y&k=a%2Bb+c", None, None, "bkt", "x", "endpoint=http://h/y;k=a+b c");
        check("u%40x:p%3Aq@h/x", Some("u@x"), Some("p:q"), "h", "x", "");
        check("u@h", Some("u"), None, "h", "", "");
        check(":p@h", None, Some("p"), "h", "", "");
    }

    #[test]
    fn secrets_stay_out_of_errors() {
        for rest in ["u:hunter2@h/%zz", "u:hunter2@h/a#b", "u:hunter2%@h/"] {
            let error = Url::parse("webdav", rest).unwrap_err();
            assert!(!error.error.contains("hunter2") && error.error.contains("webdav://h/"), "{error:?}");
        }
        let url = Url::parse("webdav", "u:hunter2@h/x?secret=hunter2").unwrap();
        assert_eq!(format!("{url:?}"), "h/x");
    }
}
