//! Schedules: tasks by the clock.

use reqwest::Method;
use serde::Deserialize;

use crate::{Client, NewSchedule, Result, Schedule};

/// How many schedules are fetched at once.
const PAGE_SIZE: &str = "200";

#[derive(Debug, Deserialize)]
struct Page {
    schedules: Vec<Schedule>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl Client {
    /// Makes a schedule, or replaces the one of that name; to put the same again changes nothing, so it is tried a few
    /// times where the server can't be reached. Returns it as it is now.
    ///
    /// # Errors
    /// Where the server refused it or can't be reached.
    pub async fn put_schedule(&self, name: &str, schedule: &NewSchedule) -> Result<Schedule> {
        let url = self.path(&["schedules", name]);
        self.json_again(self.at(Method::PUT, url).json(schedule)).await
    }

    /// Reads a schedule, with as many of its next ticks as `upcoming` says.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn schedule(&self, name: &str, upcoming: Option<u32>) -> Result<Schedule> {
        let mut url = self.path(&["schedules", name]);
        if let Some(count) = upcoming {
            url.query_pairs_mut().append_pair("upcoming", &count.to_string());
        }
        self.json_again(self.at(Method::GET, url)).await
    }

    /// All schedules, by name.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub async fn schedules(&self) -> Result<Vec<Schedule>> {
        let (mut all, mut token): (Vec<Schedule>, Option<String>) = (Vec::new(), None);
        loop {
            let mut url = self.path(&["schedules"]);
            url.query_pairs_mut().append_pair("page_size", PAGE_SIZE);
            if let Some(token) = &token {
                url.query_pairs_mut().append_pair("page_token", token);
            }
            let page: Page = self.json_again(self.at(Method::GET, url)).await?;
            all.extend(page.schedules);
            token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Deletes a schedule. The tasks that it has submitted stay.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn delete_schedule(&self, name: &str) -> Result<()> {
        let url = self.path(&["schedules", name]);
        self.answer(self.at(Method::DELETE, url)).await.map(drop)
    }
}
