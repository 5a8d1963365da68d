//! The database proxy: a front for each instance that counts round trips and can cut, hold and
//! silence them.
