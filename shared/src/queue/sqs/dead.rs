//! Dead letters. SQS shows a queue's messages by handing them out: who looks at them hides them from
//! others for as long as it takes.

use std::time::Duration;

use super::api::Api;
use super::envelope::Incoming;
use crate::queue::{DeadLetter, QueueError};

/// Long enough to look at all; after a crash they are hidden so long.
const LOOK: Duration = Duration::from_secs(60);

/// All that can be seen, oldest first; hidden until `show` or the time is up.
pub(super) async fn look(api: &Api, url: &str) -> Result<Vec<Incoming>, QueueError> {
    let mut all: Vec<Incoming> = Vec::new();
    loop {
        // Waiting a second makes SQS ask all its servers, and not some.
        let wait_s = api.address.long_poll_s.min(1);
        let some = api.receive(url, 10, LOOK, wait_s).await;
        match some {
            Ok(some) if some.is_empty() => break,
            Ok(some) => all.extend(some),
            Err(error) => {
                show(api, url, &all).await?;
                return Err(error);
            }
        }
    }
    all.sort_by_key(|incoming| incoming.sent_at);
    Ok(all)
}

/// Lets others see them again.
pub(super) async fn show(api: &Api, url: &str, all: &[Incoming]) -> Result<(), QueueError> {
    let handles = all.iter().map(|incoming| (incoming.handle.clone(), 0));
    api.hide(url, &handles.collect::<Vec<_>>()).await?;
    Ok(())
}

/// As people see it.
pub(super) fn letter(incoming: Incoming) -> DeadLetter {
    let died_at = incoming.death.is_some().then_some(incoming.sent_at);
    let death = incoming.death;
    DeadLetter {
        id: incoming.message_id,
        attempts: death.as_ref().map(|death| death.attempts),
        reason: death.map_or_else(
            || "received again and again and never settled (SQS's redrive policy)".to_owned(),
            |death| death.reason,
        ),
        died_at,
        message: incoming.message,
    }
}
