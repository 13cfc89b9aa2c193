use forebay_core::Lane;
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;

use super::*;

fn submission() -> Submission {
    Submission {
        id: TaskId::from_bytes([1; 16]),
        project: "default".parse().unwrap(),
        kind: "invoice.created".parse().unwrap(),
        lane: "billing.high".parse().unwrap(),
        payload: Json::parse(br#"{"a":"\u0000\ud800"}"#).unwrap(),
        tags: vec!["x".into()],
        run_at: Some(from_unix_micros(1_800_000_000_000_001)),
        max_attempts: Some(3),
        timeout: Some(Duration::from_millis(1_500)),
        created_at: from_unix_micros(1_700_000_000_000_002),
        fingerprint: Some(Fingerprint([9; 16])),
        traceparent: TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        terms: None,
    }
}

/// What version 0.1.0 wrote; a message may wait in the broker through an upgrade, so it is read for ever.
const SUBMISSION_0_1_0: &str = "0a1001010101010101010101010101010101120764656661756c741a0f696e766f6963652e63726561746564220762696c6c\
696e672a046869676832147b2261223a225c75303030305c7564383030227d3a0178408180e2c4f2a29903480350dc0b5882\
80f9c0c1c482036210090909090909090909090909090909096a3730302d3462663932663335373762333464613661336365\
3932396430653065343733362d303066303637616130626139303262372d3031";

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|b| char::from(b).to_digit(16))
        .map(|d| u8::try_from(d).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn what_is_written_is_read_back() {
    for message in [
        Message::Submission(submission()),
        Message::Submission(Submission {
            run_at: None,
            max_attempts: None,
            timeout: None,
            fingerprint: None,
            traceparent: None,
            tags: Vec::new(),
            ..submission()
        }),
        Message::Ready(Ready {
            id: TaskId::from_bytes([2; 16]),
            kind: "echo".parse().unwrap(),
            lane: "default.low".parse().unwrap(),
            fence: 7,
            lost: 2,
        }),
    ] {
        assert_eq!(decode(message.verb(), encode(&message)), Ok(message));
    }
}

#[test]
fn a_submission_has_the_bytes_it_always_had() {
    let written: String = encode(&Message::Submission(submission()))
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(written, SUBMISSION_0_1_0.replace(char::is_whitespace, ""));
    assert_eq!(
        decode("submit", unhex(SUBMISSION_0_1_0)),
        Ok(Message::Submission(submission()))
    );
}

#[test]
fn what_is_not_ours_is_refused_with_the_field() {
    assert!(decode("submit", Bytes::from_static(b"\xff\xff")).is_err());
    assert!(
        decode("nonsense", Bytes::new())
            .unwrap_err()
            .to_string()
            .contains("nonsense")
    );
    let error = decode("ready", Bytes::new()).unwrap_err();
    assert!(error.to_string().contains("id"), "{error}");
}

#[test]
fn signals_are_read_back() {
    let event = TaskEvent {
        id: TaskId::from_bytes([3; 16]),
        kind: "echo".parse().unwrap(),
        queue: "default".parse().unwrap(),
        state: forebay_core::State::Running,
        attempt: 2,
        at: from_unix_micros(5),
    };
    for signal in [
        Signal::Events(vec![event]),
        Signal::Cancel(vec![TaskId::from_bytes([4; 16])]),
        Signal::Progress(vec![TaskId::from_bytes([5; 16]), TaskId::from_bytes([6; 16])]),
        Signal::QueuesChanged,
        Signal::Due,
    ] {
        assert_eq!(decode_signal(encode_signal(&signal)), Ok(signal));
    }
}

/// Processes of two versions listen to one another while one replaces the other.
#[test]
fn a_signal_of_a_later_version_says_nothing() {
    let later = Bytes::from_static(b"\x30\x01\x3a\x02hi");
    assert_eq!(decode_signal(later), Ok(Signal::Events(Vec::new())));
    assert_eq!(encode_signal(&Signal::QueuesChanged), b"\x18\x01"[..]);
    assert_eq!(encode_signal(&Signal::Due), b"\x28\x01"[..]);
}

fn generated_submission() -> impl Strategy<Value = wire::Submission> {
    let text = || "[a-z]{0,3}";
    (
        (
            vec(any::<u8>(), 0..20),
            text(),
            text(),
            text(),
            "(high|default|low|x|)",
            "[\\PC]{0,9}",
        ),
        (
            vec(text(), 0..3),
            option::of(any::<i64>()),
            option::of(any::<u32>()),
            option::of(any::<u64>()),
        ),
        (
            any::<i64>(),
            vec(any::<u8>(), 0..20),
            "(|00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01)",
            r#"(|\{\}|\{"limit_key":"(a|\\n)?"\}|\[)"#,
        ),
    )
        .prop_map(|(names, bounds, rest)| wire::Submission {
            id: names.0.into(),
            project: names.1,
            kind: names.2,
            queue: names.3,
            priority: names.4,
            payload: names.5.into(),
            tags: bounds.0,
            run_at_unix_micros: bounds.1,
            max_attempts: bounds.2,
            timeout_ms: bounds.3,
            created_at_unix_micros: rest.0,
            fingerprint: rest.1.into(),
            traceparent: rest.2,
            terms: rest.3,
        })
}

fn terms(name: &str, number: u32) -> Box<Terms> {
    Box::new(Terms {
        heartbeat_timeout: Some(Duration::from_millis(number.into())),
        limit_key: name.parse().ok(),
        notify: vec![name.parse().unwrap()],
        ..Terms::default()
    })
}

fn submissions() -> impl Strategy<Value = Submission> {
    let bounds = (
        option::of(0..i64::from(u32::MAX)),
        option::of(any::<u32>()),
        option::of(0..1_u64 << 50),
    );
    (
        any::<[u8; 16]>(),
        "[a-z]{1,3}",
        "(high|default|low)",
        vec("[\\PC]{0,9}", 0..3),
        bounds,
        option::of(any::<[u8; 16]>()),
    )
        .prop_map(|(id, name, priority, tags, bounds, fingerprint)| Submission {
            id: TaskId::from_bytes(id),
            project: name.parse().unwrap(),
            kind: name.parse().unwrap(),
            lane: Lane::new(name.parse().unwrap(), priority.parse().unwrap()),
            payload: Json::of(&tags).unwrap(),
            tags,
            run_at: bounds.0.map(from_unix_micros),
            max_attempts: bounds.1,
            timeout: bounds.2.map(Duration::from_millis),
            created_at: from_unix_micros(bounds.0.unwrap_or(0)),
            fingerprint: fingerprint.map(Fingerprint),
            traceparent: None,
            terms: bounds.1.map(|number| terms(&name, number)),
        })
}

proptest! {
    /// The generated code reads what is written here as the same message.
    #[test]
    fn the_bytes_are_those_of_the_generated_code(task in submissions()) {
        let body = encode(&Message::Submission(task.clone()));
        let generated = wire::Submission::decode(body.clone()).unwrap();
        prop_assert_eq!(generated.encode_to_vec(), body.to_vec());
        prop_assert_eq!(generated.kind, task.kind.as_str());
        prop_assert_eq!(generated.max_attempts, task.max_attempts);
        prop_assert_eq!(decode("submit", body), Ok(Message::Submission(task)));
    }

    /// What the generated code writes is read here as the same task, or refused because it is none.
    #[test]
    fn what_the_generated_code_writes_is_read(generated in generated_submission(), behind in vec(any::<u8>(), 0..3)) {
        let mut body = generated.encode_to_vec();
        body.extend(behind);
        let body = Bytes::from(body);
        let Ok(Message::Submission(task)) = decode("submit", body.clone()) else {
            return Ok(());
        };
        let generated = wire::Submission::decode(body).unwrap();
        prop_assert_eq!(task.id.as_uuid().as_bytes().to_vec(), generated.id.to_vec());
        prop_assert_eq!(task.kind.as_str(), generated.kind);
        prop_assert_eq!(task.lane.to_string(), format!("{}.{}", generated.queue, generated.priority));
        prop_assert_eq!(task.payload.to_bytes(), generated.payload);
        prop_assert_eq!(task.tags, generated.tags);
        prop_assert_eq!(task.max_attempts, generated.max_attempts);
        prop_assert_eq!(task.run_at, generated.run_at_unix_micros.map(from_unix_micros));
        prop_assert_eq!(task.timeout, generated.timeout_ms.map(Duration::from_millis));
    }

    #[test]
    fn no_bytes_are_a_panic(body in vec(any::<u8>(), 0..60)) {
        let body = Bytes::from(body);
        for verb in ["submit", "ready"] {
            let _ = decode(verb, body.clone());
        }
        prop_assert!(!crate::bundle::unpack("submit", body).is_empty());
    }
}
