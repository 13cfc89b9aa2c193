//! What KEDA's operator and the HPA do, with real worker processes for pods. The intervals are shorter than on a
//! cluster, in about the same proportions; the rules are the same.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    external::{Pushes, Trigger},
    stack::{Forebay, Stack},
};

/// What a ScaledObject and its HPA are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How often KEDA asks whether there is work.
    pub(crate) polling: Duration,
    /// How often the HPA asks how much.
    pub(crate) sync: Duration,
    /// For how long there must be no work before the last pod goes.
    pub(crate) cooldown: Duration,
    /// The HPA takes the highest of its recommendations of this time when it scales down.
    pub(crate) stabilization: Duration,
    /// The most pods.
    pub(crate) max: usize,
}

/// KEDA, for one ScaledObject.
pub(crate) struct Keda<'a> {
    rules: Rules,
    /// Polls go to one replica of the scaler and the stream to another, as behind a headless service.
    polled: Trigger,
    pushed: Trigger,
    pub(crate) pool: Pool<'a>,
    last_active: Option<Instant>,
    recommended: VecDeque<(Instant, usize)>,
    /// When the stream said that there is work, for the first time.
    pub(crate) woken: Option<Instant>,
}

impl<'a> Keda<'a> {
    pub(crate) fn of(
        rules: Rules,
        metadata: &[(&str, &str)],
        [polled, pushed]: [&Forebay; 2],
        pool: Pool<'a>,
    ) -> Self {
        Self {
            rules,
            polled: Trigger::new(&polled.grpc, metadata),
            pushed: Trigger::new(&pushed.grpc, metadata),
            pool,
            last_active: None,
            recommended: VecDeque::new(),
            woken: None,
        }
    }

    /// Runs both control loops until `done` says so; `look` is called several times a second.
    pub(crate) async fn run(&mut self, mut look: impl AsyncFnMut(usize), done: impl Fn() -> bool) {
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut pushes = self.pushes().await;
        let (mut poll, mut sync, mut view) = (
            every(self.rules.polling),
            every(self.rules.sync),
            every(Duration::from_millis(250)),
        );
        while !(done() && self.pool.is_gone()) {
            tokio::select! {
                pushed = pushes.next() => match pushed {
                    Ok(Some(true)) => self.activate(),
                    Ok(Some(false)) => {}
                    Ok(None) => pushes = self.pushes().await,
                    Err(status) => panic!("the stream failed: {status}"),
                },
                _ = poll.tick() => self.poll().await,
                _ = sync.tick() => self.sync().await,
                _ = view.tick() => look(self.pool.len()).await,
            }
        }
    }

    async fn pushes(&self) -> Pushes {
        self.pushed.pushes().await.unwrap()
    }

    fn activate(&mut self) {
        let now = Instant::now();
        self.woken.get_or_insert(now);
        self.last_active = Some(now);
        if self.pool.len() == 0 {
            self.pool.scale(1);
        }
    }

    /// The operator's loop: it decides between none and one.
    async fn poll(&mut self) {
        match self.polled.is_active().await {
            Ok(true) => self.activate(),
            Ok(false) => {
                let idle = self
                    .last_active
                    .is_none_or(|at| at.elapsed() > self.rules.cooldown);
                if idle && self.pool.len() > 0 {
                    self.pool.scale(0);
                }
            }
            // Nothing is known: nothing is done.
            Err(status) => eprintln!("the poll failed: {status}"),
        }
    }

    /// The HPA's loop: it decides between one and many.
    async fn sync(&mut self) {
        let current = self.pool.len();
        if current == 0 {
            self.recommended.clear();
            return;
        }
        let (Ok(value), Ok((_, target))) = (self.polled.value().await, self.polled.spec().await) else {
            return;
        };
        let now = Instant::now();
        let wanted = recommendation(current, value, target).clamp(1, self.rules.max);
        self.recommended.push_back((now, wanted));
        while self
            .recommended
            .front()
            .is_some_and(|(at, _)| now - *at > self.rules.stabilization)
        {
            self.recommended.pop_front();
        }
        let highest = self.recommended.iter().map(|(_, wanted)| *wanted).max();
        if wanted > current {
            self.pool.scale(wanted.min((current * 2).max(current + 4)));
        } else {
            self.pool.scale(highest.unwrap_or(wanted).min(current));
        }
    }
}

/// The HPA's formula for an average over pods: within a tenth of the target nothing changes.
fn recommendation(current: usize, value: f64, target: f64) -> usize {
    let ratio = value / (target * current as f64);
    if (ratio - 1.0).abs() <= 0.1 {
        current
    } else {
        (value / target).ceil() as usize
    }
}

/// The pods: worker processes. Those that were told to end do so in the background, in good order.
pub(crate) struct Pool<'a> {
    stack: &'a Stack,
    args: Vec<&'a str>,
    pods: Vec<Forebay>,
    ending: JoinSet<()>,
    /// How many there were at most, and how many were told to end.
    pub(crate) most: usize,
    pub(crate) ended: usize,
}

impl<'a> Pool<'a> {
    pub(crate) fn of(stack: &'a Stack, args: &[&'a str]) -> Self {
        Self {
            stack,
            args: args.to_vec(),
            pods: Vec::new(),
            ending: JoinSet::new(),
            most: 0,
            ended: 0,
        }
    }

    fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod is left, not even one that ends. What went wrong with one that has ended is raised here.
    fn is_gone(&mut self) -> bool {
        while let Some(ended) = self.ending.try_join_next() {
            ended.unwrap();
        }
        self.pods.is_empty() && self.ending.is_empty()
    }

    /// The newest pods end first, as in a ReplicaSet whose pods are all alike.
    fn scale(&mut self, to: usize) {
        while self.pods.len() < to {
            self.pods.push(self.stack.worker_without_waiting(&self.args));
        }
        for mut pod in self.pods.drain(to..) {
            self.ended += 1;
            self.ending.spawn(async move { pod.terminate().await });
        }
        self.most = self.most.max(self.pods.len());
    }
}
