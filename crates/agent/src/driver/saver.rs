//! Saving tasks on a thread of its own, in order. What changes again before its turn is written once.

use crate::state::{AgentState, Instance, SavedTask, StateError};
use gantry_decide::task_engine::TaskArn;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

enum Order {
    Save(Box<SavedTask>),
    Forget(TaskArn),
    Instance(Instance),
    /// Answered when everything before it is on the disk.
    Barrier(oneshot::Sender<()>),
}

/// Hands over what is to be saved. Ends with its last clone.
#[derive(Clone)]
pub struct Saver(Sender<Order>);

impl Saver {
    /// Starts the thread. `failed` is called once, last, when saving fails: what an agent cannot save it must not
    /// acknowledge, so it has to stop.
    pub fn start(state: AgentState, failed: oneshot::Sender<StateError>) -> io::Result<Saver> {
        let (orders, inbox) = channel();
        std::thread::Builder::new().name("saver".to_owned()).spawn(move || {
            if let Err(error) = work(&state, &inbox) {
                // Nobody listens any more when the agent ends.
                let _ = failed.send(error);
            }
        })?;
        Ok(Saver(orders))
    }

    pub fn save(&self, task: SavedTask) {
        self.order(Order::Save(Box::new(task)));
    }

    pub fn forget(&self, task: TaskArn) {
        self.order(Order::Forget(task));
    }

    pub fn save_instance(&self, instance: Instance) {
        self.order(Order::Instance(instance));
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

fn work(state: &AgentState, inbox: &Receiver<Order>) -> Result<(), StateError> {
    while let Ok(first) = inbox.recv() {
        let mut tasks: BTreeMap<TaskArn, Option<SavedTask>> = BTreeMap::new();
        let mut instance = None;
        let mut barriers = Vec::new();
        for order in std::iter::once(first).chain(inbox.try_iter()) {
            match order {
                Order::Save(saved) => _ = tasks.insert(saved.task.spec.arn.clone(), Some(*saved)),
                Order::Forget(task) => _ = tasks.insert(task, None),
                Order::Instance(latest) => instance = Some(latest),
                Order::Barrier(done) => barriers.push(done),
            }
        }
        for (arn, saved) in &tasks {
            match saved {
                Some(saved) => state.save_task(saved)?,
                None => state.forget_task(arn)?,
            }
        }
        if let Some(instance) = &instance {
            state.save_instance(instance)?;
        }
        for done in barriers {
            // Who waited may have gone.
            let _ = done.send(());
        }
    }
    Ok(())
}
