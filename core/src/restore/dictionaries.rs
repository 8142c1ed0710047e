//! Reading the dictionaries that the files of a plan name, before anything is decoded.
//!
//! One that is missing or damaged takes all files with it that name it. If others lead to the target, they
//! do; if not, the restore ends, and says which dictionary it was.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use super::machine::{Key, Phase, Restorer, Then};
use super::{Target, plan};
use crate::ids::Now;
use crate::ltx::{Codec, Dictionary, DictionaryId};
use crate::machine::{
    Actions, Exit, Fact, Object, Severity, StoreError, StoreErrorKind, StoreReply, StoreRequest,
};
use crate::reading::exit_of;

impl Restorer {
    /// Asks for what is not at hand.
    pub(super) fn begin_dictionaries(&mut self, now: Now, out: &mut Actions) {
        self.phase = Phase::Dictionaries;
        for id in self.lacking() {
            self.ask_dictionary(now, id, out);
        }
        self.go_on_with_dictionaries(now, out);
    }

    /// Asks for a dictionary, unless that was done.
    pub(super) fn ask_dictionary(&mut self, now: Now, id: DictionaryId, out: &mut Actions) {
        if self.asked.insert(id) {
            self.flight.send(now, Key::Dictionary(id), StoreRequest::GetDictionary { id }, out);
        }
    }

    fn lacking(&self) -> BTreeSet<DictionaryId> {
        let named = self.files[self.used_from..].iter().filter_map(|file| match file.header?.codec {
            Codec::Zstd(id) => id,
            Codec::Lz4 => None,
        });
        named.filter(|id| !self.dictionaries.has(*id)).collect()
    }

    fn go_on_with_dictionaries(&mut self, now: Now, out: &mut Actions) {
        if self.phase == Phase::Dictionaries && self.lacking().is_empty() {
            self.create(now, out);
        } else {
            self.fetch_claimed(now, out);
        }
    }

    pub(super) fn take_dictionary(
        &mut self,
        now: Now,
        id: DictionaryId,
        result: Result<StoreReply, StoreError>,
        out: &mut Actions,
    ) {
        let text = match result {
            Ok(StoreReply::Bytes { bytes, .. }) => match Dictionary::read(id, &bytes) {
                Ok(dictionary) => {
                    self.dictionaries.add(dictionary);
                    return self.go_on_with_dictionaries(now, out);
                }
                Err(text) => text,
            },
            Ok(reply) => panic!("a host answers in kind: a dictionary is not {reply:?}"),
            Err(error) if error.kind == StoreErrorKind::NotFound => format!("dictionary {id} is missing"),
            Err(error) => {
                return self.settle(Then::Exit(exit_of("read the replica", &error)), out);
            }
        };
        self.blame_dictionary(id, &text, out);
    }

    /// Goes around all files that name it, if others lead to the target.
    fn blame_dictionary(&mut self, id: DictionaryId, text: &str, out: &mut Actions) {
        let needs = |codec| codec == Codec::Zstd(Some(id));
        let files = self.files.iter().filter(|file| file.header.is_some_and(|header| needs(header.codec)));
        let objects: BTreeSet<Object> = files.map(|file| file.listed.object).collect();
        let first = objects.first().expect("a dictionary is read because a file names it");
        let text: String = match objects.len() {
            1 => format!("{text}, and {first} was compressed with it"),
            n => format!("{text}, and {n} files were compressed with it, the first of them {first}"),
        };
        let reason = format!("needs dictionary {id}");
        self.excluded.extend(objects.iter().map(|object| (*object, reason.clone())));
        let usable = self.inventory.without(|it| self.excluded.contains_key(&it.object));
        let target = self.target.expect("files are read on the way to a target");
        if plan(&usable, Target::At(target)).is_err() {
            let hint = "put the dictionary back from a copy of the replica; no other files lead to this state, \
                        -txid restores another";
            return self.settle(Then::Exit(Exit::Corrupt { error: text, hint: hint.into() }), out);
        }
        let text = format!("{text}; going around by other files");
        out.notify(Severity::Warn, Fact::Remark { text });
        self.settle(Then::Plan, out);
    }
}
