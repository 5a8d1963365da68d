//! What happens to a program at a point of its way while it places an order.

use kata_lab::{CrashPoint, FakePoint, Instance, Judged, Lab, Pending};

use super::customer::{Order, caught_from, over};

/// Sends an order, and strikes when it has come to the point given: a crash, or a cut. Returns the
/// request, whose client does not hang up; `None` if it ended first, and nothing was struck.
pub(super) async fn strike(
    stage: &Lab,
    program: &Instance,
    order: &Order,
    point: CrashPoint,
    blow: impl AsyncFnOnce() -> Judged,
) -> Judged<Option<Pending>> {
    let mut placing = None;
    match point {
        CrashPoint::Database(at) => {
            let to_its_end = async { over(placing.insert(order.place(program).spawn())).await };
            let Some(_held) = stage.hold(program, at, to_its_end).await? else {
                return Ok(None);
            };
            blow().await?;
        }
        CrashPoint::Fake(moment) => {
            let trap = stage.warehouse().trap_order(&order.order_id);
            let placing = placing.insert(order.place(program).spawn());
            let Some(held) = caught_from(trap.caught(), placing).await? else {
                return Ok(None);
            };
            if moment == FakePoint::Acted {
                held.act();
            }
            blow().await?;
            if moment == FakePoint::ActedLater {
                held.act();
            }
            held.break_connection();
        }
    }
    Ok(placing)
}
