//! Step 5: a limit for calls, and permits that come back whatever happens.

use http::StatusCode;
use kata_lab::{
    Instance, Judged, Lab, Pending, Promise,
    fakes::{Request, Trap},
};
use serde_json::json;

use super::shop::{LAST_RESORT, all_quiet, answers, arrived, early_answers, idle};

/// For each permit so many callers.
const CROWD: usize = 3;

/// The callers of one scene, whose calls a trap holds.
struct Scene {
    limit: usize,
    trap: Trap,
    callers: Vec<Pending>,
}

impl Scene {
    /// Callers for things that nobody else asks for.
    fn of(lab: &Lab, at: &Instance, callers: usize) -> Self {
        let limit = lab.number("FETCH_LIMIT") as usize;
        let prefix = lab.id("thing");
        let path = format!("/things/{prefix}.");
        let is_ours = move |request: &Request| request.path().starts_with(&path);
        let trap = lab.slow_service().trap(is_ours);
        let callers = (1..=callers)
            .map(|number| {
                let body = json!({ "id": format!("{prefix}.{number}") });
                let actor = format!("caller {number}");
                at.post("/fetches").json(&body).actor(actor).spawn()
            })
            .collect();
        Self {
            limit,
            trap,
            callers,
        }
    }

    /// So many calls as there are permits, and no more.
    async fn fills_the_limit(&mut self, lab: &Lab, at: &Instance, promise: &Promise) -> Judged {
        let arrived = arrived(lab, at, self.limit, || self.trap.waiting()).await?;
        let early = early_answers(&mut self.callers).await?;
        promise.holds(
            arrived >= self.limit,
            format!("{arrived} calls, and no more came{early}"),
        )?;
        all_quiet(at).await?;
        let calls = self.trap.waiting();
        promise.holds(calls == self.limit, format!("{calls} calls at once"))
    }

    /// All are let go, and all are answered.
    async fn all_are_served(mut self, promise: &Promise) -> Judged {
        drop(self.trap);
        for reply in answers(&mut self.callers, promise).await? {
            promise.holds(reply.status == StatusCode::OK, reply.to_string())?;
        }
        Ok(())
    }
}

/// Of three times as many callers as there are permits, so many call as there are permits.
pub async fn limits_its_calls(lab: Lab) -> Judged {
    let program = lab.start().await?;
    idle(&lab).await?;
    let limit = lab.number("FETCH_LIMIT") as usize;
    let crowd = CROWD * limit;
    let promise = Promise::new(
        format!("{crowd} × POST /fetches at once; the slow service held the calls"),
        format!("{limit} calls at once, never more; and 200 for all when they are let go"),
    );
    let mut scene = Scene::of(&lab, &program, crowd);
    scene.fills_the_limit(&lab, &program, &promise).await?;
    scene.all_are_served(&promise).await
}

/// Callers hang up, in the call and in the line, and calls fail; then there are as many permits as
/// before.
pub async fn gets_every_permit_back(lab: Lab) -> Judged {
    const HANG_UPS: usize = 3;
    let program = lab.start().await?;
    idle(&lab).await?;
    let limit = lab.number("FETCH_LIMIT") as usize;
    let crowd = CROWD * limit;
    let again = format!("then {limit} calls at once for {crowd} new callers, and 200 for all");
    for _ in 0..HANG_UPS {
        let promise = Promise::new(
            format!(
                "{crowd} × POST /fetches at once; the slow service held the calls; all callers hung up; the calls were let go; {crowd} × POST /fetches again"
            ),
            &again,
        );
        let mut scene = Scene::of(&lab, &program, crowd);
        arrived(&lab, &program, limit, || scene.trap.waiting()).await?;
        early_answers(&mut scene.callers).await?;
        hang_up(&lab, &program, scene).await?;
        let mut scene = Scene::of(&lab, &program, crowd);
        scene.fills_the_limit(&lab, &program, &promise).await?;
        scene.all_are_served(&promise).await?;
    }
    let promise = Promise::new(
        format!(
            "{limit} × POST /fetches at once; the slow service failed each, half with 500 and half with a broken connection; then {crowd} × POST /fetches"
        ),
        &again,
    );
    let mut scene = Scene::of(&lab, &program, limit);
    arrived(&lab, &program, limit, || scene.trap.waiting()).await?;
    fail(&scene.trap, limit);
    drop(scene.trap);
    // What they are told is another promise.
    answers(&mut scene.callers, &promise).await?;
    let mut scene = Scene::of(&lab, &program, crowd);
    scene.fills_the_limit(&lab, &program, &promise).await?;
    scene.all_are_served(&promise).await
}

/// All callers go. While they do nothing is counted: some runtimes cancel the calls then, others
/// go on with them, and both are right.
async fn hang_up(lab: &Lab, at: &Instance, scene: Scene) -> Judged {
    let Scene { trap, callers, .. } = scene;
    lab.note("all callers hang up");
    drop(callers);
    let mut held = Vec::new();
    while let Some(caught) = trap.try_caught() {
        held.push(caught);
    }
    let all = held.len();
    let gone = || held.iter().filter(|caught| !caught.is_open()).count();
    arrived(lab, at, all, gone).await?;
    lab.note("the slow service lets go");
    drop((held, trap));
    // Those in the line may still call, one after the other.
    all_quiet(at).await?;
    let nobody_calls = || std::future::ready(lab.slow_service().open_calls() == 0);
    lab.until(LAST_RESORT, nobody_calls).await;
    Ok(())
}

fn fail(trap: &Trap, calls: usize) {
    for number in 0..calls {
        match trap.try_caught() {
            None => {}
            Some(caught) if number % 2 == 0 => caught.refuse(StatusCode::INTERNAL_SERVER_ERROR),
            Some(caught) => caught.break_connection(),
        }
    }
}

/// A call that fails is a 502, and no 200.
pub async fn passes_a_failure_on(lab: Lab) -> Judged {
    let program = lab.start().await?;
    idle(&lab).await?;
    for outcome in ["500", "a broken connection"] {
        let promise = Promise::new(
            format!("POST /fetches; the slow service answered with {outcome}"),
            "502",
        );
        let mut scene = Scene::of(&lab, &program, 1);
        let calls = arrived(&lab, &program, 1, || scene.trap.waiting()).await?;
        let early = early_answers(&mut scene.callers).await?;
        promise.holds(
            calls == 1,
            format!("{calls} calls to the slow service{early}"),
        )?;
        match scene.trap.try_caught() {
            Some(caught) if outcome == "500" => caught.refuse(StatusCode::INTERNAL_SERVER_ERROR),
            Some(caught) => caught.break_connection(),
            None => {}
        }
        drop(scene.trap);
        let reply = answers(&mut scene.callers, &promise).await?.remove(0);
        promise.holds(reply.status == StatusCode::BAD_GATEWAY, reply.to_string())?;
    }
    Ok(())
}
