//! The scripts, each of which is one indivisible step of a queue. Redis runs them one at a time, so
//! what they do together nobody sees half done, nor does the append-only file hold half of it.

use std::sync::LazyLock;

use redis::{Cmd, Script};

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(include_str!("lua/common.lua"), include_str!($file)))
        });
    };
}

script!(DECLARE, "lua/declare.lua");
script!(PUBLISH, "lua/publish.lua");
script!(CLAIM, "lua/claim.lua");
script!(ACK, "lua/ack.lua");
script!(NACK, "lua/nack.lua");
script!(RELEASE, "lua/release.lua");
script!(BURY, "lua/bury.lua");
script!(REDRIVE, "lua/redrive.lua");
script!(LEAVE, "lua/leave.lua");
script!(DEPTH, "lua/depth.lua");
script!(CLEAR, "lua/clear.lua");

/// How many items one call takes: Lua's `unpack` puts them on a stack that ends at some 8,000, and
/// while a script runs nobody else is served.
pub(super) const CHUNK: usize = 500;

/// A call that still needs its arguments.
pub(super) fn call(script: &Script, base: &str) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(1).arg(base);
    command
}
