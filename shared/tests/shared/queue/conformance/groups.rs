//! Groups: each sees everything, members share.

use super::list;

list![];
