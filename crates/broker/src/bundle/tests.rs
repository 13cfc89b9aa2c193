use std::collections::BTreeSet;

use forebay_core::{Json, TaskId, from_unix_micros};
use forebay_proto::wire as proto;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use super::*;

fn task(number: u32, payload_bytes: usize) -> Submission {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let text = format!("\"{}\"", "x".repeat(payload_bytes.saturating_sub(2)));
    Submission {
        id: TaskId::from_bytes(id),
        project: "default".parse().unwrap(),
        kind: "echo".parse().unwrap(),
        lane: "default.default".parse().unwrap(),
        payload: Json::parse(text.as_bytes()).unwrap(),
        tags: Vec::new(),
        run_at: number
            .is_multiple_of(3)
            .then(|| from_unix_micros(i64::from(number))),
        max_attempts: None,
        timeout: None,
        created_at: from_unix_micros(5),
        fingerprint: None,
        traceparent: None,
        terms: None,
    }
}

fn unpacked(bundles: &[Bundle]) -> Vec<Submission> {
    let messages = bundles
        .iter()
        .flat_map(|bundle| unpack("submit", bundle.body.clone()));
    messages
        .map(|message| match message {
            Ok(Message::Submission(task)) => task,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn many_go_together_up_to_the_bounds() {
    assert_eq!(pack(&[], 1_000), []);
    let small: Vec<_> = (0..2_500).map(|number| task(number, 10)).collect();
    let counts: Vec<_> = pack(&small, usize::MAX).iter().map(|it| it.count).collect();
    assert_eq!(counts, [TASKS_MAX, TASKS_MAX, 500]);
    let large = [task(1, 100), task(2, 5_000), task(3, 100), task(4, 100)];
    let bundles = pack(&large, 1_000);
    let counts: Vec<_> = bundles.iter().map(|it| it.count).collect();
    assert_eq!(counts, [1, 1, 2], "one above the bound goes alone");
    assert_eq!(unpacked(&bundles), large);
}

/// What version 0.1.0 wrote; a message may wait in the broker through an upgrade, so it is read for ever.
#[test]
fn a_bundle_has_the_bytes_it_always_had() {
    let written: String = pack(&[task(1, 4)], 1_000)[0]
        .body
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        written,
        "0a3b0a1000000001000000000000000000000000120764656661756c741a046563686f\
2207646566\
61756c742a0764656661756c743204227878225805"
    );
}

#[test]
fn payloads_are_slices_of_the_body() {
    let body = pack(&[task(1, 500)], 1_000).remove(0).body;
    let range = body.as_ptr_range();
    let unpacked = unpack("submit", body);
    let Ok(Message::Submission(task)) = &unpacked[0] else {
        panic!("{unpacked:?}");
    };
    assert!(range.contains(&task.payload.as_bytes().as_ptr()));
}

#[test]
fn a_bad_item_harms_no_neighbour() {
    let good = [task(1, 10), task(2, 10)].map(|task| wire::encode(&Message::Submission(task)));
    let bad = Bytes::from_static(b"\xff not ours");
    let tasks = vec![good[0].clone(), bad.clone(), good[1].clone(), Bytes::new()];
    let body = Bytes::from(proto::Submissions { tasks }.encode_to_vec());
    let unpacked = unpack("submit", body);
    assert_eq!(unpacked.len(), 4);
    assert_eq!(unpacked[0], Ok(Message::Submission(task(1, 10))));
    assert_eq!(unpacked[2], Ok(Message::Submission(task(2, 10))));
    for (place, expected) in [(1, bad), (3, Bytes::new())] {
        let undecodable = unpacked[place].as_ref().unwrap_err();
        assert_eq!(
            (&undecodable.body, undecodable.subject.as_str()),
            (&expected, "submit")
        );
    }
}

#[test]
fn what_is_no_bundle_is_one_undecodable_with_all_of_it() {
    for body in [&b"not ours"[..], b"", b"\x0a\x05abc"] {
        let body = Bytes::from_static(body);
        let unpacked = unpack("submit", body.clone());
        assert_eq!(unpacked.len(), 1, "{body:?}");
        assert_eq!(unpacked[0].as_ref().unwrap_err().body, body);
    }
}

fn token(text: &'static str) -> Token {
    Token(Bytes::from_static(text.as_bytes()))
}

#[test]
fn a_message_is_done_with_its_last_part() {
    let mut parts = Parts::default();
    let [a, b] = [token("a"), token("b")];
    parts.open(&a.0, 3);
    parts.open(&b.0, 1);
    assert!(parts.done(vec![a.clone()]).is_empty());
    assert_eq!(
        parts.done([a.clone(), b.clone(), a.clone()]),
        [b.0.clone(), a.0.clone()]
    );
    assert!(parts.is_empty());
    assert!(
        parts.done([a, b, token("never came")]).is_empty(),
        "answered twice"
    );
}

#[test]
fn a_message_is_given_back_once_and_is_never_done_after() {
    let mut parts = Parts::default();
    let a = token("a");
    parts.open(&a.0, 4);
    assert!(parts.done(vec![a.clone()]).is_empty());
    assert_eq!(parts.hand_back(vec![a.clone()]), std::slice::from_ref(&a.0));
    assert!(
        parts.hand_back(vec![a.clone()]).is_empty(),
        "it is on its way already"
    );
    assert!(
        parts.done(vec![a.clone()]).is_empty(),
        "it comes again as a whole"
    );
    assert!(parts.is_empty());
    assert!(parts.hand_back([a]).is_empty(), "nothing is known of it any more");
}

/// Redelivered while parts of the earlier delivery are open: mostly under a token of its own.
#[test]
fn a_redelivery_is_counted_by_itself() {
    let mut parts = Parts::default();
    let [first, second] = [token("a.1"), token("a.2")];
    parts.open(&first.0, 2);
    assert!(parts.done([first.clone()]).is_empty());
    parts.open(&second.0, 2);
    assert_eq!(parts.done([second.clone(), second.clone()]), [second.0]);
    assert_eq!(parts.done([first.clone()]), [first.0]);
}

/// Under the same token no answer of the earlier delivery may stand for a part of the later one.
#[test]
fn a_redelivery_under_the_same_token_waits_for_the_parts_of_both() {
    let mut parts = Parts::default();
    let a = token("a");
    parts.open(&a.0, 2);
    parts.open(&a.0, 2);
    assert!(parts.done(vec![a.clone(); 3]).is_empty());
    assert_eq!(parts.done(vec![a.clone()]), std::slice::from_ref(&a.0));
    parts.open(&a.0, 1);
    assert_eq!(parts.hand_back(vec![a.clone()]), std::slice::from_ref(&a.0));
    parts.open(&a.0, 1);
    assert_eq!(parts.done(vec![a.clone()]), [a.0]);
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked_in_order_and_within_the_bounds(
        sizes in vec(2_usize..600, 0..60),
        bytes_max in 1_usize..4_000,
    ) {
        let tasks: Vec<_> = (1..).zip(&sizes).map(|(number, &size)| task(number, size)).collect();
        let bundles = pack(&tasks, bytes_max);
        prop_assert_eq!(unpacked(&bundles), tasks);
        for bundle in &bundles {
            prop_assert!(bundle.count > 0);
            prop_assert!(bundle.body.len() <= bytes_max || bundle.count == 1);
        }
        for pair in bundles.windows(2) {
            let first = unpacked(&pair[1..])[0].clone();
            let alone = pack(&[first], usize::MAX)[0].body.len();
            prop_assert!(pair[0].body.len() + alone > bytes_max, "the first of the next would have fitted");
        }
    }

    /// However the answers to several messages are split and mixed: each message is told exactly once, as done when and
    /// only when its last part is done and none was handed back.
    #[test]
    fn every_split_of_answers_tells_each_message_once(
        sizes in vec(1_usize..8, 1..6),
        answers in vec((any::<prop::sample::Index>(), prop::bool::weighted(0.9)), 1..60),
        split in 1_usize..10,
    ) {
        let tokens: Vec<Token> = (0..sizes.len()).map(|n| Token(Bytes::from(vec![u8::try_from(n).unwrap()]))).collect();
        let mut parts = Parts::default();
        let mut left: Vec<usize> = sizes.clone();
        for (token, &count) in tokens.iter().zip(&sizes) {
            parts.open(&token.0, count);
        }
        let (mut done, mut back) = (BTreeSet::new(), BTreeSet::new());
        for chunk in answers.chunks(split) {
            for good in [true, false] {
                let mut said = Vec::new();
                for (index, _) in chunk.iter().filter(|(_, is_good)| *is_good == good) {
                    let message = index.index(tokens.len());
                    if left[message] > 0 {
                        left[message] -= 1;
                        said.push(message);
                    }
                }
                let answered = said.iter().map(|&message| tokens[message].clone());
                if good {
                    for message in parts.done(answered) {
                        let message = usize::from(message[0]);
                        prop_assert_eq!(left[message], 0);
                        prop_assert!(!back.contains(&message));
                        prop_assert!(done.insert(message));
                    }
                } else {
                    let given: BTreeSet<_> = parts.hand_back(answered).iter().map(|it| usize::from(it[0])).collect();
                    let expected: BTreeSet<_> = said.into_iter().filter(|it| !back.contains(it)).collect();
                    prop_assert_eq!(&given, &expected);
                    back.extend(given);
                }
            }
        }
        for (message, &left) in left.iter().enumerate() {
            prop_assert_eq!(done.contains(&message), left == 0 && !back.contains(&message));
        }
        prop_assert_eq!(parts.len(), left.iter().filter(|&&left| left > 0).count());
    }
}
