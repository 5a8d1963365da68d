//! What is explored: three orders at once for one article of which there are two.

use std::{ops::DerefMut, sync::Arc};

use kata_01_concurrency::{
    contract::{Order, Refused, Stock},
    exercise,
    sync::Mutex,
    variants::stock::{self, Owner, Shelf},
};
use shuttle::future::{block_on, spawn, yield_now};

/// How a panic over a broken property begins.
pub(crate) const BROKEN: &str = "broken: ";

const PUT: u64 = 2;
const ORDERS: usize = 3;
const SKU: &str = "lamp";

/// A scene by its name.
pub(crate) fn named(name: &str) -> Option<fn()> {
    Some(match name {
        "naive" => || sum_is_right(naive()),
        "two-locks" => || sum_is_right(two_locks()),
        "two-messages" => || sum_is_right(two_messages()),
        "lock" => || sum_is_right(lock()),
        "worker" => || sum_is_right(worker()),
        "exercise-naive" => || exercises_property_holds(exercise_naive()),
        "exercise-lock" => || exercises_property_holds(exercise_lock()),
        "exercise-worker" => || exercises_property_holds(exercise_worker()),
        _ => return None,
    })
}

/// Shuttle's mutex: at each `lock` it decides who goes on.
#[derive(Debug)]
struct Explored<T>(shuttle::sync::Mutex<T>);

impl<T: Send + 'static> Mutex<T> for Explored<T> {
    fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    fn lock(&self) -> impl DerefMut<Target = T> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

/// What the answers say was sold, and what is left.
struct Count {
    sold: u64,
    left: u64,
}

fn sum_is_right(Count { sold, left }: Count) {
    assert!(
        sold + left == PUT,
        "{BROKEN}{sold} sold and {left} left of {PUT}"
    );
}

fn exercises_property_holds(Count { sold, left }: Count) {
    assert!(
        exercise::nothing_is_lost(PUT, sold, left),
        "{BROKEN}{sold} sold and {left} left of {PUT}"
    );
}

/// All orders at once; how many were sold.
async fn at_once<F>(reserve: impl Fn(Order) -> F) -> u64
where
    F: Future<Output = Result<u64, Refused>> + Send + 'static,
{
    let order = || Order {
        sku: SKU.to_owned(),
        quantity: 1,
    };
    let orders: Vec<_> = (0..ORDERS).map(|_| spawn(reserve(order()))).collect();
    let mut sold = 0;
    for one in orders {
        sold += u64::from(one.await.is_ok_and(|outcome| outcome.is_ok()));
    }
    sold
}

/// An approval that takes its time: others go on meanwhile.
async fn approval() -> Result<(), Refused> {
    yield_now().await;
    Ok(())
}

/// A scene with a shelf.
fn with_shelf<F>(reserve: impl Fn(Arc<Shelf<Explored<Stock>>>, Order) -> F) -> Count
where
    F: Future<Output = Result<u64, Refused>> + Send + 'static,
{
    let shelf = Arc::new(Shelf::default());
    shelf.put(SKU, PUT);
    let sold = block_on(at_once(|order| reserve(Arc::clone(&shelf), order)));
    Count {
        sold,
        left: shelf.look(SKU).unwrap_or_default(),
    }
}

/// Reads, asks, and writes back what it read.
fn naive() -> Count {
    with_shelf(|shelf, order| async move {
        let read = shelf.look(&order.sku).ok_or(Refused::Unknown)?;
        let left = read.checked_sub(order.quantity).ok_or(Refused::SoldOut)?;
        approval().await?;
        shelf.put(&order.sku, left);
        Ok(left)
    })
}

/// Broken on purpose, and so that no request over HTTP could show it: nothing lies between the two
/// locks but the moment in which nobody holds one.
fn two_locks() -> Count {
    with_shelf(|shelf, order| async move {
        approval().await?;
        let there = shelf.look(&order.sku).ok_or(Refused::Unknown)?;
        let left = there.checked_sub(order.quantity).ok_or(Refused::SoldOut)?;
        shelf.put(&order.sku, left);
        Ok(left)
    })
}

fn lock() -> Count {
    with_shelf(|shelf, order| async move {
        approval().await?;
        shelf.take(&order)
    })
}

/// A scene with an owner.
fn with_owner<F>(reserve: impl Fn(Owner, Order) -> F + Send + 'static) -> Count
where
    F: Future<Output = Result<u64, Refused>> + Send + 'static,
{
    block_on(async move {
        let (owner, messages) = Owner::new();
        let life = spawn(stock::own(messages));
        owner.put(SKU, PUT).await.expect("the owner is there");
        let sold = at_once(|order| reserve(owner.clone(), order)).await;
        let left = owner.look(SKU).await.expect("the owner is there");
        // The owner ends when nobody can ask any more.
        drop(owner);
        drop(life.await);
        Count { sold, left }
    })
}

fn worker() -> Count {
    with_owner(|owner, order| async move {
        approval().await?;
        owner.take(&order).await
    })
}

/// Broken on purpose: asking and telling are two messages, and others come in between.
fn two_messages() -> Count {
    with_owner(|owner, order| async move {
        approval().await?;
        let there = owner.look(&order.sku).await?;
        let left = there.checked_sub(order.quantity).ok_or(Refused::SoldOut)?;
        owner.put(&order.sku, left).await?;
        Ok(left)
    })
}

/// A scene with the exercise's shelf.
fn with_your_shelf<F>(reserve: impl Fn(Arc<exercise::Shelf<Explored<Stock>>>, Order) -> F) -> Count
where
    F: Future<Output = Result<u64, Refused>> + Send + 'static,
{
    let shelf = Arc::new(exercise::Shelf::default());
    shelf.put(SKU, PUT);
    let sold = block_on(at_once(|order| reserve(Arc::clone(&shelf), order)));
    Count {
        sold,
        left: shelf.look(SKU).unwrap_or_default(),
    }
}

fn exercise_naive() -> Count {
    with_your_shelf(|shelf, order| async move {
        exercise::reserve_naive(&shelf, &order, approval()).await
    })
}

fn exercise_lock() -> Count {
    with_your_shelf(|shelf, order| async move {
        exercise::reserve_lock(&shelf, &order, approval()).await
    })
}

fn exercise_worker() -> Count {
    block_on(async {
        let (owner, messages) = exercise::Owner::new();
        let life = spawn(exercise::own(messages));
        owner.put(SKU, PUT).await.expect("the owner is there");
        let reserve = |order: Order| {
            let owner = owner.clone();
            async move { exercise::reserve_worker(&owner, &order, approval()).await }
        };
        let sold = at_once(reserve).await;
        let left = owner.look(SKU).await.expect("the owner is there");
        drop(owner);
        drop(life.await);
        Count { sold, left }
    })
}
