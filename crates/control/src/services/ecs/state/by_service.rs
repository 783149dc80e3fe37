//! The tasks that services have to do with, by service: follows from the tasks alone. It holds the tasks and not their
//! keys: a service looks at all of its tasks whenever one of them changes, and looking each up would cost more than that.

use super::{ServiceKey, Task};
use gantry_decide::ids::TaskId;
use gantry_store::{Record, Table};
use imbl::OrdMap;
use std::sync::Arc;

/// Tasks not yet STOPPED, and those whose end is not accounted for. A clone is cheap.
#[derive(Clone, Default)]
pub struct TasksByService {
    services: OrdMap<ServiceKey, OrdMap<TaskId, Arc<Task>>>,
}

impl TasksByService {
    /// Takes a task's form, if a service has to do with it.
    pub fn put(&mut self, task: &Arc<Task>) {
        if let Some(service) = task.service_key().filter(|_| task.is_in_books()) {
            self.services.entry(service).or_default().insert(task.id, Arc::clone(task));
        }
    }

    /// Forgets a task. `task` is a form of it.
    pub fn remove(&mut self, task: &Task) {
        let Some(service) = task.service_key() else { return };
        let Some(tasks) = self.services.get_mut(&service) else { return };
        tasks.remove(&task.id);
        if tasks.is_empty() {
            self.services.remove(&service);
        }
    }

    /// A service's tasks by their ids.
    pub fn of<'a>(&'a self, service: &ServiceKey) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.services.get(service).into_iter().flat_map(OrdMap::values).map(AsRef::as_ref)
    }

    /// Panics where it contradicts the tasks.
    pub fn check(&self, tasks: &Table<Task>) {
        let mut listed = 0;
        for (service, of_service) in self.services.iter() {
            assert!(!of_service.is_empty(), "{service} is listed without tasks");
            listed += of_service.len();
            for task in of_service.values() {
                let known = tasks.get(&task.key());
                assert!(
                    known.is_some_and(|known| Arc::ptr_eq(known, task)),
                    "{service} has an old form of {}",
                    task.id
                );
                assert_eq!(task.service_key().as_ref(), Some(service), "{} is another service's", task.id);
            }
        }
        let of_services = tasks.values().filter(|task| task.is_in_books() && task.service_key().is_some());
        assert_eq!(listed, of_services.count(), "tasks are missing from their services");
    }
}
