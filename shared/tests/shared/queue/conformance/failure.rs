//! Failing: attempts, delays, dead letters, fencing.

use super::list;

list![];
