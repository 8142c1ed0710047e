//! A bucket of S3, as far as the adapter speaks to it: what it holds, and what it answers.
//!
//! It is pure: a request in, an answer out, and no time passes. Conditions are exact and parts
//! become an object at once, as at Amazon. Who may ask is not looked at.

use std::collections::BTreeMap;

/// A request, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// What follows the bucket, decoded, without a slash at its start.
    pub key: String,
    /// Decoded; empty for a name without a value.
    pub query: BTreeMap<String, String>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// All of it.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Without the length, which the body tells.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Stored {
    version: u64,
    /// When it was put, in the form of RFC 3339.
    modified: String,
    body: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Upload {
    key: String,
    begun: String,
    parts: BTreeMap<u32, Vec<u8>>,
}

/// Objects, and uploads that are not complete.
#[derive(Debug, Default)]
pub struct Bucket {
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<String, Upload>,
    versions: u64,
    /// The most names in one page of a list.
    page_max: usize,
    /// What was deleted last under each key.
    gone: BTreeMap<String, Vec<u8>>,
    /// Keys whose object became another, which nobody may ask for.
    pub replaced: Vec<String>,
    /// Objects that were deleted and became others, with what they were and are.
    pub revived: Vec<(String, Vec<u8>, Vec<u8>)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn asks(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Whether it makes an object visible.
    pub fn commits(&self) -> bool {
        match self.method.as_str() {
            "PUT" => self.asks("partNumber").is_none(),
            "POST" => self.asks("uploadId").is_some(),
            _ => false,
        }
    }
}

impl Answer {
    /// An error as S3 words it.
    pub fn error(status: u16, code: &str) -> Answer {
        let body = format!("<Error><Code>{code}</Code><Message>simulated</Message></Error>");
        Answer { status, headers: vec![("Content-Type", "application/xml".into())], body: body.into() }
    }

    fn xml(body: String) -> Answer {
        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
        let headers = vec![("Content-Type", "application/xml".into())];
        Answer { status: 200, headers, body: format!("{head}{body}").into() }
    }

    fn empty(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }
}

fn tag(version: u64) -> String {
    format!("\"{version:032x}\"")
}

impl Bucket {
    /// Empty, with at most `page_max` names in one page of a list.
    pub fn new(page_max: usize) -> Bucket {
        Bucket { page_max, ..Bucket::default() }
    }

    /// Objects by key.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.objects.iter().map(|(key, stored)| (key.as_str(), stored.body.as_slice()))
    }

    /// How many were deleted.
    pub fn deleted(&self) -> usize {
        self.gone.len()
    }

    /// What a key holds.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.objects.get(key).map(|stored| stored.body.as_slice())
    }

    /// Carries out a request. `now` is the store's time in the form of RFC 3339.
    pub fn answer(&mut self, request: &Request, now: &str) -> Answer {
        let upload = request.asks("uploadId");
        match (request.method.as_str(), upload) {
            ("PUT", Some(upload)) => self.put_part(request, upload),
            ("PUT", None) => self.put(&request.key, request, request.body.clone(), now),
            ("POST", Some(upload)) => self.complete(request, upload, now),
            ("POST", None) if request.asks("uploads").is_some() => self.begin(&request.key, now),
            ("DELETE", Some(upload)) => match self.uploads.remove(upload) {
                Some(_) => Answer::empty(204),
                None => Answer::error(404, "NoSuchUpload"),
            },
            ("DELETE", None) => {
                if let Some(stored) = self.objects.remove(&request.key) {
                    self.gone.insert(request.key.clone(), stored.body);
                }
                Answer::empty(204)
            }
            ("GET", None) if request.asks("uploads").is_some() => self.list_uploads(request),
            ("GET", None) if request.asks("list-type") == Some("2") => self.list(request),
            ("GET" | "HEAD", None) => self.read(request),
            _ => Answer::error(501, "NotImplemented"),
        }
    }

    fn put(&mut self, key: &str, request: &Request, body: Vec<u8>, now: &str) -> Answer {
        let there = self.objects.get(key);
        let refused = match (request.header("if-none-match"), request.header("if-match")) {
            (Some("*"), _) => there.is_some(),
            (_, Some(wanted)) => there.is_none_or(|there| tag(there.version) != wanted),
            _ => false,
        };
        if refused {
            return Answer::error(412, "PreconditionFailed");
        }
        let unconditional = request.header("if-match").is_none();
        if unconditional && there.is_some_and(|there| there.body != body) {
            self.replaced.push(key.to_owned());
        }
        if let Some(gone) = self.gone.get(key).filter(|gone| **gone != body) {
            self.revived.push((key.to_owned(), gone.clone(), body.clone()));
        }
        self.versions += 1;
        self.objects
            .insert(key.to_owned(), Stored { version: self.versions, modified: now.to_owned(), body });
        Answer { headers: vec![("ETag", tag(self.versions))], ..Answer::empty(200) }
    }

    fn begin(&mut self, key: &str, now: &str) -> Answer {
        self.versions += 1;
        let id = format!("upload-{}", self.versions);
        let upload = Upload { key: key.to_owned(), begun: now.to_owned(), parts: BTreeMap::new() };
        self.uploads.insert(id.clone(), upload);
        Answer::xml(format!(
            "<InitiateMultipartUploadResult><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        ))
    }

    fn put_part(&mut self, request: &Request, upload: &str) -> Answer {
        let number = request.asks("partNumber").and_then(|number| number.parse().ok());
        let (Some(upload), Some(number)) = (self.uploads.get_mut(upload), number) else {
            return Answer::error(404, "NoSuchUpload");
        };
        upload.parts.insert(number, request.body.clone());
        Answer { headers: vec![("ETag", tag(u64::from(number)))], ..Answer::empty(200) }
    }

    fn complete(&mut self, request: &Request, id: &str, now: &str) -> Answer {
        let Some(upload) = self.uploads.get(id) else { return Answer::error(404, "NoSuchUpload") };
        let words = String::from_utf8_lossy(&request.body);
        let numbers = words.split("<PartNumber>").skip(1);
        let numbers = numbers.filter_map(|rest| rest.split('<').next()?.trim().parse::<u32>().ok());
        let mut body = Vec::new();
        for number in numbers {
            match upload.parts.get(&number) {
                Some(part) => body.extend_from_slice(part),
                None => return Answer::error(400, "InvalidPart"),
            }
        }
        let key = upload.key.clone();
        let put = self.put(&key, request, body, now);
        if put.status != 200 {
            return put;
        }
        self.uploads.remove(id);
        let tag = put.headers[0].1.replace('"', "&quot;");
        Answer::xml(format!(
            "<CompleteMultipartUploadResult><Key>{key}</Key><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        ))
    }

    fn list(&self, request: &Request) -> Answer {
        let prefix = request.asks("prefix").unwrap_or_default();
        let after = request.asks("continuation-token").or(request.asks("start-after")).unwrap_or_default();
        let asked = request.asks("max-keys").and_then(|max| max.parse().ok()).unwrap_or(1_000);
        let limit = self.page_max.min(asked);
        let mut rest = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after)
            .map(|(key, stored)| (key, stored, stored.body.len()));
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let next = match (rest.next(), page.last()) {
            (Some(_), Some((last, ..))) => {
                format!(
                    "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
                )
            }
            _ => "<IsTruncated>false</IsTruncated>".to_owned(),
        };
        let entries: String = page
            .iter()
            .map(|(key, Stored { version, modified, .. }, len)| {
                let tag = tag(*version).replace('"', "&quot;");
                format!(
                    "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{tag}</ETag><Size>{len}</Size></Contents>"
                )
            })
            .collect();
        Answer::xml(format!("<ListBucketResult>{next}{entries}</ListBucketResult>"))
    }

    fn list_uploads(&self, request: &Request) -> Answer {
        let prefix = request.asks("prefix").unwrap_or_default();
        let entries: String = self
            .uploads
            .iter()
            .filter(|(_, upload)| upload.key.starts_with(prefix))
            .map(|(id, Upload { key, begun, .. })| {
                format!(
                    "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{begun}</Initiated></Upload>"
                )
            })
            .collect();
        Answer::xml(format!(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{entries}</ListMultipartUploadsResult>"
        ))
    }

    fn read(&self, request: &Request) -> Answer {
        let Some(Stored { version, body, .. }) = self.objects.get(&request.key) else {
            return Answer::error(404, "NoSuchKey");
        };
        let modified = "Thu, 01 Jan 2026 00:00:00 GMT".to_owned();
        let mut headers = vec![("ETag", tag(*version)), ("Last-Modified", modified)];
        let Some(range) = request.header("range") else {
            return Answer { status: 200, headers, body: body.clone() };
        };
        let len = body.len();
        let span = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let (start, end) = match span.map(|(from, to)| (from.parse::<usize>(), to.parse::<usize>())) {
            Some((Ok(from), Ok(to))) => (from, len.min(to.saturating_add(1))),
            Some((Ok(from), Err(_))) => (from, len),
            Some((Err(_), Ok(last))) => (len.saturating_sub(last), len),
            _ => return Answer::error(400, "InvalidArgument"),
        };
        if start >= len {
            headers.push(("Content-Range", format!("bytes */{len}")));
            return Answer { headers, ..Answer::error(416, "InvalidRange") };
        }
        headers.push(("Content-Range", format!("bytes {start}-{}/{len}", end - 1)));
        Answer { status: 206, headers, body: body[start..end].to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, key: &str, query: &[(&str, &str)], headers: &[(&str, &str)]) -> Request {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let body = b"0123456789".to_vec();
        Request { method: method.into(), key: key.into(), query: map(query), headers: map(headers), body }
    }

    fn said(answer: &Answer) -> String {
        String::from_utf8_lossy(&answer.body).into_owned()
    }

    #[test]
    fn conditions_are_exact() {
        let mut bucket = Bucket::new(1_000);
        let absent = request("PUT", "k", &[], &[("if-none-match", "*")]);
        let first = bucket.answer(&absent, "");
        assert_eq!((first.status, bucket.answer(&absent, "").status), (200, 412));
        let swap = request("PUT", "k", &[], &[("if-match", &first.headers[0].1)]);
        assert_eq!((bucket.answer(&swap, "").status, bucket.answer(&swap, "").status), (200, 412));
        assert!(bucket.replaced.is_empty());
        let other = Request { body: vec![1], ..request("PUT", "k", &[], &[]) };
        assert_eq!(bucket.answer(&other, "").status, 200);
        assert_eq!(bucket.replaced, ["k"]);
    }

    #[test]
    fn lists_come_in_pages() {
        let mut bucket = Bucket::new(2);
        for key in ["a/1", "a/2", "a/3", "b/1"] {
            bucket.answer(&request("PUT", key, &[], &[]), "");
        }
        let page =
            said(&bucket.answer(&request("GET", "", &[("list-type", "2"), ("prefix", "a/")], &[]), ""));
        assert!(page.contains("a/1") && page.contains("a/2") && !page.contains("a/3"), "{page}");
        assert!(page.contains("<NextContinuationToken>a/2<"), "{page}");
        let next = [("list-type", "2"), ("prefix", "a/"), ("continuation-token", "a/2")];
        let page = said(&bucket.answer(&request("GET", "", &next, &[]), ""));
        assert!(page.contains("a/3") && page.contains("<IsTruncated>false<"), "{page}");
    }

    #[test]
    fn parts_become_an_object_once() {
        let mut bucket = Bucket::new(2);
        let begun =
            said(&bucket.answer(&request("POST", "k", &[("uploads", "")], &[]), "2026-01-01T00:00:00Z"));
        let id = begun.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
        for number in ["2", "1"] {
            let part = Request {
                body: number.into(),
                ..request("PUT", "k", &[("partNumber", number), ("uploadId", &id)], &[])
            };
            assert!(!part.commits());
            assert_eq!(bucket.answer(&part, "").status, 200);
        }
        assert!(said(&bucket.answer(&request("GET", "", &[("uploads", "")], &[]), "")).contains(&id));
        assert_eq!(bucket.get("k"), None);
        let complete = Request {
            body: b"<PartNumber>1</PartNumber><PartNumber>2</PartNumber>".to_vec(),
            ..request("POST", "k", &[("uploadId", &id)], &[("if-none-match", "*")])
        };
        assert!(complete.commits());
        assert_eq!((bucket.answer(&complete, "").status, bucket.get("k").unwrap()), (200, &b"12"[..]));
        assert_eq!(bucket.answer(&complete, "").status, 404);
    }

    #[test]
    fn ranges_are_those_of_http() {
        let mut bucket = Bucket::new(1);
        bucket.answer(&request("PUT", "k", &[], &[]), "");
        let mut check = |range: &str, status: u16, body: &str| {
            let answer = bucket.answer(&request("GET", "k", &[], &[("range", range)]), "");
            assert_eq!((answer.status, said(&answer).contains(body)), (status, true), "{range}");
        };
        check("bytes=2-4", 206, "234");
        check("bytes=7-", 206, "789");
        check("bytes=-2", 206, "89");
        check("bytes=8-99", 206, "89");
        check("bytes=10-", 416, "InvalidRange");
    }
}
