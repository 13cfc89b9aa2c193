//! Every accepted task is accounted for, and every millisecond of waiting is counted.

use std::time::Duration;

use crate::{
    fake::{Fake, Mischief},
    program::{Outcome, run},
};

async fn against(mischief: Mischief, arguments: &str) -> Outcome {
    let fake = Fake::start(mischief).await;
    run(&format!(
        "steady --rate 200 --duration 2s --drain 1s --url {} {arguments}",
        fake.url
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_its_promises_passes() {
    for transport in ["http", "ndjson"] {
        let outcome = against(
            Mischief::default(),
            &format!("--transport {transport} --arrivals constant"),
        )
        .await;
        assert_eq!(outcome.code, 0, "{}{}", outcome.printed, outcome.complaints);
        assert_eq!(outcome.count("/account/accepted"), 400);
        assert_eq!(outcome.count("/account/succeeded"), 400);
        assert_eq!(outcome.report["account"]["holds"], true);
        assert_eq!(outcome.count("/account/strangers"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_task_is_found() {
    let lose = Mischief {
        lose: Some(17),
        ..Mischief::default()
    };
    for transport in ["http", "ndjson"] {
        let outcome = against(lose.clone(), &format!("--transport {transport}")).await;
        assert_eq!(outcome.code, 1, "{}", outcome.printed);
        assert_eq!(outcome.count("/account/lost"), 1);
        assert_eq!(
            outcome.count("/account/accepted"),
            outcome.count("/account/succeeded") + 1
        );
        assert!(
            outcome.printed.contains("Accepted tasks were lost"),
            "{}",
            outcome.printed
        );
        assert_eq!(outcome.report["account"]["examples"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_given_twice_is_found() {
    let double = Mischief {
        double: Some(20),
        ..Mischief::default()
    };
    let outcome = against(double, "").await;
    assert_eq!(outcome.code, 1, "{}", outcome.printed);
    assert_eq!(outcome.count("/account/answered_twice"), 1);
    assert_eq!(outcome.count("/account/lost"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_execution_is_found_unless_there_is_a_reason_for_it() {
    let twice = Mischief {
        execute_twice: Some(30),
        retry: Some(40),
        ..Mischief::default()
    };
    let outcome = against(twice, "").await;
    assert_eq!(outcome.code, 1, "{}", outcome.printed);
    assert_eq!(outcome.count("/account/executed_twice"), 1);
    assert_eq!(outcome.count("/account/restarted"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_never_ends_is_waited_for_only_so_long() {
    let never = Mischief {
        never_end: Some(3),
        ..Mischief::default()
    };
    let outcome = against(never, "").await;
    assert_eq!(outcome.code, 1, "{}", outcome.printed);
    assert_eq!(outcome.count("/account/unfinished"), 1);
    assert_eq!(outcome.count("/account/lost"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_no_errors_and_can_be_retried() {
    let refuse = Mischief {
        refuse_up_to: 50,
        ..Mischief::default()
    };
    for transport in ["http", "ndjson"] {
        let arguments = format!("--transport {transport} --arrivals constant");
        let outcome = against(refuse.clone(), &arguments).await;
        assert_eq!(outcome.code, 0, "{}", outcome.printed);
        assert_eq!(outcome.count("/summary/refused"), 50);
        assert_eq!(outcome.count("/summary/failed"), 0);
        assert_eq!(outcome.count("/summary/accepted"), 350);
        assert_eq!(outcome.count("/summary/reasons/429 overloaded"), 50);
        let outcome = against(refuse.clone(), &format!("{arguments} --retry")).await;
        assert_eq!(outcome.code, 0, "{}", outcome.printed);
        assert_eq!(outcome.count("/summary/refused"), 0);
        assert_eq!(outcome.count("/summary/retried"), 50);
        assert_eq!(outcome.count("/summary/accepted"), 400);
        // The time that the refused ones had to wait is theirs all the same: an eighth of all.
        assert!(
            outcome.number("/latency/percentiles_ms/p90") > 900.0,
            "{}",
            outcome.printed
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_shows_in_the_latency_of_all_that_were_due_meanwhile() {
    let stall = || Mischief {
        stall_after: Some(Duration::from_secs(1)),
        ..Mischief::default()
    };
    for transport in ["http", "ndjson"] {
        let fake = Fake::start(stall()).await;
        // A closed loop over 4 connections would have sent 4 tasks of 600 during the stall.
        let outcome = run(&format!(
            "steady --rate 200 --duration 3s --arrivals constant --connections 4 --transport {transport} --url {}",
            fake.url
        ))
        .await;
        assert_eq!(outcome.code, 0, "{}{}", outcome.printed, outcome.complaints);
        let at = |percentile: &str| outcome.number(&format!("/latency/percentiles_ms/{percentile}"));
        assert!(at("p99") > 900.0, "p99 {} ms", at("p99"));
        assert!(at("p90") > 550.0, "p90 {} ms", at("p90"));
        assert!(at("max") < 5_000.0, "max {} ms", at("max"));
        assert_eq!(outcome.count("/summary/accepted"), 600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_without_an_answer_is_no_loss_and_its_task_is_found() {
    let hang_up = Mischief {
        hang_up: Some(10),
        ..Mischief::default()
    };
    let outcome = against(hang_up, "").await;
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    assert_eq!(outcome.count("/summary/unanswered"), 1);
    assert_eq!(outcome.count("/account/strangers"), 1);
    assert!(
        outcome.printed.contains("1 submissions have no answer"),
        "{}",
        outcome.printed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_is_said_at_once() {
    let port = forebay_testkit::process::free_port().unwrap();
    let outcome = run(&format!("steady --url http://127.0.0.1:{port}")).await;
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.complaints.contains("there is no server at"),
        "{}",
        outcome.complaints
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_too_much_is_bounded_and_said() {
    let stall = Mischief {
        stall_after: Some(Duration::ZERO),
        ..Mischief::default()
    };
    let outcome = against(stall, "--in-flight-max 50 --connections 2").await;
    assert_eq!(outcome.code, 0, "{}{}", outcome.printed, outcome.complaints);
    assert!(outcome.count("/summary/held_back") > 0);
    assert!(outcome.number("/summary/behind_ms_max") > 500.0);
    assert!(
        outcome.printed.contains("The generator fell behind by"),
        "{}",
        outcome.printed
    );
}
