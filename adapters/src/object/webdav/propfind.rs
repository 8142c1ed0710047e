//! What a collection holds, as a server tells it.
//!
//! Read here and not by opendal, which panics when a server calls something a file whose name ends
//! in a slash, as one does that is asked for the members of a file.

use http::Uri;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::object::problem::parse_date;

/// The request's body.
pub(super) const ASK: &str = r#"<?xml version="1.0" encoding="utf-8"?><d:propfind xmlns:d="DAV:"><d:prop><d:resourcetype/><d:getcontentlength/><d:getlastmodified/></d:prop></d:propfind>"#;

/// One member, or the collection itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Member {
    /// Its path on the server, decoded, without a slash at the end.
    pub(super) path: String,
    pub(super) is_collection: bool,
    pub(super) len: Option<u64>,
    pub(super) modified: Option<Timestamp>,
}

/// Reads an answer. `Err` is a line about what is wrong with it.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Member>, String> {
    let body = std::str::from_utf8(body).map_err(|_| "it is not UTF-8")?;
    let mut reader = Reader::from_str(body);
    let (mut members, mut member) = (Vec::new(), None::<Member>);
    let mut text = String::new();
    let mut complete = false;
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(tag) => {
                text.clear();
                match tag.local_name().as_ref() {
                    "response" => member = Some(Member::default()),
                    "collection" => member.iter_mut().for_each(|member| member.is_collection = true),
                    _ => {}
                }
            }
            Event::Empty(tag) if tag.local_name().as_ref() == "collection" => {
                member.iter_mut().for_each(|member| member.is_collection = true);
            }
            Event::Text(part) => text.push_str(&part),
            Event::CData(part) => text.push_str(&part),
            Event::GeneralRef(part) => {
                let resolved = match part.resolve_char_ref().map_err(|error| error.to_string())? {
                    Some(letter) => letter.to_string(),
                    None => {
                        quick_xml::escape::resolve_predefined_entity(&part).unwrap_or_default().to_owned()
                    }
                };
                text.push_str(&resolved);
            }
            Event::End(tag) => {
                let name = tag.local_name();
                complete |= name.as_ref() == "multistatus";
                if name.as_ref() == "response" {
                    members.extend(member.take());
                } else if let Some(member) = &mut member {
                    note(member, name.as_ref(), text.trim())?;
                }
                text.clear();
            }
            Event::Eof if complete => return Ok(members),
            Event::Eof => return Err("the answer ends early".into()),
            _ => {}
        }
    }
}

fn note(member: &mut Member, name: &str, text: &str) -> Result<(), String> {
    match name {
        // A name of the whole resource; others stand deeper.
        "href" if member.path.is_empty() => member.path = path_of(text)?,
        "getcontentlength" if !text.is_empty() => member.len = text.parse().ok(),
        "getlastmodified" if !text.is_empty() => member.modified = parse_date(text),
        _ => {}
    }
    Ok(())
}

/// The path of a URL or of an absolute path.
fn path_of(href: &str) -> Result<String, String> {
    let path = match href.parse::<Uri>() {
        Ok(uri) => uri.path().to_owned(),
        // Not every server encodes what it should.
        Err(_) => href.to_owned(),
    };
    let decoded = percent_decode_str(&path).decode_utf8().map_err(|_| format!("{href} is not UTF-8"))?;
    Ok(decoded.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_several_tongues() {
        let answer = br#"<?xml version="1.0"?>
<D:multistatus xmlns:D="DAV:" xmlns:lp1="DAV:">
<D:response><D:href>/dav/a%20b/</D:href><D:propstat><D:prop><lp1:resourcetype><D:collection/></lp1:resourcetype>
<lp1:getlastmodified>Thu, 26 Nov 2026 04:34:47 GMT</lp1:getlastmodified></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
<response xmlns="DAV:"><href>http://host/dav/a%20b/x&amp;y</href><propstat><prop><getcontentlength>12</getcontentlength>
<resourcetype/></prop></propstat></response>
</D:multistatus>"#;
        let members = parse(answer).unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!((members[0].path.as_str(), members[0].is_collection), ("/dav/a b", true));
        assert_eq!(members[0].modified.unwrap().to_string(), "2026-11-26T04:34:47Z");
        let file = Member { path: "/dav/a b/x&y".into(), len: Some(12), ..Member::default() };
        assert_eq!(members[1], file);
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        assert!(parse(b"<multistatus><response><href>/a</href></response>").is_err());
        assert!(parse(b"").is_err());
        assert!(parse(b"<html><body>Index</body></html>").is_err());
    }
}
