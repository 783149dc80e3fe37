//! The loop, driving a machine that adds numbers.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::backend::sqlite::SqliteBackend;
use gantry_store::Write;
use gantry_store::memory::{Failpoint, MemoryBackend};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Instant;

enum Input {
    Add(u64),
    /// To be told after this long.
    Alarm(Duration),
    Break,
    Durable(u64),
    Tick,
}

#[derive(Debug, PartialEq)]
enum Effect {
    Sum(u64),
    Rang,
}

/// Answers each sum once it is durable, and rings alarms.
#[derive(Default)]
struct Adder {
    sum: u64,
    seq: u64,
    held: VecDeque<(u64, u64)>,
    alarm: Option<Timestamp>,
}

impl Machine for Adder {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Timestamp, inputs: Vec<Input>) -> Vec<Step<Effect>> {
        assert!(inputs.len() <= INPUTS_PER_STEP_MAX + 1, "the tick is one more");
        let mut steps = Vec::new();
        let mut changed = false;
        for input in inputs {
            match input {
                Input::Add(n) => {
                    self.sum += n;
                    changed = true;
                    self.held.push_back((self.seq + 1, self.sum));
                }
                Input::Alarm(after) => self.alarm = Some(now + after),
                Input::Break => panic!("the sum is wrong"),
                Input::Durable(seq) => {
                    while let Some((_, sum)) = self.held.pop_front_if(|(needs, _)| *needs <= seq) {
                        steps.push(Step::Perform(Effect::Sum(sum)));
                    }
                }
                Input::Tick => {
                    if self.alarm.take_if(|at| *at <= now).is_some() {
                        steps.push(Step::Perform(Effect::Rang));
                    }
                }
            }
        }
        if changed {
            self.seq += 1;
            let value = self.sum.to_string().into_bytes().into();
            let writes = vec![Write { key: "sum".to_owned(), value: Some(value) }];
            steps.push(Step::Persist(Batch { seq: self.seq, writes }));
        }
        if let Some(at) = self.alarm {
            steps.push(Step::WakeAt(at));
        }
        steps
    }

    fn durable(seq: u64) -> Input {
        Input::Durable(seq)
    }

    fn tick() -> Input {
        Input::Tick
    }
}

fn started(backend: Box<dyn Backend>) -> (Writer<Input>, Receiver<Effect>, Receiver<String>) {
    let (effects, performed) = mpsc::channel();
    let (fatals, fatal) = mpsc::channel();
    let perform = move |effect| drop(effects.send(effect));
    let on_fatal = move |fatal: &Fatal| fatals.send(fatal.to_string()).unwrap();
    (Writer::start(Adder::default(), backend, Fence(1), perform, on_fatal).unwrap(), performed, fatal)
}

#[test]
fn every_answer_comes_in_order_and_is_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let backend = SqliteBackend::open(directory.path()).unwrap();
    let (writer, performed, _) = started(Box::new(backend));
    let inbox = writer.inbox();
    let mut given = 0;
    while given < 10_000 {
        match inbox.offer(Input::Add(1)) {
            Ok(()) => given += 1,
            Err(error) => {
                assert_eq!(error, Rejected::Full);
                std::thread::yield_now();
            }
        }
    }
    writer.stop().unwrap();
    let sums: Vec<Effect> = performed.try_iter().collect();
    assert_eq!(sums, (1..=10_000).map(Effect::Sum).collect::<Vec<_>>());
    assert_eq!(inbox.offer(Input::Add(1)), Err(Rejected::Stopped));

    // The store is free again, though an inbox is still about.
    let mut stored = Vec::new();
    let mut backend = SqliteBackend::open(directory.path()).unwrap();
    let sink = &mut |_: &str, value: &[u8]| {
        stored.push(String::from_utf8(value.to_vec()).unwrap());
        ControlFlow::Continue(())
    };
    backend.load(sink).unwrap();
    assert_eq!(stored, ["10000"]);
}

#[test]
fn wakes_when_the_machine_wishes() {
    let (writer, performed, _) = started(Box::new(MemoryBackend::new()));
    let began = Instant::now();
    writer.inbox().offer(Input::Alarm(Duration::from_millis(150))).unwrap();
    assert_eq!(performed.recv_timeout(Duration::from_secs(5)).unwrap(), Effect::Rang);
    assert!(began.elapsed() >= Duration::from_millis(145), "{:?}", began.elapsed());
    writer.stop().unwrap();
}

#[test]
fn a_failed_store_ends_it_and_nothing_unsure_is_answered() {
    let mut backend = MemoryBackend::new();
    backend.fail_at(Failpoint::AfterSync);
    let (writer, performed, fatal) = started(Box::new(backend));
    writer.inbox().offer(Input::Add(7)).unwrap();
    assert_eq!(fatal.recv_timeout(Duration::from_secs(5)).unwrap(), "the store failed");
    assert!(matches!(writer.stop(), Err(Fatal::Store(_))));
    assert!(performed.try_recv().is_err());
}

#[test]
fn a_broken_invariant_ends_it() {
    let (writer, _performed, fatal) = started(Box::new(MemoryBackend::new()));
    let inbox = writer.inbox();
    inbox.offer(Input::Break).unwrap();
    assert!(fatal.recv_timeout(Duration::from_secs(5)).unwrap().contains("the sum is wrong"));
    assert!(writer.stop().is_err());
    assert_eq!(inbox.offer(Input::Add(1)), Err(Rejected::Stopped));
}

#[tokio::test]
async fn agents_wait_where_callers_are_refused() {
    let (writer, performed, _) = started(Box::new(MemoryBackend::new()));
    let inbox = writer.inbox();
    let all = Arc::clone(&inbox.room).acquire_many_owned(u32::try_from(INPUTS_MAX).unwrap()).await.unwrap();
    assert_eq!(inbox.offer(Input::Add(1)), Err(Rejected::Full));
    let waiting = tokio::spawn({
        let inbox = inbox.clone();
        async move { inbox.hand_over(Input::Add(2)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    drop(all);
    waiting.await.unwrap().unwrap();
    assert_eq!(performed.recv_timeout(Duration::from_secs(5)).unwrap(), Effect::Sum(2));
}

#[tokio::test]
async fn calm_inputs_wait_for_the_next_step_and_come_before_it() {
    let (sums, told) = mpsc::channel();
    let writer = Writer::start(
        Adder::default(),
        Box::new(MemoryBackend::new()),
        Fence(0),
        move |effect| sums.send(effect).unwrap(),
        |_| {},
    )
    .unwrap();
    let inbox = writer.inbox();
    for _ in 0..3 {
        inbox.hand_over_calmly(Input::Add(1)).await.unwrap();
    }
    inbox.offer(Input::Add(10)).unwrap();
    let sums: Vec<Effect> = (0..4).map(|_| told.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    assert_eq!(sums, [1, 2, 3, 13].map(Effect::Sum));
    // Nothing else comes: the longest sleep ends, and the step takes them.
    inbox.hand_over_calmly(Input::Add(1)).await.unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), Effect::Sum(14));
    // More than may wait.
    for _ in 0..3 * CALM_MAX {
        inbox.hand_over_calmly(Input::Add(1)).await.unwrap();
    }
    writer.stop().unwrap();
    let sums = told.iter().collect::<Vec<_>>();
    assert!(sums.len() >= 2 * CALM_MAX, "those beyond the last {CALM_MAX} were handed over at once");
}

/// However much waits, a step takes its measure. The loop is held up until everything has been handed over.
#[tokio::test]
async fn a_step_is_bounded_with_the_calm_ones_that_it_takes() {
    let (holds, held) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let perform = move |effect| {
        if effect == Effect::Sum(1) {
            holds.send(()).unwrap();
            released.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    };
    let backend = Box::new(MemoryBackend::new());
    let writer = Writer::start(Adder::default(), backend, Fence(0), perform, |_| {}).unwrap();
    let inbox = writer.inbox();
    inbox.offer(Input::Add(1)).unwrap();
    held.recv_timeout(Duration::from_secs(10)).unwrap();
    for _ in 1..CALM_MAX {
        inbox.hand_over_calmly(Input::Add(1)).await.unwrap();
    }
    for _ in 0..2 * INPUTS_PER_STEP_MAX {
        inbox.offer(Input::Add(1)).unwrap();
    }
    release.send(()).unwrap();
    writer.stop().unwrap();
}
