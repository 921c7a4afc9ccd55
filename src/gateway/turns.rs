//! The upstreams of a chain, asked in turn: the next when one has failed, or when one has not begun to answer within the time that
//! it is waited for alone.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::route::Step;

/// What one upstream gave.
pub(super) struct Turn<T> {
    pub(super) step: Step,
    pub(super) started: std::time::Instant,
    pub(super) result: T,
}

type Asking<'a, T> = Pin<Box<dyn Future<Output = Option<Turn<T>>> + Send + 'a>>;

/// A step that is being asked.
struct Asked {
    step: Step,
    started: std::time::Instant,
    /// Dropped, it ends the question.
    _alive: oneshot::Sender<()>,
}

/// A chain on its way. Dropped, it drops the questions that are under way.
pub(super) struct Turns<'a, T, A, P> {
    ask: A,
    /// How long a step is waited for alone; `None` for as long as it takes.
    patience: P,
    waiting: VecDeque<Step>,
    /// The upstreams of all steps, in order.
    order: Vec<usize>,
    /// Those that are asked when nobody else has answered.
    deferred: Vec<usize>,
    /// The steps that are being asked, in the order of the chain.
    asked: Vec<Asked>,
    asking: FuturesUnordered<Asking<'a, T>>,
    /// When the next may begin although nobody has failed.
    due: Option<Instant>,
}

impl<'a, T, F, A, P> Turns<'a, T, A, P>
where
    T: Send + 'a,
    F: Future<Output = T> + Send + 'a,
    A: Fn(Step, bool) -> F,
    P: Fn(&Step) -> Option<Duration>,
{
    pub(super) fn new(steps: &[Step], patience: P, ask: A) -> Self {
        let (waiting, order) = (steps.iter().copied().collect(), steps.iter().map(|s| s.upstream).collect());
        Self { ask, patience, waiting, order, deferred: Vec::new(), asked: Vec::new(), asking: FuturesUnordered::new(), due: None }
    }

    /// The next that comes back, whichever it is; `None` when all did that are to be asked.
    pub(super) async fn next(&mut self) -> Option<Turn<T>> {
        loop {
            if self.asking.is_empty() && !self.begin() {
                return None;
            }
            let due = self.due.filter(|_| !self.waiting.is_empty());
            let overdue = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(turn) = self.asking.next() => {
                    // One that was dropped brings nothing.
                    let Some(turn) = turn else { continue };
                    // Where the one that began last has failed, the next need not be waited for.
                    if self.asked.last().is_some_and(|a| a.step.upstream == turn.step.upstream) {
                        self.due = Some(Instant::now());
                    }
                    self.asked.retain(|a| a.step.upstream != turn.step.upstream);
                    return Some(turn);
                }
                () = overdue => {
                    self.begin();
                }
            }
        }
    }

    fn begin(&mut self) -> bool {
        let Some(step) = self.waiting.pop_front() else { return false };
        let started = std::time::Instant::now();
        let resort = self.deferred.contains(&step.upstream);
        let patience = (self.patience)(&step).filter(|_| !resort);
        let asking = (self.ask)(step, resort);
        let (alive, mut dropped) = oneshot::channel::<()>();
        self.asking.push(Box::pin(async move {
            tokio::select! {
                result = asking => Some(Turn { step, started, result }),
                _ = &mut dropped => None,
            }
        }));
        self.asked.push(Asked { step, started, _alive: alive });
        self.due = patience.map(|patience| Instant::now() + patience);
        true
    }

    /// Asks this one again when nobody else is left, as the last resort, of which the question is told. Once: whether it is so.
    pub(super) fn defer(&mut self, step: Step) -> bool {
        let first = !self.deferred.contains(&step.upstream);
        if first {
            self.deferred.push(step.upstream);
            self.waiting.push_back(step);
        }
        first
    }

    /// Nobody after this step is asked any more, and those who are being asked already are dropped. Those before it, which it
    /// overtook, may still answer.
    /// `told` hears of each that is dropped.
    pub(super) fn stop(&mut self, after: &Step, mut told: impl FnMut(Step, std::time::Instant)) {
        self.waiting.clear();
        let place = |step: &Step| self.order.iter().position(|upstream| *upstream == step.upstream);
        let at = place(after);
        self.asked.retain(|asked| {
            let stays = place(&asked.step) < at;
            if !stays {
                told(asked.step, asked.started);
            }
            stays
        });
    }

    /// Drops the questions that are under way, because another answer came first. They can be asked again by [`Turns::next`].
    /// `told` hears of each before it is dropped.
    pub(super) fn overtake(&mut self, mut told: impl FnMut(Step, std::time::Instant)) {
        for asked in self.asked.drain(..).rev() {
            told(asked.step, asked.started);
            self.waiting.push_front(asked.step);
        }
        self.asking.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream n does: answers good or bad after so many milliseconds.
    fn steps(count: usize) -> Vec<Step> {
        (0..count).map(|upstream| Step { upstream, goes_on: None }).collect()
    }

    async fn order(plan: &'static [(u64, bool)], hedge_after: Option<u64>) -> (Vec<usize>, Vec<usize>) {
        let ask = |step: Step, _: bool| async move {
            let (wait, good) = plan[step.upstream];
            tokio::time::sleep(Duration::from_millis(wait)).await;
            good
        };
        let mut turns = Turns::new(&steps(plan.len()), |_: &Step| hedge_after.map(Duration::from_millis), ask);
        let (mut came, mut dropped) = (Vec::new(), Vec::new());
        while let Some(turn) = turns.next().await {
            came.push(turn.step.upstream);
            if turn.result {
                turns.overtake(|step, _| dropped.push(step.upstream));
                break;
            }
        }
        dropped.sort_unstable();
        (came, dropped)
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_ends_the_chain_drops_what_came_after_it() {
        // The first is late and then fails in a way that ends the chain, while the second is being asked.
        let waits = [60, 100, 1];
        let ask = |step: Step, _: bool| async move {
            tokio::time::sleep(Duration::from_millis(waits[step.upstream])).await;
            step.upstream
        };
        let mut turns = Turns::new(&steps(3), |_: &Step| Some(Duration::from_millis(50)), ask);
        let first = turns.next().await.expect("a turn");
        assert_eq!(first.result, 0);
        turns.stop(&first.step, |step, _| assert_eq!(step.upstream, 1));
        assert!(turns.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_begins_when_the_newest_has_failed_though_an_older_one_is_out() {
        let ask = |step: Step, _: bool| async move {
            tokio::time::sleep(Duration::from_secs([60, 1, 1][step.upstream])).await;
            step.upstream
        };
        // Only the first is not waited for alone.
        let patience = |step: &Step| (step.upstream == 0).then_some(Duration::ZERO);
        let mut turns = Turns::new(&steps(3), patience, ask);
        assert_eq!(turns.next().await.map(|t| t.result), Some(1));
        assert_eq!(turns.next().await.map(|t| t.result), Some(2));
    }

    #[tokio::test]
    async fn one_that_is_deferred_comes_last() {
        let ask = |step: Step, resort: bool| async move { (step.upstream, resort) };
        let mut turns = Turns::new(&steps(3), |_: &Step| None, ask);
        let mut came = Vec::new();
        while let Some(turn) = turns.next().await {
            came.push(turn.result);
            if turn.result == (0, false) {
                assert!(turns.defer(turn.step));
            }
        }
        assert_eq!(came, [(0, false), (1, false), (2, false), (0, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other_and_side_by_side_where_one_is_late() {
        assert_eq!(order(&[(10, false), (10, true), (1, true)], None).await, (vec![0, 1], vec![]));
        assert_eq!(order(&[(100, true), (10, true)], None).await, (vec![0], vec![]));
        assert_eq!(order(&[(100, true), (10, true)], Some(50)).await, (vec![1], vec![0]));
        assert_eq!(order(&[(40, true), (10, true)], Some(50)).await, (vec![0], vec![]));
        // The second fails at once: the third begins at once, although the first is still out.
        assert_eq!(order(&[(100, true), (1, false), (10, true)], Some(50)).await, (vec![1, 2], vec![0]));
        // The first fails while the second is out: the third waits for its time.
        assert_eq!(order(&[(60, false), (30, true), (1, true)], Some(50)).await, (vec![0, 1], vec![]));
        assert_eq!(order(&[(10, false), (10, false)], Some(50)).await, (vec![0, 1], vec![]));
    }
}
