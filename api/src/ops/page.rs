//! Pages of lists. A token is the place of the last that was shown, in the order of the list: what comes or goes meanwhile
//! moves nothing else.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    error::{ApiError, Code, Result},
    ops::list::check_page_size,
};

/// Which page a door was asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) page_size: Option<i64>,
    pub(crate) page_token: Option<String>,
}

/// What is to be read for a page.
#[derive(Debug)]
pub(crate) struct Wanted<P> {
    size: usize,
    /// The place after which it begins.
    pub(crate) after: Option<P>,
}

/// A page, and the token of the next one.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

impl Asked {
    /// What a link to the next page repeats.
    pub(crate) fn repeated(&self) -> Option<(&'static str, String)> {
        self.page_size.map(|size| ("page_size", size.to_string()))
    }

    /// Says what is to be read.
    pub(crate) fn check<P: FromStr>(self) -> Result<Wanted<P>> {
        Ok(Wanted {
            size: check_page_size(self.page_size)?,
            after: self.page_token.map(|token| parse_token(&token)).transpose()?,
        })
    }
}

impl<P> Wanted<P> {
    /// How many are to be read: one more tells whether there is a next page.
    pub(crate) fn count(&self) -> usize {
        self.size + 1
    }

    /// The page of what was read.
    pub(crate) fn page<T>(&self, found: Vec<T>, place: impl Fn(&T) -> String) -> Page<T> {
        self.page_of_part(found, false, place)
    }

    /// As [`Self::page`], where what was read may end before the list does.
    pub(crate) fn page_of_part<T>(
        &self,
        mut items: Vec<T>,
        is_part: bool,
        place: impl Fn(&T) -> String,
    ) -> Page<T> {
        let more = is_part || items.len() > self.size;
        items.truncate(self.size);
        let last = items.last().filter(|_| more);
        Page {
            next: last.map(|last| URL_SAFE_NO_PAD.encode(place(last))),
            items,
        }
    }
}

fn parse_token<P: FromStr>(token: &str) -> Result<P> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let place = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    place.ok_or_else(bad_token)
}

/// It is no token that was given.
pub(crate) fn bad_token() -> ApiError {
    let detail = "must be a next_page_token as it was given";
    ApiError::at(Code::InvalidPageToken, "/page_token", detail)
}

#[cfg(test)]
mod tests {
    use forebay_core::{OperationId, ScheduleName};

    use super::*;

    fn wanted<P: FromStr>(token: &str) -> Result<Wanted<P>> {
        let asked = Asked {
            page_size: Some(2),
            page_token: Some(token.to_owned()),
        };
        asked.check()
    }

    #[test]
    fn a_page_leads_to_the_next_and_the_last_to_none() {
        let first = Asked::default().check::<ScheduleName>().unwrap();
        assert_eq!((first.count(), first.after.is_none()), (51, true));
        let wanted = wanted::<ScheduleName>(&URL_SAFE_NO_PAD.encode("nightly.report")).unwrap();
        assert_eq!(
            wanted.after.as_ref().map(ScheduleName::as_str),
            Some("nightly.report")
        );
        let page = wanted.page(vec!["a", "b", "c"], |name| (*name).to_owned());
        assert_eq!(
            (page.items, page.next),
            (vec!["a", "b"], Some(URL_SAFE_NO_PAD.encode("b")))
        );
        assert_eq!(wanted.page(vec!["a", "b"], |name| (*name).to_owned()).next, None);
        let part = wanted.page_of_part(vec!["a"], true, |name| (*name).to_owned());
        assert_eq!(part.next, Some(URL_SAFE_NO_PAD.encode("a")));
        assert_eq!(
            wanted
                .page_of_part(vec![], true, |name: &&str| (*name).to_owned())
                .next,
            None
        );
    }

    #[test]
    fn a_page_token_is_one_that_was_given() {
        for bad in [
            "",
            "!",
            "A",
            &URL_SAFE_NO_PAD.encode("Not A Name"),
            &URL_SAFE_NO_PAD.encode([0xff]),
        ] {
            assert_eq!(
                wanted::<ScheduleName>(bad).unwrap_err().code,
                Code::InvalidPageToken,
                "{bad:?}"
            );
            assert_eq!(
                wanted::<OperationId>(bad).unwrap_err().code,
                Code::InvalidPageToken,
                "{bad:?}"
            );
        }
    }
}
