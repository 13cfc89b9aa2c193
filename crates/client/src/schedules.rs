//! Schedules: tasks by the clock.

use reqwest::Method;
use serde::Deserialize;

use crate::{Client, NewSchedule, Result, Schedule};

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
        self.pages(&["schedules"], usize::MAX, |page: Page| {
            (page.schedules, page.next_page_token)
        })
        .await
    }

    /// Lets a schedule rest, or go on with its next tick, and leaves all else of it as it is. Returns it as it is now. Twice is as
    /// once, so it is tried a few times where the server can't be reached.
    ///
    /// # Errors
    /// Where there is none of this name, or the server can't be reached.
    pub async fn pause_schedule(&self, name: &str, paused: bool) -> Result<Schedule> {
        let verb = if paused { "pause" } else { "resume" };
        let url = self.path(&["schedules", name, verb]);
        self.json_again(self.at(Method::POST, url)).await
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
