//! The computing: nothing but processor time.

use sha2::{Digest, Sha256};

use crate::contract::DigestOrder;

/// How many rounds are computed between two looks at whether somebody still wants the result.
const PATCH: u64 = 1_024;

/// SHA-256, first of the seed, then of the 32 bytes that came out, `rounds` times in all; `None`
/// if it was given up.
pub fn digest(order: &DigestOrder, mut given_up: impl FnMut() -> bool) -> Option<String> {
    let mut bytes = Sha256::digest(order.seed.as_bytes());
    for round in 1..order.rounds {
        if round % PATCH == 0 && given_up() {
            return None;
        }
        bytes = Sha256::digest(bytes);
    }
    Some(hex(&bytes))
}

/// Lower case, two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_contract_is_right() {
        let order = DigestOrder {
            seed: "a".to_owned(),
            rounds: 2,
        };
        assert_eq!(
            digest(&order, || false).as_deref(),
            Some("bf5d3affb73efd2ec6c36ad3112dd933efed63c4e1cbffcfa88e2759c144f2d8")
        );
    }
}
