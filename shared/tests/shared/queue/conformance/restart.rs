//! What survives a restart of the broker.

use std::collections::BTreeSet;

use shared::queue::Message;

use super::lab::{GROUP, LIMIT};
use super::{Lab, list};
use crate::support::{End, Outcome};

list![what_was_published_survives_a_restart_of_the_broker,];

async fn what_was_published_survives_a_restart_of_the_broker(lab: &Lab) -> Outcome {
    let row = "a restart of the broker (killed)";
    let sent: Vec<_> = (0..100).map(|n| Message::new(format!("{n}"))).collect();
    lab.publish(&sent).await;
    let Some(restarted) = lab.fixture.restart().await else {
        lab.measured(row, "not measured");
        return Err(End::Skip("the broker is not ours to kill".to_owned()));
    };
    restarted?;
    let (_broker, queue) = lab.another().await;
    let consumer = queue.consumer(GROUP, &lab.options()).await.unwrap();
    let came = lab.some(&consumer, 100, LIMIT).await;
    let ids: BTreeSet<_> = came.iter().map(|delivery| delivery.message.id).collect();
    assert_eq!(ids.len(), 100, "each is there");
    lab.measured(row, "nothing lost");
    Ok(())
}
