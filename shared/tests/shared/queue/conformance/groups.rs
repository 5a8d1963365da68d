//! Groups: each sees everything, members share.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shared::queue::Message;

use super::lab::LIMIT;
use super::{Lab, list};
use crate::support::Outcome;

list![
    two_groups_see_everything_and_members_share,
    a_group_sees_what_came_before_it_only_if_that_is_declared,
];

async fn two_groups_see_everything_and_members_share(lab: &Lab) -> Outcome {
    let row = "groups";
    if !lab.can.groups {
        return Err(lab.declared(row, "show every message to several groups"));
    }
    let members = [lab.consumer_of("mail").await, lab.consumer_of("mail").await];
    let alone = lab.consumer_of("audit").await;
    let sent: Vec<_> = (0..60).map(|n| Message::new(format!("{n}"))).collect();
    lab.publish(&sent).await;
    let all: BTreeSet<_> = sent.iter().map(|message| message.id).collect();
    let lease = LIMIT * 2;

    let mut shares = [Vec::new(), Vec::new()];
    let deadline = Instant::now() + LIMIT;
    while shares.iter().map(Vec::len).sum::<usize>() < 60 {
        assert!(Instant::now() < deadline, "{shares:?}");
        for (member, share) in members.iter().zip(&mut shares) {
            let wait = Duration::from_millis(100);
            for delivery in member.receive(5, lease, wait).await.unwrap() {
                let _ = member.ack(&[delivery.receipt]).await.unwrap();
                share.push(delivery.message.id);
            }
        }
    }
    let shared: BTreeSet<_> = shares.iter().flatten().copied().collect();
    assert_eq!(shared, all, "together the members see each once");
    let came = lab.some(&alone, 60, lease).await;
    let seen: BTreeSet<_> = came.iter().map(|delivery| delivery.message.id).collect();
    assert_eq!(seen, all, "the other group sees each as well");
    lab.measured(row, "each sees all, members share");
    Ok(())
}

async fn a_group_sees_what_came_before_it_only_if_that_is_declared(lab: &Lab) -> Outcome {
    let row = "a new group sees the past";
    if !lab.can.groups {
        return Err(lab.declared(row, "have another group"));
    }
    // Of one key, since without one nobody promises which comes first.
    lab.publish(&[Message::new("before").key("k")]).await;
    let late = lab.consumer_of("late").await;
    lab.publish(&[Message::new("after").key("k")]).await;
    let first = lab.one(&late).await;
    let expected: &[u8] = match lab.can.groups_see_the_past {
        true => b"before",
        false => b"after",
    };
    assert_eq!(&first.message.payload[..], expected);
    lab.measured(
        row,
        if lab.can.groups_see_the_past {
            "yes"
        } else {
            "no"
        },
    );
    Ok(())
}
