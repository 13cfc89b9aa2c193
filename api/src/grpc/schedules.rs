//! `ScheduleService`: the twin of `http/schedules.rs`.

use forebay_core::{Overlap, Schedule, ScheduleRequest, ScheduledTask};
use forebay_proto::v1::{self, schedule_service_server::ScheduleService};
use tonic::Request;

use crate::{
    App,
    error::{ApiError, Code},
    grpc::{
        call::{Answer, call},
        convert::{self, said, seconds, to_duration, to_timestamp},
        terms::retry,
    },
    layers::limit::Pool,
    ops::{
        self,
        schedules::{Asked, UPCOMING, check_upcoming, parse_name, upcoming},
    },
};

/// The service.
#[derive(Debug)]
pub(crate) struct Schedules {
    app: App,
}

impl Schedules {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// A schedule as a message.
    fn schedule(&self, schedule: &Schedule, ticks: usize) -> v1::Schedule {
        let next = upcoming(&self.app, schedule, ticks).into_iter();
        let last_task = schedule.last_tick.map(|(_, task)| task.to_string());
        v1::Schedule {
            name: schedule.name.to_string(),
            spec: Some(spec(schedule)),
            next: next.map(to_timestamp).collect(),
            last_tick: schedule.last_tick.map(|(at, _)| to_timestamp(at)),
            last_task_id: last_task.unwrap_or_default(),
            created_at: Some(to_timestamp(schedule.created_at)),
            updated_at: Some(to_timestamp(schedule.updated_at)),
        }
    }
}

fn spec(schedule: &Schedule) -> v1::ScheduleSpec {
    v1::ScheduleSpec {
        cron: schedule.cron.to_string(),
        time_zone: schedule.time_zone.to_string(),
        task: Some(task(&schedule.task)),
        overlap: overlap(schedule.overlap).into(),
        catch_up: to_duration(schedule.catch_up),
        jitter: to_duration(schedule.jitter),
        paused: schedule.paused,
    }
}

/// What is submitted at each tick.
fn task(task: &ScheduledTask) -> v1::SubmitTaskRequest {
    // What else there is in terms is possible for a single task only.
    let terms = task.terms.as_deref();
    let limit_key = terms.and_then(|terms| terms.limit_key.as_ref());
    let notify = terms.map_or(&[][..], |terms| &terms.notify);
    v1::SubmitTaskRequest {
        kind: task.kind.to_string(),
        queue: task.lane.queue.to_string(),
        priority: task.lane.priority.to_string(),
        payload: task.payload.to_bytes(),
        tags: task.tags.clone(),
        when: None,
        max_attempts: task.max_attempts.and_then(|attempts| attempts.try_into().ok()),
        timeout: task.timeout.and_then(to_duration),
        idempotency_key: String::new(),
        project: task.project.to_string(),
        heartbeat_timeout: terms.and_then(|terms| terms.heartbeat_timeout.and_then(to_duration)),
        retry: terms.and_then(|terms| terms.retry.as_ref().map(retry)),
        limit_key: limit_key.map(ToString::to_string).unwrap_or_default(),
        notify: notify.iter().map(ToString::to_string).collect(),
        ..v1::SubmitTaskRequest::default()
    }
}

fn overlap(overlap: Overlap) -> v1::Overlap {
    match overlap {
        Overlap::Skip => v1::Overlap::Skip,
        Overlap::Queue => v1::Overlap::Queue,
        Overlap::Allow => v1::Overlap::Allow,
    }
}

/// The name of a policy, in the core's words; a number that names none is refused there.
fn overlap_asked(number: i32) -> Option<String> {
    let named = |policy: Overlap| Some(policy.as_str().to_owned());
    match v1::Overlap::try_from(number) {
        Ok(v1::Overlap::Unspecified) => None,
        Ok(v1::Overlap::Skip) => named(Overlap::Skip),
        Ok(v1::Overlap::Queue) => named(Overlap::Queue),
        Ok(v1::Overlap::Allow) => named(Overlap::Allow),
        Err(_) => Some(number.to_string()),
    }
}

/// What a schedule asks for.
fn asked(spec: v1::ScheduleSpec) -> Asked {
    let mut task = convert::asked(spec.task.unwrap_or_default(), None);
    let violations = Asked::task_violations(&mut task);
    let request = ScheduleRequest {
        cron: spec.cron,
        time_zone: said(spec.time_zone),
        task: task.request,
        overlap: overlap_asked(spec.overlap),
        catch_up_seconds: spec.catch_up.map(seconds),
        jitter_seconds: spec.jitter.map(seconds),
        paused: spec.paused,
    };
    Asked { request, violations }
}

/// The fields at fault are fields of the spec here.
fn within_spec(mut error: ApiError) -> ApiError {
    if matches!(error.code, Code::InvalidRequest | Code::PayloadTooLarge) {
        for field in &mut error.errors {
            field.pointer.insert_str(0, "/spec");
        }
    }
    error
}

#[tonic::async_trait]
impl ScheduleService for Schedules {
    async fn put_schedule(
        &self,
        request: Request<v1::PutScheduleRequest>,
    ) -> Answer<v1::PutScheduleResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Changes, "PutSchedule"), &metadata, async |_| {
            let name = parse_name(&message.name)?;
            let asked = asked(message.spec.unwrap_or_default());
            let put = ops::schedules::put(&self.app, name, asked).await;
            let (schedule, created) = put.map_err(within_spec)?;
            Ok(v1::PutScheduleResponse {
                schedule: Some(self.schedule(&schedule, UPCOMING)),
                created,
            })
        })
        .await
    }

    async fn get_schedule(
        &self,
        request: Request<v1::GetScheduleRequest>,
    ) -> Answer<v1::GetScheduleResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Reads, "GetSchedule"), &metadata, async |_| {
            let name = parse_name(&message.name)?;
            let ticks = check_upcoming(message.upcoming.map(i64::from))?;
            let schedule = ops::schedules::get(&self.app, &name).await?;
            Ok(v1::GetScheduleResponse {
                schedule: Some(self.schedule(&schedule, ticks)),
            })
        })
        .await
    }

    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Answer<v1::ListSchedulesResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Reads, "ListSchedules"), &metadata, async |_| {
            let asked = convert::page(message.page_size, message.page_token);
            let listed = ops::schedules::list(&self.app, asked).await?;
            let schedules = listed.items.iter();
            Ok(v1::ListSchedulesResponse {
                schedules: schedules
                    .map(|schedule| self.schedule(schedule, UPCOMING))
                    .collect(),
                next_page_token: listed.next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn pause_schedule(
        &self,
        request: Request<v1::PauseScheduleRequest>,
    ) -> Answer<v1::PauseScheduleResponse> {
        let (metadata, _, message) = request.into_parts();
        call(
            &self.app,
            (Pool::Changes, "PauseSchedule"),
            &metadata,
            async |_| {
                let name = parse_name(&message.name)?;
                let schedule = ops::schedules::set_paused(&self.app, &name, true).await?;
                Ok(v1::PauseScheduleResponse {
                    schedule: Some(self.schedule(&schedule, UPCOMING)),
                })
            },
        )
        .await
    }

    async fn resume_schedule(
        &self,
        request: Request<v1::ResumeScheduleRequest>,
    ) -> Answer<v1::ResumeScheduleResponse> {
        let (metadata, _, message) = request.into_parts();
        call(
            &self.app,
            (Pool::Changes, "ResumeSchedule"),
            &metadata,
            async |_| {
                let name = parse_name(&message.name)?;
                let schedule = ops::schedules::set_paused(&self.app, &name, false).await?;
                Ok(v1::ResumeScheduleResponse {
                    schedule: Some(self.schedule(&schedule, UPCOMING)),
                })
            },
        )
        .await
    }

    async fn delete_schedule(
        &self,
        request: Request<v1::DeleteScheduleRequest>,
    ) -> Answer<v1::DeleteScheduleResponse> {
        let (metadata, _, message) = request.into_parts();
        call(
            &self.app,
            (Pool::Changes, "DeleteSchedule"),
            &metadata,
            async |_| {
                ops::schedules::delete(&self.app, &parse_name(&message.name)?).await?;
                Ok(v1::DeleteScheduleResponse {})
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_no_policy_is_not_the_default() {
        assert_eq!(overlap_asked(0), None);
        assert_eq!(overlap_asked(3).as_deref(), Some("allow"));
        assert_eq!(overlap_asked(9).as_deref(), Some("9"));
    }

    #[test]
    fn fields_at_fault_are_those_of_the_spec() {
        let wrong = ApiError::at(Code::InvalidRequest, "/cron", "must be cron");
        assert_eq!(within_spec(wrong).errors[0].pointer, "/spec/cron");
        let name = ApiError::at(Code::InvalidParameter, "/name", "must be a name");
        assert_eq!(within_spec(name.clone()), name);
    }
}
