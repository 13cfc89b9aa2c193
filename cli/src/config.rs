//! `forebay config`: what is in effect, and why.

use forebay_runtime::config::{Loaded, Setting};
use serde_json::{Map, Value, json};

use crate::{
    args::Config,
    client::print::{Printer, table},
    exit::{Code, Result},
};

pub(crate) fn run(args: &Config, loaded: &Loaded) -> Result<Code> {
    let mut out = Printer::new(args.json);
    if args.json {
        let settings: Map<String, Value> = loaded.settings.iter().map(as_json).collect();
        out.json(&settings)?;
        return Ok(Code::Done);
    }
    match &loaded.file {
        Some(path) => out.line(format_args!(
            "# {} with {} handlers",
            path.display(),
            loaded.handlers.len()
        ))?,
        None => out.line("# no forebay.toml")?,
    }
    let rows = loaded.settings.iter().map(|setting| {
        let value = setting.value.as_deref().unwrap_or("-");
        vec![setting.key.clone(), value.to_owned(), setting.source.to_string()]
    });
    for line in table(&["SETTING", "VALUE", "SOURCE"], rows) {
        out.line(line)?;
    }
    Ok(Code::Done)
}

fn as_json(setting: &Setting) -> (String, Value) {
    let value = json!({ "value": setting.value, "source": setting.source.to_string() });
    (setting.key.clone(), value)
}
