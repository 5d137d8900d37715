//! `docs/report.schema.json` describes what is written: nothing is missing in either.

use serde_json::{Value, json};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/report.schema.json")).unwrap()
}

/// The schema with unknown keys forbidden: readers must accept them, but the document of this version has none.
fn strict() -> Value {
    fn close(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(close);
                if fields.get("type") == Some(&json!("object")) && fields.contains_key("properties") {
                    fields.insert("additionalProperties".to_string(), json!(false));
                }
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut schema = schema();
    close(&mut schema);
    schema
}

fn complaints(schema: &Value, document: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(document).unwrap();
    let validator = jsonschema::validator_for(schema).unwrap();
    validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn every_document_is_as_the_schema_says() {
    let rendered = |document: &crate::Document| crate::render_json(document).unwrap();
    for (name, document) in [
        ("stored", include_str!("../../../testdata/quickstart/report.json").to_string()),
        ("sample", rendered(&crate::sample::sample())),
        ("large", rendered(&crate::sample::large(50))),
        (
            "empty",
            rendered(&crate::Document { schema_version: crate::SCHEMA_VERSION.to_owned(), ..Default::default() }),
        ),
    ] {
        assert_eq!(complaints(&strict(), &document), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_fresh_report_of_the_stored_recording_is_as_the_schema_says() {
    let document = crate::stored::document();
    assert_eq!(complaints(&strict(), &crate::render_json(&document).unwrap()), Vec::<String>::new());
}

#[test]
fn the_schema_refuses_what_is_wrong_and_allows_what_is_new() {
    let json = crate::render_json(&crate::sample::sample()).unwrap();
    let mut document: Value = serde_json::from_str(&json).unwrap();
    document["a_key_to_come"] = json!(1);
    assert_eq!(complaints(&schema(), &document.to_string()), Vec::<String>::new());
    document["findings"][0]["severity"] = json!("awful");
    document["overall"]["requests"] = Value::Null;
    document.as_object_mut().unwrap().remove("ledger");
    assert_eq!(complaints(&schema(), &document.to_string()).len(), 3);
}
