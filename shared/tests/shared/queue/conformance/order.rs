//! Order by key, with several consumers that prefetch and acknowledge in batches.

use super::list;

list![];
