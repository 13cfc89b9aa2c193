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
        decode("park", unhex(SUBMISSION_0_1_0)),
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
    ] {
        assert_eq!(decode_signal(encode_signal(&signal)), Ok(signal));
    }
}
