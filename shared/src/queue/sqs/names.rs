//! What a group's queues are called: `QUEUE-GGROUP-Q.fifo` and `QUEUE-GGROUP-D.fifo`.
//!
//! SQS takes letters, digits, `-` and `_`, and names of the contract have no capital letters. So a
//! capital one separates, and no two pairs of names meet.

use crate::queue::QueueError;

/// SQS's limit, `.fifo` included.
const LONGEST: usize = 80;

const MAIN: &str = "-Q.fifo";
const DEAD: &str = "-D.fifo";

/// Where a group's messages are.
pub(super) fn main(queue: &str, group: &str) -> String {
    format!("{}{group}{MAIN}", prefix(queue))
}

/// Where its dead letters are.
pub(super) fn dead(queue: &str, group: &str) -> String {
    format!("{}{group}{DEAD}", prefix(queue))
}

/// How the names of all groups' queues begin.
pub(super) fn prefix(queue: &str) -> String {
    format!("{queue}-G")
}

/// The group whose messages are at this URL, if it is one of the queue's.
pub(super) fn group_at(queue: &str, url: &str) -> Option<String> {
    let name = url.rsplit('/').next()?;
    let group = name.strip_prefix(&prefix(queue))?.strip_suffix(MAIN)?;
    Some(group.to_owned())
}

/// Refuses what is too long.
pub(super) fn check(queue: &str, group: &str) -> Result<(), QueueError> {
    let longest = LONGEST - prefix("").len() - MAIN.len();
    if queue.len() + group.len() <= longest {
        return Ok(());
    }
    Err(QueueError::Invalid {
        what: format!("the queue {queue} with the group {group}"),
        reason: format!("SQS has room for {longest} letters of both names together"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_group_and_another_queues_none() {
        let url = format!("http://h/123/{}", main("orders", "mail-1"));
        assert_eq!(group_at("orders", &url).as_deref(), Some("mail-1"));
        assert_eq!(group_at("order", &url), None);
        let dead = format!("http://h/123/{}", dead("orders", "mail-1"));
        assert_eq!(group_at("orders", &dead), None);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let queue = "q".repeat(64);
        check(&queue, "g").unwrap();
        assert_eq!(main(&queue, "1234567").len(), LONGEST);
        check(&queue, "1234567").unwrap();
        let error = check(&queue, "12345678").unwrap_err().to_string();
        assert!(error.contains("71 letters"), "{error}");
    }
}
