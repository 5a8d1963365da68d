//! Which message a receipt stands for, and in which ownership of its partition.

use crate::queue::Receipt;

/// Offsets have 48 bits of a receipt's place, and the partition the rest: 2⁴⁸ messages in one
/// partition would take centuries.
const OFFSET_BITS: u32 = 48;

/// Which message, in which ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) epoch: i64,
    pub(super) offset: i64,
    pub(super) lease: i64,
}

impl Place {
    pub(super) fn receipt(self) -> Receipt {
        let place = (i64::from(self.partition) << OFFSET_BITS) | self.offset;
        Receipt::new(place, self.lease)
    }
}

/// Partition and offset.
pub(super) fn parts(receipt: &Receipt) -> (i32, i64) {
    let partition = i32::try_from(receipt.place() >> OFFSET_BITS).unwrap_or(-1);
    (partition, receipt.place() & ((1 << OFFSET_BITS) - 1))
}
