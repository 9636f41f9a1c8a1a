//! The catalog: example definitions and the programs that they run, part of the binary. The programs are unpacked
//! into the data folder at each start; the definitions go into an empty store only, so that what was changed stays
//! so, and what was deleted too, as long as anything is left.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use actors::definition::{Definition, Kind};
use actors::query::Filter;
use actors::registry::{ImportOptions, PageRequest, Sort};
use actors::system::{Acting, System};
use anyhow::{Context, Result};

/// A file of `config/catalog`, by its name.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../config/catalog/", $name)))),*]
    };
}

const TOOLS: &[(&str, &str)] = files![
    "binary-increment-tool.json",
    "container-hello.json",
    "describe-numbers.json",
    "measure-json.json",
    "word-count.json",
];
const FUNCTIONS: &[(&str, &str)] = files!["text_statistics.json", "weather_lookup.json"];
const PROGRAMS: &[(&str, &str)] = files![
    "describe-numbers.py",
    "measure-json.wat",
    "text_statistics.py",
    "weather_lookup.py",
    "word-count.sh",
];

/// Unpacks the programs, and fills an empty store with the definitions.
///
/// # Errors
/// When the data folder cannot be written, or the registry does not answer.
pub async fn install(system: &System) -> Result<()> {
    for (name, text) in PROGRAMS {
        let path = system.folders().catalog.join(name);
        let unpacked = (|| {
            let mut options = std::fs::OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o755)
                .open(&path)?
                .write_all(text.as_bytes())
        })();
        unpacked.with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let acting = system.acting_for_itself();
    if !is_empty(&acting).await? {
        return Ok(());
    }
    for (kind, files) in [(Kind::Tool, TOOLS), (Kind::Function, FUNCTIONS)] {
        let parsed = files.iter().map(|(name, text)| {
            Definition::parse(kind, text).with_context(|| format!("config/catalog/{name}"))
        });
        let definitions = parsed.collect::<Result<Vec<_>>>()?;
        let imported = acting.import(kind, definitions, ImportOptions::default()).await?;
        for ((name, _), result) in files.iter().zip(imported) {
            result.with_context(|| format!("config/catalog/{name}"))?;
        }
    }
    tracing::info!(
        definitions = TOOLS.len() + FUNCTIONS.len(),
        "the store was empty, and has the catalog now"
    );
    Ok(())
}

async fn is_empty(acting: &Acting) -> Result<bool> {
    for kind in Kind::ALL {
        let all = Filter::parse(kind, &serde_json::json!({}))?;
        if !acting
            .query(kind, all, PageRequest { limit: 1, sort: Sort::default(), after: None })
            .await?
            .items
            .is_empty()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_catalog_is_part_of_the_binary() {
        // Of this checkout: what was compiled in may name another one that shares the target folder.
        let checkout = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
        let folder = std::path::Path::new(&checkout).join("config/catalog");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .expect("the catalog")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        let mut packed: Vec<&str> =
            [TOOLS, FUNCTIONS, PROGRAMS].concat().iter().map(|(name, _)| *name).collect();
        there.sort();
        packed.sort_unstable();
        assert_eq!(there, packed);
    }

    #[test]
    fn every_definition_of_the_catalog_is_valid_and_its_program_is_there() {
        for (kind, files) in [(Kind::Tool, TOOLS), (Kind::Function, FUNCTIONS)] {
            for (name, text) in files {
                let definition =
                    Definition::parse(kind, text).unwrap_or_else(|error| panic!("{name}: {error}"));
                let metadata: serde_json::Value = serde_json::from_str(&definition.metadata).expect("JSON");
                if let Some(source) = metadata["source_url"].as_str() {
                    assert!(PROGRAMS.iter().any(|(program, _)| *program == source), "{name} runs {source}");
                }
            }
        }
    }
}
