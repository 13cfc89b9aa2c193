use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn compiled(schema: &Value) -> Schema {
    Schema::compile(&schema.to_string()).unwrap_or_else(|faults| panic!("{schema}: {faults:?}"))
}

fn pointers(faults: &[Fault]) -> Vec<&str> {
    faults.iter().map(|fault| fault.pointer.as_str()).collect()
}

fn refused(schema: &str) -> Vec<Fault> {
    Schema::compile(schema).expect_err("it is no good")
}

/// On a thread as payloads are checked on.
fn on_its_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let threads = Threads::start(1, 1).unwrap();
    threads.run(job).unwrap().blocking_recv().unwrap()
}

fn invoice() -> Value {
    json!({
        "type": "object", "required": ["order", "lines"], "additionalProperties": false,
        "properties": {
            "order": {"type": "integer", "minimum": 1},
            "mail": {"type": "string", "format": "email"},
            "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/line"}},
        },
        "$defs": {"line": {"type": "object", "required": ["sku"], "properties": {"sku": {"pattern": "^[A-Z]{2}-[0-9]+$"}}}},
    })
}

#[test]
fn all_that_does_not_fit_is_named_and_none_of_it_shown() {
    let schema = compiled(&invoice());
    assert_eq!(schema.check(r#"{"order":1,"lines":[{"sku":"AB-1"}]}"#), Ok(()));
    let faults = schema
        .check(r#"{"order":"seven","mail":"nobody","lines":[{"sku":"AB-1"},{"sku":"secret"},{}],"more":1}"#)
        .unwrap_err();
    let mut at = pointers(&faults);
    at.sort_unstable();
    assert_eq!(at, ["", "/lines/1/sku", "/lines/2", "/mail", "/order"]);
    for fault in &faults {
        assert!(
            !fault.detail.contains("secret") && !fault.detail.contains("seven"),
            "{fault:?}"
        );
    }
    let many = format!(r#"{{"order":1,"lines":[{}]}}"#, vec!["{}"; 900].join(","));
    assert_eq!(schema.check(&many).unwrap_err().len(), FAULTS_MAX);
}

#[test]
fn both_drafts_are_known_and_others_are_not() {
    let seven = json!({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}],
        "additionalItems": false});
    assert!(compiled(&seven).check("[1]").is_ok());
    assert_eq!(pointers(&compiled(&seven).check("[1,2]").unwrap_err()), [""]);
    let latest = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{"type": "integer"}],
        "items": false});
    assert!(compiled(&latest).check("[1]").is_ok());
    assert!(compiled(&latest).check("[1,2]").is_err());
    assert!(compiled(&json!(true)).check("null").is_ok());
    let conditional = json!({"if": {"properties": {"a": {"const": 1}}, "required": ["a"]},
        "then": {"properties": {"b": true}}, "unevaluatedProperties": false});
    assert_eq!(compiled(&conditional).check(r#"{"a":1,"b":2}"#), Ok(()));
    assert!(compiled(&conditional).check(r#"{"a":2,"b":2}"#).is_err());
    assert!(compiled(&conditional).check(r#"{"a":1,"c":2}"#).is_err());
    for (schema, at) in [
        (
            r#"{"$schema":"http://json-schema.org/draft-04/schema#"}"#,
            "/$schema",
        ),
        (r#"{"$schema":7}"#, "/$schema"),
        ("[]", ""),
        ("{", ""),
    ] {
        assert_eq!(pointers(&refused(schema)), [at], "{schema}");
    }
}

#[test]
fn what_is_wrong_with_a_schema_is_named() {
    for (schema, at) in [
        (json!({"type": "text"}), vec!["/type"]),
        (
            json!({"properties": {"a": {"minimum": "1", "required": "b"}}}),
            vec!["/properties/a/minimum", "/properties/a/required"],
        ),
        (
            json!({"properties": {"a": {"$ref": "https://example.com/a.json"}}}),
            vec!["/properties/a/$ref"],
        ),
        (json!({"$ref": "file:///etc/passwd"}), vec!["/$ref"]),
        (json!({"$ref": "#/$defs/none"}), vec!["/$ref"]),
        (json!({"$ref": "#/default", "default": {}}), vec!["/$ref"]),
        (json!({"not": {"$id": "https://example.com/b"}}), vec!["/not/$id"]),
        (
            json!({"items": {"forebay:counted": false}}),
            vec!["/items/forebay:counted"],
        ),
    ] {
        let mut faults = refused(&schema.to_string());
        faults.sort_by(|one, other| one.pointer.cmp(&other.pointer));
        assert_eq!(pointers(&faults), at, "{schema}: {faults:?}");
    }
    let wrong_pattern = refused(r#"{"properties":{"a":{"pattern":"("}}}"#);
    assert!(
        wrong_pattern[0].detail.contains("pattern") || wrong_pattern[0].pointer.contains("pattern"),
        "{wrong_pattern:?}"
    );
}

#[test]
fn what_looks_ahead_in_a_pattern_is_refused_since_it_could_take_for_ever() {
    for pattern in ["^(?=a)b$", r"(a)\1"] {
        assert!(
            Schema::compile(&json!({"pattern": pattern}).to_string()).is_err(),
            "{pattern}"
        );
    }
    // An engine that tries all ways would be at this for years.
    let schema = compiled(&json!({"pattern": "^(a+)+$"}));
    let began = Instant::now();
    assert!(schema.check(&format!("\"{}b\"", "a".repeat(100_000))).is_err());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_schema_has_bounds() {
    let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(SCHEMA_BYTES_MAX));
    assert!(refused(&long)[0].detail.contains("65536"));
    let deep_counts = json!({"pattern": "(?:(?:a{100}){100}){100}"});
    assert!(refused(&deep_counts.to_string())[0].detail.contains("32 MiB"));
    // What is kept of each of its states for each of its groups.
    let groups = json!({"pattern": "(a)".repeat(2_000)});
    assert!(refused(&groups.to_string())[0].detail.contains("32 MiB"));
    let references = json!({"$defs": {"a": true}, "allOf": vec![json!({"$ref": "#/$defs/a"}); 201]});
    assert!(
        refused(&references.to_string())[0]
            .detail
            .contains("200 references")
    );
    let parts: serde_json::Map<String, Value> = (0..2_100).map(|n| (n.to_string(), json!({}))).collect();
    assert!(
        refused(&json!({"properties": parts}).to_string())[0]
            .detail
            .contains("2000 parts")
    );
    let patterns: serde_json::Map<String, Value> = (0..21).map(|n| (format!("^{n}$"), json!({}))).collect();
    assert!(
        refused(&json!({"patternProperties": patterns}).to_string())[0]
            .detail
            .contains("20 patterns")
    );
    let deep = format!("{}true{}", r#"{"not":"#.repeat(1_000), "}".repeat(1_000));
    assert!(refused(&deep)[0].detail.contains("is not JSON"));
}

/// Each with a text that fits and one that does not.
const EVERYDAY: [(&str, &str, &str); 25] = [
    ("^.{1,100}$", "Grüße an alle", ""),
    ("^.{0,1000}$", "", "two\nlines"),
    (r"^[\s\S]{1,4000}$", "two\nlines", ""),
    (r"^[\p{L} ]{1,100}$", "Zoë Müller", "R2D2"),
    (r"^[\p{L}'’ .-]{1,100}$", "Conan O’Brien", "R2D2"),
    (r"^\p{Lu}\p{Ll}{1,50}$", "Émile", "émile"),
    (r"^\S+$", "abc", "a c"),
    (r"^[^<>]{1,500}$", "a & b", "<b>"),
    (r"^[a-z0-9]+(?:-[a-z0-9]+)*$", "a-slug-2", "A slug"),
    ("^[a-z0-9-]{3,63}$", "my-bucket", "My bucket"),
    ("^[a-zA-Z_][a-zA-Z0-9_]{0,254}$", "snake_case", "9lives"),
    (
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        "0191c2e4-7b1a-7c3d-8e5f-0123456789ab",
        "0191",
    ),
    ("^[0-9A-HJKMNP-TV-Z]{26}$", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3"),
    (
        "^[0-9a-f]{64}$",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "9f86",
    ),
    ("^#(?:[0-9a-fA-F]{3}){1,2}$", "#ffcc00", "#ff"),
    (r"^\+[1-9]\d{1,14}$", "+4930123456", "030 123456"),
    (r"^\d{4}-\d{2}-\d{2}$", "2026-03-01", "1.3.2026"),
    (r"^\d{1,10}(\.\d{1,2})?$", "12.50", "12.505"),
    (
        "^(0|[1-9]\\d*)\\.(0|[1-9]\\d*)\\.(0|[1-9]\\d*)(?:-[0-9A-Za-z.-]+)?$",
        "1.2.3-rc.1",
        "v1.2",
    ),
    (
        r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)$",
        "192.0.2.1",
        "192.0.2.256",
    ),
    (r"^[\w.+-]+@[\w-]+\.[\w.-]+$", "cat@example.com", "cat at example"),
    (
        r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
        "cat+tag@mail.example.com",
        "cat@",
    ),
    (
        r"^https?:\/\/(www\.)?[-a-zA-Z0-9@:%._\+~#=]{1,256}\.[a-zA-Z0-9()]{1,6}\b([-a-zA-Z0-9()@:%_\+.~#?&//=]*)$",
        "https://example.com/a?b=c#d",
        "ftp://example.com",
    ),
    (
        r"^arn:aws:[a-z0-9-]+:[a-z0-9-]*:\d{12}:.{1,2048}$",
        "arn:aws:sqs:eu-west-1:123456789012:tasks",
        "arn:aws",
    ),
    (
        r"^[A-Z]{2}\d{2}[A-Z0-9]{11,30}$",
        "DE89370400440532013000",
        "DE89",
    ),
];

#[test]
fn everyday_patterns_are_taken() {
    for (pattern, fits, does_not) in EVERYDAY {
        let schema = compiled(&json!({"pattern": pattern}));
        assert_eq!(schema.check(&json!(fits).to_string()), Ok(()), "{pattern}");
        assert!(schema.check(&json!(does_not).to_string()).is_err(), "{pattern}");
        assert!(schema.bytes() < 33 * 1024 * 1024, "{pattern}: {}", schema.bytes());
    }
    // Many texts, none of which is long, are not too much for the largest.
    let names = json!(vec!["Zoë Müller"; 1_000]).to_string();
    assert_eq!(
        compiled(&json!({"items": {"pattern": EVERYDAY[3].0}})).check(&names),
        Ok(())
    );
}

/// In KiB, as docs/schemas.md has it.
#[test]
fn patterns_take_what_the_page_says() {
    for (pattern, said) in [
        ("^.{1,100}$", 740),
        (EVERYDAY[3].0, 28 * 1024),
        (r"^[\p{L} ]+$", 340),
    ] {
        let takes = compiled(&json!({"pattern": pattern})).bytes() / 1024;
        assert!(takes.abs_diff(said) <= said / 5, "{pattern}: {takes} KiB");
    }
}

#[test]
fn patterns_share_their_bound_and_are_counted_once() {
    let large = EVERYDAY[3].0;
    let names = json!({"properties": {"first": {"pattern": large}, "last": {"pattern": large}}});
    let one = compiled(&json!({"pattern": large})).bytes();
    assert!(compiled(&names).bytes() < one + 16 * 1024, "{one}");
    let two = json!({"properties": {"first": {"pattern": large}, "last": {"pattern": r"^[\p{L}-]{1,200}$"}}});
    let faults = refused(&two.to_string());
    assert_eq!(pointers(&faults), ["/properties/last/pattern"]);
    assert!(faults[0].detail.contains("32 MiB"), "{faults:?}");
    // What the refusal advises to say instead.
    let lean = json!({"pattern": r"^[\p{L} ]+$", "maxLength": 200});
    assert!(compiled(&lean).bytes() < 512 * 1024);
    assert!(
        compiled(&lean)
            .check(&json!("é".repeat(201)).to_string())
            .is_err()
    );
}

#[test]
fn formats_are_checked_but_for_patterns() {
    for (format, fits, does_not) in [
        ("date-time", "2026-03-01T12:00:00Z", "yesterday"),
        ("date", "2026-03-01", "2026-02-30"),
        ("time", "12:00:00Z", "noon"),
        ("duration", "P1DT2H", "1 day"),
        ("email", "cat@example.com", "cat"),
        ("hostname", "example.com", "-example-"),
        ("ipv4", "192.0.2.1", "192.0.2.256"),
        ("ipv6", "2001:db8::1", "2001::db8::1"),
        ("uri", "https://example.com/a?b", "example"),
        ("uri-reference", "/a?b", "\\\\"),
        ("iri", "https://exämple.com/ä", "ä ö"),
        ("uri-template", "https://example.com/{id}", "{id"),
        ("uuid", "0191c2e4-7b1a-7c3d-8e5f-0123456789ab", "0191"),
        ("json-pointer", "/a/0", "a/0"),
        ("relative-json-pointer", "1/a", "/a"),
    ] {
        let schema = compiled(&json!({"format": format}));
        assert_eq!(schema.check(&json!(fits).to_string()), Ok(()), "{format}");
        assert!(schema.check(&json!(does_not).to_string()).is_err(), "{format}");
    }
    for format in ["regex", "colour"] {
        assert_eq!(
            compiled(&json!({"format": format})).check("\"(\""),
            Ok(()),
            "{format}"
        );
    }
}

#[test]
fn options_that_are_tried_one_by_one_are_few() {
    let numbers: Vec<Value> = (0..101).map(|n| json!(n)).collect();
    let texts: Vec<Value> = (0..101).map(|n| json!(n.to_string())).collect();
    let mut mixed = numbers.clone();
    mixed[0] = json!("a");
    assert!(compiled(&json!({"enum": numbers})).check("100").is_ok());
    assert!(compiled(&json!({"enum": texts})).check("100").is_err());
    assert_eq!(pointers(&refused(&json!({"enum": mixed}).to_string())), ["/enum"]);
    mixed.pop();
    assert!(compiled(&json!({"enum": mixed})).check("99").is_ok());
}

/// What is wrong, and how long it took to say so.
fn checked_within(schema: Value, payload: String) -> (Vec<Fault>, Duration) {
    on_its_thread(move || {
        let schema = compiled(&schema);
        let began = Instant::now();
        (schema.check(&payload).unwrap_err(), began.elapsed())
    })
}

#[test]
fn faults_without_number_are_told_as_one() {
    let names: Vec<String> = (0..100).map(|n| format!("name{n}")).collect();
    let line = json!({"type": "object", "required": names});
    let items = json!({"type": "array", "items": line});
    let objects = format!("[{}]", vec!["{}"; 87_000].join(","));
    let below_a_long_name = format!(
        r#"{{"{}":[{}]}}"#,
        "n".repeat(100_000),
        vec!["{}"; 50_000].join(",")
    );
    let unexpected: Vec<String> = (0..20_000).map(|n| format!(r#""{n}":0"#)).collect();
    let many_ways = vec![json!({"required": ["a", "b", "c"]}); 500];
    for (schema, payload) in [
        (items.clone(), objects.clone()),
        (
            json!({"items": {"required": ["x".repeat(60_000)]}}),
            objects.clone(),
        ),
        (
            json!({"allOf": vec![json!({"items": false}); 900]}),
            objects.clone(),
        ),
        (
            json!({"additionalProperties": {"items": {"type": "string"}}}),
            below_a_long_name,
        ),
        (
            json!({"allOf": vec![json!({"additionalProperties": false}); 900]}),
            format!("{{{}}}", unexpected.join(",")),
        ),
        (json!({"anyOf": many_ways}), format!(r#"{{"x":{objects}}}"#)),
    ] {
        let (faults, took) = checked_within(schema.clone(), payload);
        let told = schema.to_string().chars().take(60).collect::<String>();
        assert!(took < Duration::from_secs(20), "{told}: {took:?}");
        assert_eq!(pointers(&faults), [""], "{told}: {:?}", faults.first());
        assert!(faults[0].detail.contains("kind"), "{told}: {faults:?}");
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let most = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(most < 1024 * 1024, "{most} KiB");
    }
    // Few enough are told one by one.
    let few = format!("[{}]", vec!["{}"; 100].join(","));
    assert_eq!(checked_within(items, few).0.len(), FAULTS_MAX);
}

/// Parts that fail, each of which is tried twice by the one before.
#[test]
fn what_fails_over_and_over_is_cut_off() {
    for ways in [
        |next: &Value| json!({"anyOf": [next, next]}),
        |next: &Value| json!({"oneOf": [next, next]}),
        |next: &Value| json!({"if": next, "else": next}),
    ] {
        let mut parts: serde_json::Map<String, Value> = (0..60)
            .map(|n| {
                (
                    n.to_string(),
                    ways(&json!({"$ref": format!("#/$defs/{}", n + 1)})),
                )
            })
            .collect();
        parts.insert("60".into(), json!({"type": "string"}));
        let schema = json!({"$ref": "#/$defs/0", "$defs": parts});
        let (faults, took) = checked_within(schema, "7".to_owned());
        assert!(!faults.is_empty());
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[test]
fn texts_and_patterns_take_what_they_are_long() {
    let fits = json!({"pattern": "(?:[a-z]{1,40}[0-9]){1,3}$"});
    let does_not = json!({"pattern": "(?:[a-z]{1,40}[0-9]){1,3}!$"});
    let all = vec![json!({"$ref": "#/$defs/a"}); 190];
    let text = format!("\"{}\"", "ab1".repeat(85_000));
    for schema in [
        json!({"$defs": {"a": fits}, "allOf": all}),
        json!({"$defs": {"a": does_not}, "anyOf": all}),
    ] {
        let (faults, took) = checked_within(schema, text.clone());
        assert!(faults[0].detail.contains("takes too long"), "{faults:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    assert_eq!(
        compiled(&json!({"pattern": "1$", "maxLength": 300_000})).check(&text),
        Ok(())
    );
    // A name of a payload may be as long as a text.
    let names = json!({"$defs": {"a": {"patternProperties": {"^.{1,100}x": true}}}, "allOf": all});
    let (faults, took) = checked_within(names, format!("{{{text}:1}}"));
    assert!(faults[0].detail.contains("takes too long"), "{faults:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// Where the first decides and all are told of, where one would do, and where none may be.
#[test]
fn what_fails_is_counted_too() {
    let does_not = json!({"pattern": "(?:[a-z]{1,40}[0-9]){1,3}!$"});
    let text = "ab1".repeat(85_000);
    let texts = json!(vec![&text; 100]).to_string();
    let names = json!(vec![json!({&text: 1}); 100]).to_string();
    let no_such_name = json!({"patternProperties": {"^.{1,100}x": true}, "additionalProperties": false});
    for (schema, payload, said) in [
        (
            json!({"items": does_not}),
            &texts,
            "in more places than can be told",
        ),
        (json!({"contains": does_not}), &texts, "takes too long"),
        (json!({"items": {"not": does_not}}), &texts, "takes too long"),
        (json!({"items": {"not": no_such_name}}), &names, "takes too long"),
    ] {
        let (faults, took) = checked_within(schema.clone(), payload.clone());
        assert!(faults[0].detail.contains(said), "{schema}: {faults:?}");
        assert!(took < Duration::from_secs(20), "{schema}: {took:?}");
    }
}

/// What a part is counted by leaves all in its place.
#[test]
fn references_into_parts_that_may_fail_lead_there() {
    let schema = compiled(&json!({
        "$defs": {"a": {"allOf": [{"minimum": 3}], "anyOf": [{"type": "integer"}, {"pattern": "^a"}],
            "if": {"type": "object", "properties": {"b": {"const": 1}}}, "then": false, "pattern": "z$"}},
        "prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a/anyOf/1"}, {"$ref": "#/$defs/a/allOf/0"},
            {"$ref": "#/$defs/a/if/properties/b"}],
    }));
    assert_eq!(schema.check(r#"["abz","ab",3,1]"#), Ok(()));
    for (payload, at) in [
        (r#"["ab"]"#, "/0"),
        (r#"["bz"]"#, "/0"),
        (r#"[{"b":1}]"#, "/0"),
        (r#"[3,"b"]"#, "/1"),
        (r#"[3,"a",2]"#, "/2"),
        (r#"[3,"a",3,2]"#, "/3"),
    ] {
        let faults = schema.check(payload).unwrap_err();
        assert!(
            faults.iter().all(|fault| fault.pointer == at),
            "{payload}: {faults:?}"
        );
    }
    let faults = schema.check(r#"["ab"]"#).unwrap_err();
    assert_eq!(faults[0].keyword, "pattern");
}

#[test]
fn names_of_a_payload_are_not_repeated_without_bound() {
    for schema in [
        json!({"additionalProperties": false}),
        json!({"unevaluatedProperties": false}),
        json!({"propertyNames": {"maxLength": 3}}),
        json!({"anyOf": [{"propertyNames": {"const": "a"}}, {"maxProperties": 0}]}),
    ] {
        let faults = compiled(&schema).check(r#"{"secret":1}"#).unwrap_err();
        assert!(!faults[0].detail.contains("secret"), "{schema}: {faults:?}");
    }
    let deep = format!(r#"{{"{}":7}}"#, "é".repeat(1_000));
    let faults = compiled(&json!({"additionalProperties": {"type": "string"}}))
        .check(&deep)
        .unwrap_err();
    assert_eq!(faults[0].pointer.chars().count(), POINTER_CHARS_MAX + 1);
    assert_eq!(faults[0].keyword, "type");
}

#[test]
fn references_in_circles_end() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {
            "a": {"$ref": "#/definitions/b"}, "b": {"$ref": "#/definitions/a"}}, "$ref": "#/definitions/a"}),
    ] {
        let text = schema.to_string();
        // Whether it fits says nothing: that it is decided is what counts.
        let decided = on_its_thread(move || {
            Schema::compile(&text)
                .map(|schema| schema.check("{}").is_ok())
                .is_ok()
        });
        assert!(decided, "{schema}");
    }
}

/// The deepest payload, against a part that has two ways to say the same.
#[test]
fn a_schema_that_doubles_the_work_with_each_level_is_cut_off() {
    let twice = json!({"anyOf": [{"properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["y"]},
        {"properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["z"]}]});
    let schema = json!({"$ref": "#/$defs/a", "$defs": {"a": twice}});
    let payload = format!("{}{{}}{}", r#"{"y":1,"z":1,"x":"#.repeat(99), "}".repeat(99));
    let (faults, took) = on_its_thread(move || {
        let schema = compiled(&schema);
        let began = Instant::now();
        (schema.check(&payload), began.elapsed())
    });
    assert!(faults.is_err());
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// As many references one after another as there may be, for each level of the deepest payload.
#[test]
fn the_longest_chain_of_references_fits_on_the_stack() {
    let mut parts: serde_json::Map<String, Value> = (0..198)
        .map(|n| {
            (
                n.to_string(),
                json!({"allOf": [{"$ref": format!("#/$defs/{}", n + 1)}]}),
            )
        })
        .collect();
    parts.insert(
        "198".into(),
        json!({"properties": {"x": {"$ref": "#/$defs/0"}}, "type": "object"}),
    );
    let schema = json!({"$ref": "#/$defs/0", "$defs": parts});
    let payload = format!("{}7{}", r#"{"x":"#.repeat(99), "}".repeat(99));
    let faults = on_its_thread(move || compiled(&schema).check(&payload)).unwrap_err();
    assert!(!faults.is_empty());
}

#[test]
fn a_panic_costs_no_thread_and_too_many_are_turned_away() {
    let threads = Threads::start(1, 1).unwrap();
    let panicked = threads.run(|| panic!("a test's")).unwrap();
    let _: Result<(), _> = panicked.blocking_recv();
    assert_eq!(threads.run(|| 7).unwrap().blocking_recv(), Ok(7));
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let (began, has_begun) = std::sync::mpsc::channel();
    let first = threads.run(move || {
        began.send(()).unwrap();
        may_go_on.recv().unwrap();
    });
    let first = first.unwrap();
    has_begun.recv().unwrap();
    let second = threads.run(|| ()).unwrap();
    assert_eq!(threads.run(|| ()).unwrap_err(), Busy);
    go_on.send(()).unwrap();
    assert_eq!((first.blocking_recv(), second.blocking_recv()), (Ok(()), Ok(())));
}
