//! The database proxy: a [`Front`] for each instance of a program, which counts its round trips to
//! PostgreSQL and can hold, cut, silence and delay them.
//!
//! It sits on the wire, so it works for a program in any language, with any driver. It understands
//! the protocol's framing and nothing of SQL.
//!
//! *A round trip* begins with the first frame after the last Sync or Query, and ends with the
//! server's ReadyForQuery. The start of a session, authentication included, is one; a Sync alone, or a
//! statement that is only prepared, is none. A driver may take two where another takes one, and a
//! pool opens connections when it likes: so the number of round trips is found by going on until a
//! trap no longer springs, and it is never compared.

mod frame;
mod front;
mod gate;
mod reserve;
mod session;
mod statement;
mod trap;
mod trips;

pub use front::Front;
pub use gate::Upstream;
pub use reserve::Reserve;
pub use statement::Seen;
pub use trap::{Held, Point, RoundTrip, Trap, Unsprung};
