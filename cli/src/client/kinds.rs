//! `forebay kinds`: what payloads must look like.

use std::{io::Read, path::Path};

use forebay_client::{Client, KindSchema, NewKindSchema};
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{
    connect, each,
    print::{Printer, table},
    show,
};
use crate::{
    args::{Kinds, KindsCommand, PutKind},
    exit::{Code, Failure, Result},
};

pub(crate) async fn kinds(args: Kinds) -> Result<Code> {
    let (client, mut out) = connect(&args.common)?;
    match args.command.unwrap_or(KindsCommand::List) {
        KindsCommand::List => list(&client, &mut out).await,
        KindsCommand::Get(args) => shown(&mut out, &client.schema(&args.kind, args.version).await?),
        KindsCommand::Put(args) => {
            let kept = client.put_schema(&args.kind, &new_schema(&args)?).await?;
            out.json_or(&kept, || {
                format!(
                    "{} has version {} of its schema ({})",
                    kept.kind, kept.version, kept.mode
                )
            })?;
            Ok(Code::Done)
        }
        KindsCommand::Delete(args) => {
            let delete = async |kind: &str| client.delete_schema(kind).await;
            let told = |kind: &str, ()| {
                let deleted = serde_json::json!({"kind": kind, "deleted": true});
                out.json_or(&deleted, || format!("{kind} has no schema any more"))
            };
            each(&args.kinds, delete, told).await
        }
    }
}

async fn list(client: &Client, out: &mut Printer) -> Result<Code> {
    let kinds = client.kinds().await?;
    let now = Timestamp::now();
    let rows = kinds.iter().map(|kept| {
        vec![
            kept.kind.clone(),
            kept.version.to_string(),
            kept.mode.clone(),
            show::ago(now, &kept.created_at),
        ]
    });
    let lines = table(&["KIND", "VERSION", "MODE", "REGISTERED"], rows);
    out.list(&kinds, lines, "no kind has a schema")
}

/// The schema as it was registered, so that it can be put again.
fn shown(out: &mut Printer, kept: &KindSchema) -> Result<Code> {
    out.json_or(kept, || {
        kept.schema
            .as_ref()
            .map_or_else(String::new, |schema| schema.get().to_owned())
    })?;
    Ok(Code::Done)
}

fn new_schema(args: &PutKind) -> Result<NewKindSchema> {
    let path = &args.schema;
    let text = match path == Path::new("-") {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(path),
    };
    let text =
        text.map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", path.display())))?;
    let schema: Box<RawValue> = serde_json::from_str(text.trim())
        .map_err(|error| Failure::usage(format_args!("{} is not JSON: {error}", path.display())))?;
    Ok(NewKindSchema {
        schema,
        mode: args.mode.map(|mode| mode.to_string()),
    })
}
