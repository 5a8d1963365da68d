//! A request to end that reaches a worker, whenever it looks.

use tokio::sync::watch;

/// Asks once; everybody who waits, or will wait, hears it.
#[derive(Debug)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Asks.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    /// Completes once it was asked. Outlives `self`, and counts its end as asking.
    pub fn asked(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.subscribe();
        async move {
            let _ = receiver.wait_for(|asked| *asked).await;
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}
