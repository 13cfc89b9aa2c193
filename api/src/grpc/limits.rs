//! `LimitService`: the twin of `http/limits.rs`.

use forebay_core::{LimitRequest, RateRequest};
use forebay_proto::v1::{self, limit_service_server::LimitService};
use forebay_store::{Limit, LimitUse};
use tonic::Request;

use crate::{
    App,
    error::{ApiError, Code},
    grpc::{
        call::{Answer, call},
        convert::{page, said, seconds, to_duration, to_timestamp},
    },
    layers::limit::Pool,
    ops::{self, limits::parse_name},
};

/// The service.
#[derive(Debug)]
pub(crate) struct Limits {
    app: App,
}

impl Limits {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }
}

/// A limit as a message.
fn limit(limit: &Limit, used: Option<LimitUse>) -> v1::Limit {
    let rule = &limit.rule;
    let spec = v1::LimitSpec {
        queue: rule.queue.as_ref().map(ToString::to_string).unwrap_or_default(),
        kind: rule.kind.as_ref().map(ToString::to_string).unwrap_or_default(),
        by_key: rule.by_key,
        concurrency: rule.concurrency,
        rate: rule.rate.map(|rate| v1::Rate {
            count: rate.count,
            per: to_duration(rate.per),
            burst: Some(rate.burst),
        }),
    };
    v1::Limit {
        name: rule.name.to_string(),
        spec: Some(spec),
        running: used.map(|used| used.running),
        waiting: used.map(|used| used.waiting),
        created_at: Some(to_timestamp(limit.created_at)),
        updated_at: Some(to_timestamp(limit.updated_at)),
    }
}

/// What a limit asks for.
fn asked(spec: v1::LimitSpec) -> LimitRequest {
    LimitRequest {
        queue: said(spec.queue),
        kind: said(spec.kind),
        by_key: spec.by_key,
        concurrency: spec.concurrency.map(i64::from),
        rate: spec.rate.map(|rate| RateRequest {
            count: rate.count.into(),
            per_seconds: rate.per.map_or(0.0, seconds),
            burst: rate.burst.map(i64::from),
        }),
    }
}

/// The fields at fault are fields of the spec here.
fn within_spec(mut error: ApiError) -> ApiError {
    if error.code == Code::InvalidRequest {
        for field in &mut error.errors {
            field.pointer.insert_str(0, "/spec");
        }
    }
    error
}

#[tonic::async_trait]
impl LimitService for Limits {
    async fn put_limit(&self, request: Request<v1::PutLimitRequest>) -> Answer<v1::PutLimitResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Changes, "PutLimit"), &metadata, async |_| {
            let name = parse_name(&message.name)?;
            let put = ops::limits::put(&self.app, name, asked(message.spec.unwrap_or_default())).await;
            let (put, created) = put.map_err(within_spec)?;
            Ok(v1::PutLimitResponse {
                limit: Some(limit(&put, None)),
                created,
            })
        })
        .await
    }

    async fn get_limit(&self, request: Request<v1::GetLimitRequest>) -> Answer<v1::GetLimitResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Reads, "GetLimit"), &metadata, async |_| {
            let (found, used) = ops::limits::get(&self.app, &parse_name(&message.name)?).await?;
            Ok(v1::GetLimitResponse {
                limit: Some(limit(&found, Some(used))),
            })
        })
        .await
    }

    async fn list_limits(&self, request: Request<v1::ListLimitsRequest>) -> Answer<v1::ListLimitsResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Reads, "ListLimits"), &metadata, async |_| {
            let asked = page(message.page_size, message.page_token);
            let listed = ops::limits::list(&self.app, asked).await?;
            Ok(v1::ListLimitsResponse {
                limits: listed.items.iter().map(|found| limit(found, None)).collect(),
                next_page_token: listed.next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn delete_limit(
        &self,
        request: Request<v1::DeleteLimitRequest>,
    ) -> Answer<v1::DeleteLimitResponse> {
        let (metadata, _, message) = request.into_parts();
        call(&self.app, (Pool::Changes, "DeleteLimit"), &metadata, async |_| {
            ops::limits::delete(&self.app, &parse_name(&message.name)?).await?;
            Ok(v1::DeleteLimitResponse {})
        })
        .await
    }
}
