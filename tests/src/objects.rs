//! Objects of a store, whatever store it is.

use std::collections::BTreeMap;

/// What tests do with the objects of a store behind the product's back.
pub trait Objects {
    /// The names of all objects and their bytes.
    fn list(&self) -> BTreeMap<String, u64>;

    /// The content of an object, if there is one.
    fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// Stores an object, in the place of one that is there.
    fn put(&self, key: &str, body: &[u8]);

    /// Deletes an object; one that is not there is none either.
    fn delete(&self, key: &str);

    /// All objects with their content, for a comparison of before and after.
    fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.list().into_keys();
        names
            .map(|name| {
                let content = self.get(&name).unwrap_or_else(|| panic!("{name} was listed and is gone"));
                (name, content)
            })
            .collect()
    }
}

/// First and last TXID that the name of an LTX file tells.
pub fn ltx_range(name: &str) -> Option<(u64, u64)> {
    let (min, max) = name.strip_suffix(".ltx")?.split_once('-')?;
    Some((u64::from_str_radix(min, 16).ok()?, u64::from_str_radix(max, 16).ok()?))
}

/// The texts of all elements of a name in an XML document, without what is nested in them undone.
pub(crate) fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = xml.split(open.as_str()).skip(1);
    parts.filter_map(|part| part.split_once(close.as_str()).map(|(text, _)| text)).collect()
}

/// The text that an XML text stands for.
pub(crate) fn unescape(text: &str) -> String {
    let pairs =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&apos;", "'")];
    let text = pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    // Last, or else `&amp;lt;` would become `<`.
    text.replace("&amp;", "&")
}
