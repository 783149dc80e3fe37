//! Saving tasks on a thread of its own, in order. What changes again before its turn is written once.

use crate::state::{AgentState, Change, Instance, SavedTask, StateError};
use gantry_decide::task_engine::TaskArn;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

enum Order {
    Save(Change),
    /// Answered when everything before it is on the disk.
    Barrier(oneshot::Sender<()>),
}

/// Hands over what is to be saved. Ends with its last clone.
#[derive(Clone)]
pub struct Saver(Sender<Order>);

impl Saver {
    /// Starts the thread. `failed` is called once, last, when saving fails: what an agent cannot save it must not
    /// acknowledge, so it has to stop.
    pub fn start(mut state: AgentState, failed: oneshot::Sender<StateError>) -> io::Result<Saver> {
        let (orders, inbox) = channel();
        std::thread::Builder::new().name("saver".to_owned()).spawn(move || {
            if let Err(error) = work(&mut state, &inbox) {
                // Nobody listens any more when the agent ends.
                let _ = failed.send(error);
            }
        })?;
        Ok(Saver(orders))
    }

    pub fn save(&self, task: SavedTask) {
        self.order(Order::Save(Change::Task(Box::new(task))));
    }

    pub fn forget(&self, task: TaskArn) {
        self.order(Order::Save(Change::Forget(task)));
    }

    pub fn save_instance(&self, instance: Instance) {
        self.order(Order::Save(Change::Instance(instance)));
    }

    /// Waits until all that was handed over is on the disk. False when it never will be.
    pub async fn saved(&self) -> bool {
        let (done, wait) = oneshot::channel();
        self.order(Order::Barrier(done));
        wait.await.is_ok()
    }

    fn order(&self, order: Order) {
        // The thread ends early only on a failure, which it tells.
        let _ = self.0.send(order);
    }
}

fn work(state: &mut AgentState, inbox: &Receiver<Order>) -> Result<(), StateError> {
    while let Ok(first) = inbox.recv() {
        let mut tasks: BTreeMap<TaskArn, Change> = BTreeMap::new();
        let mut instance = None;
        let mut barriers = Vec::new();
        for order in std::iter::once(first).chain(inbox.try_iter()) {
            match order {
                Order::Save(Change::Task(saved)) => {
                    _ = tasks.insert(saved.task.spec.arn.clone(), Change::Task(saved));
                }
                Order::Save(Change::Forget(task)) => _ = tasks.insert(task.clone(), Change::Forget(task)),
                Order::Save(latest @ Change::Instance(_)) => instance = Some(latest),
                Order::Barrier(done) => barriers.push(done),
            }
        }
        let changes: Vec<Change> = tasks.into_values().chain(instance).collect();
        if !changes.is_empty() {
            state.save(&changes)?;
        }
        for done in barriers {
            // Who waited may have gone.
            let _ = done.send(());
        }
    }
    Ok(())
}
