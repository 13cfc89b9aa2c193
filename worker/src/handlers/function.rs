//! Handlers that are Rust functions.

use std::{future::Future, marker::PhantomData};

use async_trait::async_trait;
use forebay_core::{Json, Kind};
use serde::{Serialize, de::DeserializeOwned};

use super::{Execution, Handler, HandlerError, HandlerResult, HandlerSettings, Handlers, RegisterError};

/// A function as a handler: the payload is decoded for it, and its result encoded.
struct Function<F, I, O> {
    function: F,
    // Neither is held; functions of both are Send and Sync whatever they are.
    types: PhantomData<fn(I) -> O>,
}

#[async_trait]
impl<F, I, O, Fut> Handler for Function<F, I, O>
where
    F: Fn(I, Execution) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
{
    async fn run(&self, execution: Execution) -> HandlerResult {
        let input = serde_json::from_slice(execution.payload.as_bytes()).map_err(|e| {
            HandlerError::permanent(format_args!("the payload is not what the handler takes: {e}"))
        })?;
        let output = (self.function)(input, execution).await?;
        Json::of(&output).map_err(|e| HandlerError::permanent(format_args!("the result {e}")))
    }
}

impl Handlers {
    /// Adds a Rust function as the handler of `kind`, and returns the registry. It takes the payload as any type
    /// that serde can decode, and the [`Execution`]; a payload that does not fit fails the task for good. What it
    /// returns is encoded as the task's result.
    ///
    /// # Errors
    /// Where the kind is not a valid name, or has a handler already.
    pub fn function<I, O, F, Fut>(
        mut self,
        kind: &str,
        settings: HandlerSettings,
        function: F,
    ) -> Result<Self, RegisterError>
    where
        F: Fn(I, Execution) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
    {
        let kind: Kind = kind.parse().map_err(|source| RegisterError::InvalidKind {
            kind: kind.to_owned(),
            source,
        })?;
        let types = PhantomData;
        self.register(kind, settings, Function { function, types })?;
        Ok(self)
    }
}
